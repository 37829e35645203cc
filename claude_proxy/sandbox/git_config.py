"""Git's settings for a project, read by the host's own Git, and the paths of the project they name.

Law kept: the sandbox cannot move its own wall. Git follows every include and knows every place of
its settings; to list them it runs nothing. The listing is made while other facts are gathered.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.plan.git_settings import (
    Places,
    named_files,
    named_paths,
    settings_in,
    work_tree_of,
)

_PLACES = ("/usr/bin", "/usr/local/bin", "/bin", "/opt/homebrew/bin", "/run/current-system/sw/bin")
_PATIENCE_S = 10.0
_MOST_OTHERS = 32  # Git directories besides the project's own
_MOST_BYTES = 8 * 1024 * 1024
# They would make Git look at another repository than it does in the project.
_LEFT_OUT = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE"})


type _Named = tuple[tuple[Path, ...], tuple[str, ...]]  # paths, and notes


class GitConfig:
    """The listing of Git's settings, as it is being made."""

    def __init__(self, project: Path | None, environ: Mapping[str, str]) -> None:
        """Start to list the settings, if there is a project and it is in a repository."""
        self._project = Path(os.path.realpath(project or "/"))
        self._top = _top_of(self._project) if project is not None else None
        self._environ = environ
        self._process = _start(self._project, environ) if self._top is not None else None

    def __enter__(self) -> Self:
        """Return itself, to be used while other facts are gathered."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the listing if nobody asked for it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def paths(self, home: Path, others: Iterable[Path] = ()) -> _Named:
        """Return the paths of the project that settings name, and notes on what is unknown.

        `others` are more Git directories, such as those of submodules.
        """
        places = Places(self._project, self._top or self._project, Path(os.path.realpath(home)))
        own = self._project / ".git"
        more = [
            path for path in dict.fromkeys(others) if path != own and (path / "config").exists()
        ]
        listings = [
            (self._project, self._process),
            *(
                (path, _start(path, self._environ, "--file", "config"))
                for path in more[:_MOST_OTHERS]
            ),
        ]
        found: dict[Path, None] = {}
        notes: list[str] = []
        for directory, process in listings:
            if process is not None:
                named, unknown = self._named_in(process, directory, places)
                found |= dict.fromkeys(named)
                notes += unknown
        return tuple(found), tuple(notes)

    def _named_in(
        self, process: "subprocess.Popen[bytes]", directory: Path, places: Places
    ) -> _Named:
        listing, problem = _output_of(process)
        if problem is not None:
            note = f"git cannot list its settings in {directory} ({problem})"
            return (), (f"{note}, so what they name in the project is not read-only inside",)
        settings = list(settings_in(listing, directory))
        if directory != self._project:
            places = replace(places, top=work_tree_of(settings, directory))
        scripts = (path for path in named_files(settings, places) if os.path.isfile(path))  # noqa: PTH113 - refuses no name
        paths = map(_without_links_above, (*named_paths(settings, places), *scripts))
        return tuple(self._in_project(paths)), ()

    def _in_project(self, paths: Iterable[Path]) -> Iterator[Path]:
        for path in paths:
            if self._is_in_project(path):
                yield path
            # Settings elsewhere may be links into the project, as with a repository of dotfiles.
            elif self._is_in_project(real := Path(os.path.realpath(path))):
                yield real

    def _is_in_project(self, path: Path) -> bool:
        below = path.is_relative_to(self._project) and path != self._project
        return below and ".git" not in path.relative_to(self._project).parts


def _without_links_above(path: Path) -> Path:
    """Return a path without links on the way to it; the last name may be one."""
    return Path(os.path.realpath(path.parent)) / path.name


def _top_of(project: Path) -> Path | None:
    """Return the nearest directory that has a repository."""
    for directory in (project, *project.parents):
        if os.path.lexists(directory / ".git"):
            return directory
    # A bare repository has no `.git`.
    return project if (project / "HEAD").exists() else None


def _start(
    directory: Path, environ: Mapping[str, str], *options: str
) -> "subprocess.Popen[bytes] | None":
    git = _find_git(directory, environ)
    if git is None:
        return None
    variables = {name: text for name, text in environ.items() if name not in _LEFT_OUT}
    words = (git, "config", *options, "--list", "--show-origin", "--includes", "-z")
    with contextlib.suppress(OSError):
        return subprocess.Popen(  # noqa: S603 - the host's own Git, which runs nothing for this
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**variables, "LC_ALL": "C"},
        )
    return None


def _find_git(project: Path, environ: Mapping[str, str]) -> str | None:
    """Find Git where an agent of another run cannot have put it."""
    given = [entry for entry in environ.get("PATH", "").split(":") if entry.startswith("/")]
    outside = [path for path in given if not Path(os.path.realpath(path)).is_relative_to(project)]
    return shutil.which("git", path=":".join((*_PLACES, *outside)))


def _output_of(process: "subprocess.Popen[bytes]") -> tuple[bytes, str | None]:
    """Return what Git printed, or why that is not known."""
    try:
        out, err = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return b"", "it takes too long"
    if process.returncode:
        lines = err.decode("utf-8", "replace").split("\n")
        said = next((line for line in lines if line.strip()), f"exit code {process.returncode}")
        return b"", "".join(c for c in said if c.isprintable()).removeprefix("fatal: ")
    return (out, None) if len(out) <= _MOST_BYTES else (b"", "there are too many")
