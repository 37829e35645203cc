"""Reads profiles, the shipped and the user's own, and the project's file that may only narrow.

Laws kept: an unknown key is an error with its place (1); a profile that others may write is refused
(10); what lies in the project was perhaps written by the agent, so it can take away and never give,
and only a plain file is read.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    decode,
    parse,
    quoted,
)
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import Profile
from claude_proxy.system import file_permissions

NARROWING_NAME = ".claude-proxy.yaml"
DIRECTORY = "profiles"  # of the user's own, in the directory of the configuration
DEFAULT = "shell"
SHIPPED = ("claude", "gemini", "codex", "shell")

_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 8  # of `extends`
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

type _Read = Callable[["_Reader", Node, str], Any]


@dataclass(frozen=True, slots=True)
class ProjectRestrictions:
    """What a project takes away from its own runs; its `deny` is read with the allowlist."""

    path: Path | None = None
    hide: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    network: bool = True
    denies: bool = False


def names(user_directory: Path) -> tuple[str, ...]:
    """Return the name of every profile, the shipped ones first."""
    own = sorted(path.stem for path in user_directory.glob("*.yaml") if _NAME.fullmatch(path.stem))
    return tuple(dict.fromkeys((*SHIPPED, *own)))


def of_command(command: str, user_directory: Path) -> str:
    """Return the name of the profile that COMMAND has if none is asked for."""
    program = PurePosixPath(command).name
    found = [
        name for name in names(user_directory) if program in load(name, user_directory).commands
    ]
    # The user's own come last in the list, and go before the shipped ones.
    return found[-1] if found else DEFAULT


def load(name: str, user_directory: Path) -> Profile:
    """Return the profile of a name; the user's own goes before a shipped one."""
    return _load(name, user_directory, ())


def _load(name: str, user_directory: Path, trail: tuple[str, ...]) -> Profile:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{quoted(name)} cannot be the name of a profile",
            where=f"--profile {quoted(name)}",
            fix="a name has lower-case letters, digits, dots, dashes and underscores",
        )
    own = user_directory / f"{name}.yaml"
    # A profile of the user's that extends the shipped one of its own name is the usual way to add
    # to that, so a name that was met already means the shipped one.
    if name not in trail and own.exists():
        text, where = _read_own(own), str(own)
    elif name in SHIPPED and f"shipped {name}" not in trail:
        text, where = _shipped(name), f"the shipped profile {name}"
        trail = (*trail, f"shipped {name}")
    else:
        raise _unknown(name, user_directory, trail)
    problems = Problems(where)
    reader = _Reader(problems)
    found = reader.read(parse(text, problems), _PROFILE_KEYS, required="a profile")
    problems.raise_if_any()
    base = found.pop("extends", None)
    if base is None:
        return Profile(name=name, **found)
    if len(trail) >= _MAX_DEPTH:
        raise ConfigError("profiles extend each other too deeply", where=where, fix="extend fewer")
    below = _load(base, user_directory, (*trail, name))
    return _extended(below, name, found)


def _unknown(name: str, user_directory: Path, trail: tuple[str, ...]) -> ConfigError:
    if trail and name in trail:
        circle = " -> ".join((*trail, name))
        return ConfigError(
            f"profiles extend each other in a circle: {circle}",
            where=str(user_directory / f"{trail[-1]}.yaml"),
            fix="take one `extends` out",
        )
    return ConfigError(
        f"unknown profile {quoted(name)}",
        where=f"{user_directory / trail[-1]}.yaml, extends" if trail else f"--profile {name}",
        fix=f"there are {', '.join(names(user_directory))}; a profile of your own is "
        f"{user_directory / name}.yaml",
    )


def _extended(below: Profile, name: str, found: dict[str, Any]) -> Profile:
    """Return a profile with more than the one below: lists grow, single values are replaced."""
    merged: dict[str, Any] = {}
    for key, value in found.items():
        if key == "set_env":
            merged[key] = tuple({**dict(below.set_env), **dict(value)}.items())
        elif isinstance(value, tuple):
            merged[key] = tuple(dict.fromkeys((*getattr(below, key), *value)))
        elif isinstance(value, frozenset):
            merged[key] = value  # the commands of the one below stay that one's own
        else:
            merged[key] = value
    own = {"commands": frozenset(), **merged}
    return replace(below, name=name, **own)


