"""Groups file reader: TOML text to groups, policies and tools, every mistake with its place.

Law kept: default-deny. An unknown key, a value of another type, a host that is not a host: each is
a problem with its place and its fix, and nothing of the file is used. Pure.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from claude_proxy.config.bw_claude.toml_locations import Path, places_of
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.config.strict_yaml.nodes import Problems, note_hiding_characters, quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternError

MAX_BYTES = 4 * 1024 * 1024  # some fifty thousand hosts
PRESET = "preset:"


class GroupsNetwork(StrEnum):
    """How a policy's run gets at the network."""

    OPEN = "open"  # as without claude-proxy; nothing is judged
    DISABLED = "disabled"  # not at all
    PROXY = "proxy"  # through the proxy alone


class GroupsDefault(StrEnum):
    """What happens to a host that neither list names."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of `hosts` or `hosts_deny`."""

    pattern: HostPattern
    source: Location


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a group, or of a policy, where another entry asks for it."""

    text: str
    source: Location
    key: str


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts under one name; `groups` are part of it, presets too."""

    name: str
    description: str
    hosts: tuple[Host, ...]
    hosts_deny: tuple[Host, ...]
    groups: tuple[Name, ...]
    source: Location


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy as it is written."""

    name: str
    description: str
    filesystem: str | None  # the profile of `claude-proxy run`; None: by the command
    network: GroupsNetwork
    default: GroupsDefault
    allow_groups: tuple[Name, ...]
    deny_groups: tuple[Name, ...]
    source: Location


@dataclass(frozen=True, slots=True)
class File:
    """What one groups file says."""

    groups: Mapping[str, Group]
    policies: Mapping[str, PolicyEntry]
    tools: Mapping[str, Name]  # a command's name: its policy


_is_name = lazy_pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}").fullmatch
_is_profile = lazy_pattern(r"[a-z0-9][a-z0-9._-]{0,62}").fullmatch
_place_of_error = lazy_pattern(
    r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)"
).fullmatch

_GROUP_KEYS = ("description", "hosts", "hosts_deny", "groups")
_POLICY_KEYS = ("description", "filesystem", "network")
_NETWORK_KEYS = ("network", "default", "allow_groups", "deny_groups")
_TYPES: dict[type[Any], str] = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
}


def read(text: str, problems: Problems) -> File:
    """Return what the text says; what is wrong is noted, and then the result is not for use."""
    return _GroupsReader(text, problems).file()


class _GroupsReader:
    def __init__(self, text: str, problems: Problems) -> None:
        self._problems = problems
        self._root = _parsed(text, problems)
        self._places = places_of(text) if self._root else {}

    def file(self) -> File:
        top = self._known(self._root, (), ("network", "policy", "tools"))
        network = self._known(self._table(top, (), "network"), ("network",), ("groups",))
        policy = self._known(self._table(top, (), "policy"), ("policy",), ("policies",))
        return File(
            groups=self._named(network, ("network", "groups"), self._group),
            policies=self._named(policy, ("policy", "policies"), self._policy),
            tools=self._named(top, ("tools",), self._tool),
        )

    # What tables are made of.

    def _known(
        self, table: Mapping[str, Any], path: Path, known: tuple[str, ...]
    ) -> Mapping[str, Any]:
        for key in table:
            if key not in known:
                fix = nearest(key.lower(), known) or f"the keys here are {', '.join(known)}"
                self._note(f"unknown key {quoted(key)}", (*path, key), fix)
        return table

    def _table(self, table: Mapping[str, Any], path: Path, key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._wrong_type(value, (*path, key), "a table")
        return {}

    def _named[T](
        self,
        table: Mapping[str, Any],
        path: tuple[str, ...],
        read: Callable[[str, Mapping[str, Any], Path], T | None],
    ) -> dict[str, T]:
        """Read each of the tables below `path`, by its name."""
        found = {}
        entries = self._table(table, path[:-1], path[-1])
        for name in entries:
            here = (*path, name)
            if _is_name(name) is None:
                fix = "a name is letters, digits, dots, hyphens and underscores"
                self._note(f"{quoted(name)} is no name", here, fix)
                continue
            value = read(name, self._table(entries, path, name), here)
            if value is not None:
                found[name] = value
        return found

    # What has a name.

    def _group(self, name: str, table: Mapping[str, Any], path: Path) -> Group:
        self._known(table, path, _GROUP_KEYS)
        return Group(
            name=name,
            description=self._text(table, path, "description") or "",
            hosts=self._hosts(table, path, "hosts"),
            hosts_deny=self._hosts(table, path, "hosts_deny"),
            groups=self._names(table, path, "groups"),
            source=self._source(path),
        )

    def _policy(self, name: str, table: Mapping[str, Any], path: Path) -> PolicyEntry | None:
        self._known(table, path, _POLICY_KEYS)
        network = self._known(
            self._table(table, path, "network"), (*path, "network"), _NETWORK_KEYS
        )
        inner = (*path, "network")
        filesystem = self._text(table, path, "filesystem")
        if filesystem is not None and _is_profile(filesystem) is None:
            fix = "write the name of a profile of `claude-proxy run`, such as claude or shell"
            self._note(f"{quoted(filesystem)} is no profile", (*path, "filesystem"), fix)
        return PolicyEntry(
            name=name,
            description=self._text(table, path, "description") or "",
            filesystem=filesystem,
            network=self._choice(network, inner, "network", GroupsNetwork, GroupsNetwork.PROXY),
            default=self._choice(network, inner, "default", GroupsDefault, GroupsDefault.DENY),
            allow_groups=self._names(network, inner, "allow_groups"),
            deny_groups=self._names(network, inner, "deny_groups"),
            source=self._source(path),
        )

    def _tool(self, _name: str, table: Mapping[str, Any], path: Path) -> Name | None:
        self._known(table, path, ("default_policy",))
        text = self._text(table, path, "default_policy")
        if text is None:
            return None
        key = (*path, "default_policy")
        return Name(text, self._source(key), _shown(key))

    # Values.

    def _text(self, table: Mapping[str, Any], path: Path, key: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self._wrong_type(value, (*path, key), "a string")
        return None

    def _choice[E: StrEnum](
        self, table: Mapping[str, Any], path: Path, key: str, kind: type[E], default: E
    ) -> E:
        text = self._text(table, path, key)
        if text is None:
            return default
        try:
            return kind(text)
        except ValueError:
            fix = f"write {' or '.join(quoted(each.value) for each in kind)}"
            self._note(f"{quoted(text)} is not a value of {key}", (*path, key), fix)
            return default

    def _names(self, table: Mapping[str, Any], path: Path, key: str) -> tuple[Name, ...]:
        return tuple(
            Name(text, self._source(place), _shown(place))
            for text, place in self._texts(table, path, key)
        )

    def _hosts(self, table: Mapping[str, Any], path: Path, key: str) -> tuple[Host, ...]:
        found = []
        for text, place in self._texts(table, path, key):
            try:
                found.append(Host(pattern_of(text), self._source(place)))
            except PatternError as error:
                self._note(error.what, place, _fix_of_host(text, error))
        return tuple(found)

    def _texts(self, table: Mapping[str, Any], path: Path, key: str) -> Iterable[tuple[str, Path]]:
        """Return the texts of a list with their places; none is listed twice."""
        value = table.get(key, [])
        if not isinstance(value, list):
            self._wrong_type(value, (*path, key), "a list")
            return ()
        found: dict[str, Path] = {}
        for index, item in enumerate(value):
            place = (*path, key, index)
            if not isinstance(item, str):
                self._wrong_type(item, place, "a string")
            elif item in found:
                self._note(f"{quoted(item)} is listed twice", place, "delete one")
            else:
                found[item] = place
        return found.items()

    # Problems and their places.

    def _wrong_type(self, value: object, path: Path, wanted: str) -> None:
        given = _TYPES.get(type(value), "a date or a time")
        fix = {
            "a list": 'write a list of strings, as in ["example.com"]',
            "a table": "write it as a table, with its keys below",
            "a string": "put it in quotes",
        }[wanted]
        self._note(f"{given} where {wanted} belongs", path, fix)

    def _note(self, what: str, path: Path, fix: str) -> None:
        self._problems.add_at(what, *self._place(path), key=_shown(path), fix=fix)

    def _source(self, path: Path) -> Location:
        return Location(self._problems.name, *self._place(path))

    def _place(self, path: Path) -> tuple[int, int]:
        while path:
            if path in self._places:
                return self._places[path]
            path = path[:-1]
        return (1, 1)


def _parsed(text: str, problems: Problems) -> dict[str, Any]:
    note_hiding_characters(text, problems)
    if problems:
        return {}
    try:
        return tomllib.loads(text)
    except RecursionError:
        problems.add_at("nested too deeply", 1, 1, fix="the file needs five levels at most")
    except ValueError as error:
        found = _place_of_error(str(error))
        what = str(error) if found is None else found[1]
        place = (1, 1)
        if found is not None:
            place = (int(found[2]), int(found[3])) if found[2] else (text.count("\n") + 1, 1)
        fix = 'compare the line with: hosts = ["example.com", "*.example.com"]'
        problems.add_at(f"this is not TOML: {_lower_first(what)}", *place, fix=fix)
    return {}


def _fix_of_host(text: str, error: PatternError) -> str:
    """Return the fix in TOML's words; those of the allowlist's reader are for YAML."""
    if text.startswith(PRESET):
        return f"write it under groups: groups = [{quoted(text)}]"
    if len(text.split()) > 1 or "," in text:
        return 'write each host in quotes of its own: ["a.example.com", "b.example.com"]'
    if error.fix.startswith("write {"):
        return "write only the host; a groups file has neither limits nor plain HTTP"
    return error.fix


def _shown(path: Path) -> str:
    """Return a key's path as TOML would write it, with the index of an item."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            bare = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else quoted(part)
            shown += f".{bare}" if shown else bare
    return shown


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
