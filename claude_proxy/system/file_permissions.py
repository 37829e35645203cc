"""File permissions: whether anyone but the owner could change or replace a file.

Keeps "the sandbox cannot move its own wall": a policy, CA key, audit log or socket that others
could replace is refused. It imports nothing heavy, as the relay uses it too.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent
_MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)


def refuse_replaceable(path: Path, holds: str = "the policy") -> None:
    """Raise ConfigError if others could replace `path`.

    Anyone who can write to a directory can rename everything below it, at any depth. The directory
    that contains a link counts as well as the link's target.
    """
    for start in dict.fromkeys((path.absolute(), path.resolve())):
        # A user who can replace the shipped list can also replace this code: no point in checking.
        reach = 1 if start.is_relative_to(_PACKAGE) else None
        for directory in start.parents[:reach]:
            if directory.exists():
                refuse_writable(directory, directory.stat(), holds)


def resolution_steps(path: Path) -> Iterator[Path]:
    """Yield every path that resolving `path` passes through; the last one is the target.

    Anyone who can write to the directory of one of these decides what is found there. Each is a
    link, a directory reached by "..", or the file itself.
    """
    rest, at, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while rest:
        name = rest.pop()
        if name == "..":
            at = at.parent
            yield at
            continue
        at = at / name
        try:
            target = at.readlink() if links < _MAX_LINKS else None
        except OSError:  # not a link, or nothing there
            target = None
        if target is not None:
            links += 1
            yield at
            at = Path("/") if target.is_absolute() else at.parent
            rest += reversed([part for part in target.parts if part != "/"])
    yield at


def refuse_writable(path: Path, found: os.stat_result, holds: str = "the policy") -> None:
    """Raise ConfigError if a user other than the owner and root could change `path`."""
    what = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    # In a user namespace root's files seem to belong to another user, as "/" does.
    if found.st_uid not in (0, os.geteuid(), Path("/").stat().st_uid):
        raise ConfigError(
            f"the {what} belongs to another user, who could change {holds}",
            where=str(path),
            fix=f"chown it: sudo chown {os.geteuid()} {path}",
        )
    sticky_directory = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    by_others = found.st_mode & stat.S_IWOTH and not sticky_directory
    by_group = found.st_mode & stat.S_IWGRP and not sticky_directory
    if by_others or (by_group and not _is_private_group(found)):
        raise ConfigError(
            f"the {what} can be changed by other users, who could change {holds}",
            where=f"{path} (mode {stat.S_IMODE(found.st_mode):04o})",
            fix=f"chmod go-w {path}",
        )


def _is_private_group(found: os.stat_result) -> bool:
    """Return whether the group has only the owner, as on distributions with umask 002."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return (
        group.gr_gid == owner.pw_gid
        and group.gr_name == owner.pw_name
        and set(group.gr_mem) <= {owner.pw_name}
    )