def _shipped(name: str) -> str:
    return (resources.files("claude_proxy.sandbox") / "profiles" / f"{name}.yaml").read_text(
        "utf-8"
    )


def _read_own(path: Path) -> str:
    """Return the text of a profile of the user's; refuse one that others may change."""
    try:
        with path.open("rb") as file:
            file_permissions.refuse_writable(path, os.fstat(file.fileno()), "what a run may see")
            raw = file.read(_MAX_BYTES + 1)
        file_permissions.refuse_replaceable(path, "what a run may see")
    except OSError as error:
        raise ConfigError(
            f"the profile cannot be read: {(error.strerror or type(error).__name__).lower()}",
            where=str(path),
            fix="fix the file, or choose another profile with --profile",
        ) from error
    return decode(_bounded(raw, path), str(path))


def _bounded(raw: bytes, path: Path) -> bytes:
    if len(raw) > _MAX_BYTES:
        raise ConfigError(
            f"the file is larger than {_MAX_BYTES // 1024} KiB",
            where=str(path),
            fix="is it the right file?",
        )
    return raw


# The project's own file


def find_narrowing(project: Path) -> Path | None:
    """Return the nearest file that narrows, in the project or above it."""
    for directory in (project, *project.parents):
        path = directory / NARROWING_NAME
        if os.path.lexists(path):
            return path
    return None


def narrowing(path: Path) -> ProjectRestrictions:
    """Read a project's file; ConfigError if it is anything but a plain file that takes away."""
    text = read_narrowing(path)
    problems = Problems(str(path))
    found = _Reader(problems).read(parse(text, problems), _NARROWING_KEYS)
    problems.raise_if_any()
    return ProjectRestrictions(
        path=path,
        hide=found.get("hide", ()),
        read_only=found.get("read_only", ()),
        network=found.get("network", True),
        denies="deny" in found,
    )


def read_narrowing(path: Path) -> str:
    """Return the text of a project's file, which may be anything that an agent can make."""
    # A link would have an error message quote another file; a pipe would wait for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor with flags of its own
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _not_plain(path)
            return decode(_bounded(file.read(_MAX_BYTES + 1), path), str(path))
    except OSError as error:
        if path.is_symlink() or not path.is_file():
            raise _not_plain(path) from error
        raise ConfigError(
            f"the project's file cannot be read: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make it readable, or take it away",
        ) from error


def _not_plain(path: Path) -> ConfigError:
    return ConfigError(
        "the project's file is not a plain file",
        where=str(path),
        fix="look at who made it; put a plain file in its place, or take it away",
    )


# Typing the nodes


