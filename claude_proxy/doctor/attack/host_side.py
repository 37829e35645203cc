"""Host side of an attack: replaces protected entries of a project while it is attacked from inside.

It does what git, editors and shells do: rename over, remove and create, move away and back.
It works in a directory of its own only, and begins when a probe inside asks for it, so that the
probe knows when it is done.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

REQUEST: Final = "replace-now"  # created by the probe, and removed when everything was replaced
HIDDEN: Final = ".env"
_FILES: Final = (".envrc", ".mcp.json")
_DIRECTORIES: Final = (".vscode", ".husky")
_INSIDE: Final = "file"
_CONTENT: Final = "written outside\n"
_PAUSE_S: Final = 0.05


class HostSide:
    """Replaces the entries of one project, as often as it is asked."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def protected(self) -> list[str]:
        """The paths that must stay read-only: files, and a file in each directory."""
        inside = [f"{name}/{_INSIDE}" for name in _DIRECTORIES]
        return [str(self._project / name) for name in (*_FILES, *inside)]

    @property
    def hidden(self) -> str:
        """The path that must show nothing."""
        return str(self._project / HIDDEN)

    def create(self) -> None:
        """Create what is to be replaced; call it before the sandbox starts."""
        for name in (*_FILES, HIDDEN):
            (self._project / name).write_text(_CONTENT, encoding="ascii")
        for name in _DIRECTORIES:
            _make(self._project / name)

    def _serve(self) -> None:
        request = self._project / REQUEST
        while not self._closed.wait(_PAUSE_S):
            if request.exists():
                self.replace_everything()
                request.unlink(missing_ok=True)

    def replace_everything(self) -> None:
        """Replace each entry in every way."""
        for names, ways in (((*_FILES, HIDDEN), _WAYS), (_DIRECTORIES, _WAYS_OF_DIRECTORIES)):
            for name in names:
                for replace in ways:
                    with suppress(OSError):  # a process inside may be in the way
                        replace(self._project / name)

    def changed(self) -> tuple[str, ...]:
        """Return the files that do not contain what was written outside."""
        return tuple(_different(Path(name) for name in (*self.protected, self.hidden)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()


def _different(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            found = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except OSError:
            found = b""
        if found != _CONTENT.encode():
            yield f"{path.name} was changed"


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}~")


def _rename_over(path: Path) -> None:
    _beside(path).write_text(_CONTENT, encoding="ascii")
    _beside(path).replace(path)


def _remove_and_create(path: Path) -> None:
    path.unlink()
    path.write_text(_CONTENT, encoding="ascii")


def _keep_a_backup(path: Path) -> None:
    path.replace(_beside(path))
    path.write_text(_CONTENT, encoding="ascii")
    _beside(path).unlink()


def _make(directory: Path) -> None:
    directory.mkdir()
    (directory / _INSIDE).write_text(_CONTENT, encoding="ascii")


def _remove(directory: Path) -> None:
    (directory / _INSIDE).unlink()
    directory.rmdir()


def _move_away_and_back(directory: Path) -> None:
    directory.replace(_beside(directory))
    _beside(directory).replace(directory)


def _make_again(directory: Path) -> None:
    _remove(directory)
    _make(directory)


def _exchange(directory: Path) -> None:
    directory.replace(_beside(directory))
    _make(directory)
    _remove(_beside(directory))


_WAYS: tuple[Callable[[Path], None], ...] = (_rename_over, _remove_and_create, _keep_a_backup)
_WAYS_OF_DIRECTORIES: tuple[Callable[[Path], None], ...] = (
    _move_away_and_back,
    _make_again,
    _exchange,
)
