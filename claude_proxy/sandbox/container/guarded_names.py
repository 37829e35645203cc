"""What of a project stays read-only in a container: files that tools of the host obey."""

import os
import stat
from pathlib import Path
from typing import Final

from claude_proxy.sandbox.plan.obeyed_files import protected_names

# A container that could write these would choose programs that git runs on the host.
_OF_GIT: Final = (".git/config", ".git/hooks")
_SELINUX: Final = Path("/sys/fs/selinux/enforce")


def guarded_in(directory: Path) -> tuple[str, ...]:
    """Return the paths below a project that are there and are read-only in a container."""
    return tuple(
        name
        for name in dict.fromkeys((*_OF_GIT, *protected_names()))
        if _is_there(directory, Path(name))
    )


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


def is_labelled() -> bool:
    """Tell whether SELinux is enforced on this machine, so that mounts need labels."""
    try:
        return _SELINUX.read_bytes().strip() == b"1"
    except OSError:
        return False
