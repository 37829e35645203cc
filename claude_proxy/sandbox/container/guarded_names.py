"""What of a project stays read-only in a container: files that tools of the host obey."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.obeyed_files import protected_names
from claude_proxy.sandbox.plan.path_guards import SYSTEM_ROOTS
from claude_proxy.sandbox.plan.protected_paths import of_proxies, protected, secret

# A container that could write these would choose programs that git runs on the host.
_OF_GIT: Final = (".git/config", ".git/hooks")


def guarded_in(directory: Path) -> tuple[str, ...]:
    """Return the paths below a project that are there and are read-only in a container."""
    return tuple(
        name
        for name in dict.fromkeys((*_OF_GIT, *protected_names()))
        if _is_there(directory, Path(name))
    )


def refuse_project(directory: Path, environ: Mapping[str, str], home: Path, *ours: Path) -> None:
    """Raise ConfigError for a directory that no container may see as its project.

    `ours`: the directories of the configuration and of the state.
    """
    ours += of_proxies(os.geteuid())
    walls = [*protected(home, environ, *ours), *secret(home, environ)]
    for place in dict.fromkeys((directory, directory.resolve())):
        if place in SYSTEM_ROOTS or place == Path("/"):
            _refuse("the project would be a system directory", directory)
        if any(one.is_relative_to(place) for one in (home, home.resolve())):
            _refuse("the project would be your whole home directory", directory)
        for wall in walls:
            if place.is_relative_to(wall):
                _refuse(f"{wall} is never shown to a container", directory)
            if wall.is_relative_to(place):
                _refuse(f"it contains {wall}, which is never shown to a container", directory)


def _refuse(what: str, directory: Path) -> NoReturn:
    raise ConfigError(what, where=str(directory), fix="name the directory of a project")


def _is_there(directory: Path, path: Path) -> bool:
    """Tell whether a file or directory is there, by no link: a mount would follow one."""
    place = directory
    for part in path.parts:
        place /= part
        try:
            mode = os.lstat(place).st_mode
        except OSError:
            return False
        if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and part == path.name)):
            return False
    return True
