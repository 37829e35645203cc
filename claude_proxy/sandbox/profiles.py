"""Profiles: the shipped ones, the user's own, and the file in which a project restricts its runs.

Law kept: the sandbox cannot move its own wall. A profile that others may write is refused. A
project's file may have been created by the agent, so it is read only if it is a plain file.
"""

import os
import re
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.packaged_files import packaged_text
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import Profile
from claude_proxy.sandbox.plan.profile_parser import (
    ProjectRestrictions,
    extended,
    parse_profile,
    parse_restrictions,
)
from claude_proxy.system import file_permissions

PROJECT_FILE = ".claude-proxy.yaml"
DIRECTORY = "profiles"  # of the user's profiles, in the directory of the configuration
DEFAULT = "shell"
SHIPPED = ("claude", "gemini", "codex", "shell")

_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 8  # of `extends`
_NAME = lazy_pattern(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


def names(user_directory: Path) -> tuple[str, ...]:
    """Return the name of every profile, the shipped ones first."""
    own = sorted(path.stem for path in user_directory.glob("*.yaml") if _NAME.fullmatch(path.stem))
    return tuple(dict.fromkeys((*SHIPPED, *own)))


def of_command(command: str, user_directory: Path) -> str:
    """Return the name of the profile that lists COMMAND, or of the default profile."""
    program = PurePosixPath(command).name
    found = [
        name
        for name in names(user_directory)
        if _may_list(name, program, user_directory)
        and program in load(name, user_directory).commands
    ]
    # The user's own come last in the list, and take precedence.
    return found[-1] if found else DEFAULT


def _may_list(name: str, program: str, user_directory: Path) -> bool:
    """Tell whether a profile is to be parsed, which takes a millisecond, to look for a program."""
    return (
        name not in SHIPPED
        or program in _shipped_text(name)
        or (user_directory / f"{name}.yaml").exists()
    )


def load(name: str, user_directory: Path) -> Profile:
    """Return the named profile; the user's own takes precedence over a shipped one."""
    return _load(name, user_directory, ())


def _load(name: str, user_directory: Path, trail: tuple[str, ...]) -> Profile:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{quoted(name)} is not a valid profile name",
            where=f"--profile {quoted(name)}",
            fix="use lower-case letters, digits, dots, dashes and underscores",
        )
    own = user_directory / f"{name}.yaml"
    # A user's profile may extend the shipped one of the same name, so a name that was seen before
    # means the shipped one.
    if name not in trail and own.exists():
        where = str(own)
        fields = parse_profile(_read_own(own), where)
    elif name in SHIPPED and f"shipped {name}" not in trail:
        where = f"the shipped profile {name}"
        fields = dict(_shipped(name))
        trail = (*trail, f"shipped {name}")
    else:
        raise _unknown(name, user_directory, trail)
    base = fields.pop("extends", None)
    if base is None:
        return Profile(name=name, **fields)
    if len(trail) >= _MAX_DEPTH:
        raise ConfigError(
            f"`extends` is nested more than {_MAX_DEPTH} profiles deep",
            where=where,
            fix="extend fewer",
        )
    return extended(_load(base, user_directory, (*trail, name)), name, fields)


def _unknown(name: str, user_directory: Path, trail: tuple[str, ...]) -> ConfigError:
    if trail and name in trail:
        cycle = " -> ".join((*trail, name))
        return ConfigError(
            f"profiles extend each other in a cycle: {cycle}",
            where=str(user_directory / f"{trail[-1]}.yaml"),
            fix="remove one `extends`",
        )
    known = names(user_directory)
    others = f"use one of {', '.join(known)}; or create {user_directory / name}.yaml"
    return ConfigError(
        f"unknown profile {quoted(name)}",
        where=f"{user_directory / trail[-1]}.yaml, extends" if trail else f"--profile {name}",
        fix=nearest(name.lower(), known) or others,
    )


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    """Return what a shipped profile says; it is looked at for its commands, and then used."""
    return parse_profile(_shipped_text(name), f"the shipped profile {name}")


@cache
def _shipped_text(name: str) -> str:
    return packaged_text("claude_proxy.sandbox", f"profiles/{name}.yaml")


def _read_own(path: Path) -> str:
    """Return the text of a user's profile; refuse one that others may change."""
    try:
        with path.open("rb") as file:
            file_permissions.refuse_writable(path, os.fstat(file.fileno()), "what a run may see")
            raw = file.read(_MAX_BYTES + 1)
        file_permissions.refuse_replaceable(path, "what a run may see")
    except OSError as error:
        raise ConfigError(
            f"the profile cannot be read: {(error.strerror or type(error).__name__).lower()}",
            where=str(path),
            fix="make it readable, or choose another profile with --profile",
        ) from error
    return decode(_bounded(raw, path), str(path))


def _bounded(raw: bytes, path: Path) -> bytes:
    if len(raw) > _MAX_BYTES:
        raise ConfigError(
            f"the file is larger than {_MAX_BYTES // 1024} KiB",
            where=str(path),
            fix="check that it is the right file",
        )
    return raw


# The project's own file


def find_project_file(project: Path) -> Path | None:
    """Return the nearest project file, in the project or above it."""
    for directory in (project, *project.parents):
        path = directory / PROJECT_FILE
        if os.path.lexists(path):
            return path
    return None


def read_restrictions(path: Path) -> ProjectRestrictions:
    """Read a project's file; ConfigError unless it is a valid plain file."""
    return parse_restrictions(read_project_file(path), path)


def read_project_file(path: Path) -> str:
    """Return the text of a project's file, which may be anything that an agent can create."""
    # A link would make error messages quote another file; a pipe would block.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _not_plain(path)
            return decode(_bounded(file.read(_MAX_BYTES + 1), path), str(path))
    except OSError as error:
        if path.is_symlink() or not path.is_file():
            raise _not_plain(path) from error
        raise ConfigError(
            f"the project's file cannot be read: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make it readable, or remove it",
        ) from error


def _not_plain(path: Path) -> ConfigError:
    return ConfigError(
        "the project's file is not a plain file",
        where=str(path),
        fix="find out who created it; replace it with a plain file, or remove it",
    )
