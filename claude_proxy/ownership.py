"""Tells whether anybody but the owner could change a file, or put another in its place.

Law 10: what holds the policy, the CA's key, the audit log or a socket is refused if others could.
It imports nothing heavy, as the relay asks it too.
"""

import grp
import os
import pwd
import stat
from pathlib import Path

from claude_proxy.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


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


def refuse_writable(path: Path, found: os.stat_result, holds: str = "the policy") -> None:
    """Raise ConfigError if anybody but the owner (or root) could change `path`."""
    what = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    # In a user namespace root's own files seem to be somebody else's, as "/" does.
    if found.st_uid not in (0, os.geteuid(), Path("/").stat().st_uid):
        raise ConfigError(
            f"the {what} belongs to another user, who could change {holds}",
            where=str(path),
            mend=f"chown it: sudo chown {os.geteuid()} {path}",
        )
    sticky_directory = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    by_others = found.st_mode & stat.S_IWOTH and not sticky_directory
    by_group = found.st_mode & stat.S_IWGRP and not sticky_directory
    if by_others or (by_group and not _is_private_group(found)):
        raise ConfigError(
            f"the {what} can be changed by other users, and with it {holds}",
            where=f"{path} (mode {stat.S_IMODE(found.st_mode):04o})",
            mend=f"chmod go-w {path}",
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
