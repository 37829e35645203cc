"""Tells whether anybody but the owner could change a file, or put another in its place.

Law 10: what holds the policy, the CA's key, the audit log or a socket is refused if others could.
It imports nothing heavy, as the relay asks it too.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent
_MOST_LINKS = 40  # the kernel's own limit, path_resolution(7)


def refuse_replaceable(path: Path, holds: str = "the policy") -> None:
    """Raise ConfigError if others could put something else in the place of `path`.

    Whoever may write in a directory can rename what is below it, however far down. Where a link
    lies counts like where it leads.
    """
    for start in dict.fromkeys((path.absolute(), path.resolve())):
        # Who can swap the shipped list can swap the code that reads it: no use in looking.
        reach = 1 if start.is_relative_to(_PACKAGE) else None
        for directory in start.parents[:reach]:
            if directory.exists():
                refuse_writable(directory, directory.stat(), holds)


def ways_to(path: Path) -> Iterator[Path]:
    """Yield what `path` leads through, all links followed; the last one is where it leads.

    Whoever may write where one of these lies decides what is found there: it is a link, a
    directory above one that is left again by "..", or the file itself.
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
            target = at.readlink() if links < _MOST_LINKS else None
        except OSError:  # no link, or nothing at all
            target = None
        if target is not None:
            links += 1
            yield at
            at = Path("/") if target.is_absolute() else at.parent
            rest += reversed([part for part in target.parts if part != "/"])
    yield at


def refuse_writable(path: Path, found: os.stat_result, holds: str = "the policy") -> None:
    """Raise ConfigError if anybody but the owner (or root) could change `path`."""
    what = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    # In a user namespace root's own files seem to be somebody else's, as "/" does.
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
            f"the {what} can be changed by other users, and with it {holds}",
            where=f"{path} (mode {stat.S_IMODE(found.st_mode):04o})",
            fix=f"chmod go-w {path}",
        )


def _is_private_group(found: os.stat_result) -> bool:
    """Tell whether the group is the owner's alone, as distributions with umask 002 make it."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return (
        group.gr_gid == owner.pw_gid
        and group.gr_name == owner.pw_name
        and set(group.gr_mem) <= {owner.pw_name}
    )
