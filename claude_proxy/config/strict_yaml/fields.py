"""Field readers: texts, lists, choices, hosts, ports and paths from YAML nodes.

Law kept: default-deny. A value that is empty, repeated or of the wrong type is a problem with its
place and fix; it is never ignored, corrected or guessed. Pure.
"""

import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Lookup

import yaml

from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    quoted,
)
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError

_MAX_PORT = 65535
# For each field that is a list: an example, and what its absence means.
_HOSTS = ('["a.example.com", "*.example.com"]', "name one, by host")
_PORTS = ("[443, 8443]", "delete the line")
_PATHS = ('["/v1/**"]', "delete the line to mean every path")

_is_range = lazy_pattern(r"[0-9]+ *[-:] *[0-9]+").fullmatch
_is_port = lazy_pattern(r"[1-9][0-9]{0,4}").fullmatch
# What YAML 1.1 makes of plain words (`NO`, `1.10`, `~`). Its readers disagree, as YAML 1.2 dropped
# most of it; so where a text is wanted, such a word must be in quotes.
_RESOLVERS: Lookup[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_TYPES = {"bool": "a boolean", "float": "a number", "int": "a number", "timestamp": "a date"}


class FieldReader:
    """Reads values; every mistake goes to `problems`, and the value is None then."""

    def __init__(self, problems: Problems, *, preset: str | None) -> None:
        self._problems = problems
        self._preset = preset

    def _source(self, node: Node) -> Location:
        return Location(self._problems.name, node.line, node.column, self._preset)

    def _fields(
        self, node: YamlMapping, key: str, known: tuple[str, ...], fix_of: Callable[[str], str]
    ) -> dict[str, Node]:
        fields = {}
        for name, value in node.entries:
            if name.text in known:
                fields[name.text] = value
                continue
            what, fix = f"unknown key {self._named(name)}", fix_of(name.text)
            self._problems.add(what, name, key=key, fix=fix)
        return fields

    def _read[T](
        self, fields: dict[str, Node], name: str, key: str, read: Callable[[Node, str], T | None]
    ) -> T | None:
        node = fields.get(name)
        if node is None or isinstance(node, Broken):
            return None
        return read(node, f"{key}.{name}")

    # One method a kind of value.

    def _host(self, node: Node, key: str) -> HostPattern | None:
        if isinstance(node, YamlScalar) and node.plain and _is_number(node):
            fix = "name a host, such as example.com"
            self._problems.add(f"{node.text} is a number, not a host", node, key=key, fix=fix)
            return None
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return pattern_of(text)
        except PatternError as error:
            self._problems.add(error.what, node, key=key, fix=error.fix)
            return None

    def _hosts(self, fields: dict[str, Node], key: str) -> tuple[HostPattern, ...] | None:
        """Return what `host` names, or `hosts`; one of them must be in the entry."""
        if "host" in fields and "hosts" in fields:
            fix = "write all of them under hosts"
            self._problems.add("both host and hosts", fields["host"], key=key, fix=fix)
            return None
        if "host" in fields:
            pattern = self._read(fields, "host", key, self._host)
            return None if pattern is None else (pattern,)
        patterns = self._read(fields, "hosts", key, self._host_list)
        return None if patterns is None else tuple(patterns)

    def _host_list(self, node: Node, key: str) -> list[HostPattern] | None:
        return self._list(node, key, self._host, _HOSTS)

    def _ports(self, node: Node, key: str) -> frozenset[int] | None:
        ports = self._list(node, key, self._port, _PORTS)
        return None if ports is None else frozenset(ports)

    def _port(self, node: Node, key: str) -> int | None:
        range_ = f"a whole number from 1 to {_MAX_PORT} without quotes, such as 443"
        if not isinstance(node, YamlScalar):
            self._problems.add("not a port number", node, key=key, fix=f"write {range_}")
        elif not node.plain:
            fix = f"write {node.text}" if _is_port(node.text) else f"write {range_}"
            self._problems.add(f"the port {quoted(node.text)} is in quotes", node, key=key, fix=fix)
        elif not _is_port(node.text):
            what = f"{node.text or 'nothing'} is not a port number"
            fix = "name each port" if _is_range(node.text) else f"write {range_}"
            self._problems.add(what, node, key=key, fix=fix)
        elif int(node.text) > _MAX_PORT:
            self._problems.add(
                f"the port {node.text} is above {_MAX_PORT}", node, key=key, fix=f"write {range_}"
            )
        else:
            return int(node.text)
        return None

    def _paths(self, node: Node, key: str) -> tuple[PathGlob, ...] | None:
        paths = self._list(node, key, self._path, _PATHS)
        return None if paths is None else tuple(paths)

    def _path(self, node: Node, key: str) -> PathGlob | None:
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return PathGlob.parse(text)
        except PatternError as error:
            fix = error.fix
            if "?" in text:
                fix = "the query is not judged: write the path without it"
            elif text and text[0] not in "/*":
                fix = f'write "/{text}"' if "://" not in text else "write only the path"
            self._problems.add(error.what, node, key=key, fix=fix)
            return None

    def _text(self, node: Node, key: str) -> str | None:
        if not isinstance(node, YamlScalar):
            what = "a list" if isinstance(node, YamlList) else "a mapping"
            self._problems.add(
                f"{what} where a string belongs", node, key=key, fix="write a string"
            )
            return None
        kind = type_of(node) if node.plain else None
        if kind is None:
            return node.text
        if kind == "null":
            self._problems.add("the value is missing", node, key=key, fix="write it, or delete it")
            return None
        fix = f'to write it as a string, put it in quotes: "{node.text}"'
        self._problems.add(
            f"{quoted(node.text)} without quotes is {kind} in YAML", node, key=key, fix=fix
        )
        return None

    def _choice(self, node: Node, key: str, choices: list[str]) -> str | None:
        if isinstance(node, YamlScalar) and node.text in choices:
            return node.text
        name = key.rpartition(".")[2]
        shown = quoted(node.text) if isinstance(node, YamlScalar) else "this"
        fix = f"write {' or '.join(choices)}"
        self._problems.add(f"{shown} is not a value of {name}", node, key=key, fix=fix)
        return None

    def _list[T](
        self,
        node: Node,
        key: str,
        read: Callable[[Node, str], T | None],
        example_and_absence: tuple[str, str],
    ) -> list[T] | None:
        """Return the items of a list that is neither empty nor repeats itself."""
        name = key.rpartition(".")[2]
        example, absence = example_and_absence
        if isinstance(node, YamlList) and not node.items:
            fix = f"name some, as in {name}: {example}, or {absence}"
            self._problems.add(f"{name} is an empty list", node, key=key, fix=fix)
            return None
        if not isinstance(node, YamlList):
            given = self._shown(node) if isinstance(node, YamlScalar) else ""
            fix = f"write {name}: {f'[{given}]' if given else example}"
            self._problems.add(f"{name} is not a list", node, key=key, fix=fix)
            return None
        values: list[T] = []
        for index, item in enumerate(node.items):
            place = f"{key}[{index}]"
            value = None if isinstance(item, Broken) else read(item, place)
            if value is not None and value in values:
                self._problems.add(f"{value} is listed twice", item, key=place, fix="delete one")
            elif value is not None:
                values.append(value)
        return values if len(values) == len(node.items) else None

    def _named(self, name: YamlScalar) -> str:
        return quoted(name.text)

    def _shown(self, node: YamlScalar) -> str:
        """Return what a fix may repeat of a value that is in the wrong place."""
        return node.text if type_of(node) != "null" else ""


def _is_number(node: YamlScalar) -> bool:
    return node.text[:1].isdecimal() and type_of(node) == "a number"


def type_of(node: YamlScalar) -> str | None:
    """Return what YAML 1.1 would read a plain word as, None if as text."""
    text = node.text
    if not text:
        return "null"
    for tag, pattern in _RESOLVERS.get(text[0], ()):
        if pattern.match(text):
            name = tag.rpartition(":")[2]
            return "null" if name == "null" else _TYPES.get(name)
    return None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the fix that names the known word most like `name`, if one is like it."""
    import difflib  # noqa: PLC0415 - only a mistake asks for it

    near = difflib.get_close_matches(name, list(known), n=3)
    if not near:
        return None
    # Among the likeliest, people get beginnings right: "clod" is claude, not vscode.
    best = max(near, key=lambda word: _common_start(word, name))
    return f"did you mean {best}?"


def _common_start(one: str, other: str) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