class _Reader:
    """Turns the nodes of one file into values, and notes whatever does not fit."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def read(
        self, root: Node | None, keys: dict[str, _Read], *, required: str | None = None
    ) -> dict[str, Any]:
        if root is None or isinstance(root, Broken):
            if root is None and required is not None:
                self._problems.add_at(f"{required} is not an empty file", 1, 1, fix="describe it")
            return {}
        if not isinstance(root, YamlMapping):
            self._problems.add("the file is not a mapping", root, fix=f"it has {_listed(keys)}")
            return {}
        found = {}
        for key, node in root.entries:
            read = keys.get(key.text)
            if read is None:
                fix = f"there are {_listed(keys)}"
                self._problems.add(f"unknown key {quoted(key.text)}", key, fix=fix)
            else:
                found[key.text] = read(self, node, key.text)
        return found

    def text(self, node: Node, key: str) -> str:
        if isinstance(node, YamlScalar):
            return node.text
        self._note("is not a single value", node, key, "write it on one line")
        return ""

    def texts(self, node: Node, key: str) -> tuple[str, ...]:
        return tuple(item.text for item in self._scalars(node, key))

    def paths(self, node: Node, key: str) -> tuple[str, ...]:
        """Return paths that are relative and stay below where they begin."""
        found = []
        for item in self._scalars(node, key):
            text = item.text.removeprefix("~/" if key.startswith("home") else "").removeprefix("./")
            pure = PurePosixPath(text)
            if not text or pure.is_absolute() or ".." in pure.parts or pure == PurePosixPath():
                what = f"has {quoted(item.text)}, which is not a path below it"
                self._note(what, item, key, "write a relative path without ..")
            elif "\0" in text or any(char in text for char in "*?["):
                self._note(f"has a pattern, {quoted(item.text)}", item, key, "write out each path")
            else:
                found.append(f"{pure}/" if text.endswith("/") else str(pure))
        return tuple(found)

    def variables(self, node: Node, key: str) -> tuple[str, ...]:
        for item in self._scalars(node, key):
            if not _VARIABLE.fullmatch(item.text):
                what = f"has {quoted(item.text)}, which is not the name of a variable"
                self._note(what, item, key, "write names alone, such as GH_TOKEN")
        return self.texts(node, key)

    def values(self, node: Node, key: str) -> tuple[tuple[str, str], ...]:
        if not isinstance(node, YamlMapping):
            self._note("is not a mapping", node, key, "write each as NAME: value")
            return ()
        found = []
        for name, value in node.entries:
            if not _VARIABLE.fullmatch(name.text):
                what = f"has {quoted(name.text)}, which is not the name of a variable"
                self._note(what, name, key, "write each as NAME: value")
            found.append((name.text, self.text(value, key)))
        return tuple(found)

    def names(self, node: Node, key: str) -> frozenset[str]:
        return frozenset(self.texts(node, key))

    def ports(self, node: Node, key: str) -> tuple[int, ...]:
        found = []
        for item in self._scalars(node, key):
            if item.text.isascii() and item.text.isdigit() and 0 < int(item.text[:6]) < 65536:  # noqa: PLR2004
                found.append(int(item.text))
            else:
                what = f"has {quoted(item.text)}, which is not a port"
                self._note(what, item, key, "write a number from 1 to 65535")
        return tuple(found)

    def no_network(self, node: Node, key: str) -> bool:
        if not isinstance(node, YamlScalar) or node.text != "none":
            what = "can only be none, as this file takes away"
            self._note(what, node, key, "write `network: none`, or take the line out")
        return False

    def untouched(self, _node: Node, _key: str) -> None:
        """Leave a key to whoever else reads the file."""

    def _scalars(self, node: Node, key: str) -> list[YamlScalar]:
        if not isinstance(node, YamlList):
            self._note("is not a list", node, key, 'write each on a line of its own, after "- "')
            return []
        for item in node.items:
            if not isinstance(item, YamlScalar | Broken):
                self._note("has something that is not a single value", item, key, "write one word")
        return [item for item in node.items if isinstance(item, YamlScalar)]

    def _note(self, what: str, node: Node, key: str, fix: str) -> None:
        if not isinstance(node, Broken):
            self._problems.add(f"{key} {what}", node, key=key, fix=fix)


def _listed(keys: dict[str, _Read]) -> str:
    *most, last = keys
    return f"{', '.join(most)} and {last}"


_PROFILE_KEYS: dict[str, _Read] = {
    "description": _Reader.text,
    "extends": _Reader.text,
    "commands": _Reader.names,
    "home_write": _Reader.paths,
    "home_read": _Reader.paths,
    "home_protect": _Reader.paths,
    "pass_env": _Reader.variables,
    "set_env": _Reader.values,
    "protect": _Reader.paths,
    "unattended": _Reader.texts,
    "callback_ports": _Reader.ports,
}
_NARROWING_KEYS: dict[str, _Read] = {
    "deny": _Reader.untouched,
    "hide": _Reader.paths,
    "read_only": _Reader.paths,
    "network": _Reader.no_network,
}
