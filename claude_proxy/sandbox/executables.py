"""Executables: finds the program of COMMAND, and what must be visible for it to work.

Law kept: the sandbox cannot move its own wall. A file in the project, which an agent may have
written, cannot make anything else visible.
"""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.plan.model import Program
from claude_proxy.sandbox.safe_read import text_of

_MAX_SHEBANGS = 4
_MAX_LINKS = 40
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class CommandError(ClaudeProxyError):
    """COMMAND cannot be run; the exit code is the one of a shell (POSIX, 2.8.2)."""

    def __init__(self, what: str, *, where: str, fix: str, exit_code: int) -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = exit_code


def find_program(
    command: tuple[str, ...], environ: Mapping[str, str], project: Path
) -> Program | None:
    """Return the program of COMMAND and what it needs; CommandError if it cannot be run."""
    name = command[0]
    given = str(project / name) if "/" in name else name
    found = shutil.which(given, path=environ.get("PATH") or os.defpath)
    if found is None:
        raise _not_found(name, Path(given), environ)
    path = Path(os.path.normpath(os.path.join(Path.cwd(), found)))  # noqa: PTH118
    trail = _Trail(environ, (project, Path(os.path.realpath(project))))
    trail.follow(path, _MAX_SHEBANGS)
    trees = tuple(dict.fromkeys(trail.trees))
    return Program(path, Path(os.path.realpath(path)), tuple(trail.links.items()), trees)


def _not_found(name: str, path: Path, environ: Mapping[str, str]) -> CommandError:
    if "/" not in name:
        unusable = shutil.which(name, os.F_OK, environ.get("PATH") or os.defpath) if name else None
        if unusable is None or Path(unusable).is_dir():
            fix = "install it, or give its path"
            what = f"command {name!r} not found"
            return CommandError(what, where="PATH", fix=fix, exit_code=_NOT_FOUND)
        path = Path(unusable)
    if path.is_dir():
        what, fix = f"the command {name!r} is a directory", "give a program in it"
    elif _is_program(path):
        what, fix = f"the command {name!r} is not executable", f"chmod +x {shlex.quote(str(path))}"
    elif path.exists():
        what, fix = f"the command {name!r} is not a program", "name a command, such as claude"
    else:
        what, fix = f"command {name!r} not found", "install it, or fix the path"
    code = _NOT_EXECUTABLE if path.exists() else _NOT_FOUND
    return CommandError(what, where=str(path), fix=fix, exit_code=code)


def _is_program(path: Path) -> bool:
    """Return whether a file begins as a script or a binary does."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4).startswith((b"#!", b"\x7fELF"))
    except OSError:
        return False


class _Trail:
    """Collects what a program needs: links, its directory tree, and those of its interpreter.

    Files in the project are skipped: an agent may have written them, and they must not make
    anything else visible.
    """

    def __init__(self, environ: Mapping[str, str], project: tuple[Path, ...]) -> None:
        self.links: dict[Path, str] = {}
        self.trees: list[Path] = []
        self._environ = environ
        self._project = project

    def follow(self, path: Path, shebangs: int) -> None:
        """Collect everything on the way from `path`, and from its interpreter."""
        links = dict(_links_on(path))
        if any(self._is_in_project(step) for step in (path, *links, *links.values())):
            return
        real = Path(os.path.realpath(path))
        self.links |= {link: str(target) for link, target in links.items()}
        self.trees.extend(_tree_above(real) or [real])
        for link in links:
            self.trees.extend(_tree_above(link))
        interpreter = _interpreter_of(real, self._environ)
        if interpreter is not None and shebangs:
            self.follow(interpreter, shebangs - 1)

    def _is_in_project(self, path: Path) -> bool:
        return any(path.is_relative_to(place) for place in self._project)


def _links_on(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each symbolic link on the way to the target of `path`, and where it leads."""
    for _ in range(_MAX_LINKS):
        for place in (*reversed(path.parents), path):
            if place.is_symlink():
                target = Path(os.path.normpath(place.parent / place.readlink()))
                yield place, target
                path = target / path.relative_to(place)
                break
        else:
            return


def _tree_above(path: Path) -> list[Path]:
    """Return the directory trees that a program needs besides its own file."""
    for place in reversed(path.parents):
        if place.name == "node_modules":
            return [place]
    if path.parent.name == "shims" and (path.parents[1] / "libexec").is_dir():
        return [path.parents[1]]  # pyenv: a shim calls programs beside its directory
    for place in path.parents:
        if (place / "pyvenv.cfg").is_file():
            return [place, *_base_of(place / "pyvenv.cfg")]
    return []


def _base_of(configuration: Path) -> list[Path]:
    """Return the Python installation that a virtual environment is based on."""
    for line in text_of(configuration).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "home" and value.strip().startswith("/"):
            prefix = Path(os.path.realpath(value.strip())).parent
            if any((prefix / "lib").glob("python3*/os.py")):
                return [prefix]
    return []


def _interpreter_of(real: Path, environ: Mapping[str, str]) -> Path | None:
    first = text_of(real).partition("\n")[0]
    if not first.startswith("#!"):
        return None
    words = first[2:].split()
    if not words:
        return None
    name = words[0]
    if Path(name).name == "env":
        rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        name = rest[0] if rest else "env"
    found = shutil.which(name, path=environ.get("PATH") or os.defpath)
    return Path(os.path.abspath(found)) if found else None  # noqa: PTH100 - without following links
