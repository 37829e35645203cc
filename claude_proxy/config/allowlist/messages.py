"""API restrictions: reads `anthropic`, what a request to the Messages API may ask for.

Law kept: default-deny. A key that an entry does not have is taken from the next wider entry that
covers its host, and the owner's entries come before those of presets; what no entry limits is not
restricted. Pure.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Any

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.conflicts import Coverage
from claude_proxy.config.option_values import parse_size
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest
from claude_proxy.config.strict_yaml.hosts import host_in
from claude_proxy.config.strict_yaml.nodes import Broken, Node, YamlMapping, YamlScalar, quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, PatternKind

FIELDS = table.names_of(table.ANTHROPIC)
KEYS = tuple(name for name in FIELDS if name not in {"host", "hosts", "ports"})

ALL = "all"
NONE = "none"
ALLOWLISTED = "allowlisted"
# The whole body is held in memory until it is judged.
LARGEST_BODY = 256 * 1024 * 1024
_SMALLEST_BODY = 1024

# For each key that is a list: an example, and what to write instead of an empty one.
_PATHS = ("[/v1/messages]", "write all to mean every path")
_MODELS = ('["claude-*"]', "write all to mean every model")
_BETA = ('["oauth-*"]', "write none")
_SERVER_TOOLS = ("[web_search]", "write none")
_REACH = ("[allowlisted, mcp.example.com]", "write none")

# Names of other programs for the same keys.
_OTHER_NAMES = {
    "betas": "beta",
    "anthropic-beta": "beta",
    "body": "max_body",
    "domain": "host",
    "endpoints": "paths",
    "images": "sources",
    "max_bytes": "max_body",
    "max_size": "max_body",
    "mcp": "mcp_servers",
    "model": "models",
    "name": "host",
    "path": "paths",
    "port": "ports",
    "tools": "server_tools",
    "url": "host",
    "urls": "sources",
}
# What people write for these words.
_LIKE_ALL = frozenset({ALL, "any", "every", "everything", "anything", "*", "true", "yes", "on"})
_LIKE_NONE = frozenset({NONE, "nothing", "no", "false", "off", "never"})
_is_word = lazy_pattern(r"[!-+\--~]{1,256}").fullmatch  # visible ASCII but the comma
_is_tool = lazy_pattern(r"[a-z][a-z0-9_]{0,63}").fullmatch
_dated = lazy_pattern(r"([a-z][a-z0-9_]*?)[_-][0-9]{8}").fullmatch


@dataclass(frozen=True, slots=True)
class ApiEntry:
    """One entry as it is written, with only the keys that it has."""

    patterns: tuple[HostPattern, ...]
    source: Location
    ports: frozenset[int] | None = None  # None: every port
    values: Mapping[str, Any] = field(default_factory=dict)  # by the names of `Narrowing`


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that was read; None inside it means every value."""

    value: Any


class ApiEntryReader(FieldReader):
    """Turns the entries of `anthropic` into values; every mistake goes to `problems`."""

    def entries_of(self, nodes: Iterable[Node]) -> list[ApiEntry]:
        """Return what each entry says; what is wrong with any of them is noted."""
        found: list[ApiEntry] = []
        first: dict[tuple[HostPattern, int | None], ApiEntry] = {}
        for index, node in enumerate(nodes):
            key = f"anthropic[{index}]"
            if isinstance(node, YamlMapping):
                entry = self._entry(node, key)
                if entry is not None:
                    self._check_twice(entry, first, node, key)
                    found.append(entry)
            elif not isinstance(node, Broken):
                fix = 'write - {host: api.example.com, models: ["claude-*"]}'
                self._problems.add("an entry of anthropic is a mapping", node, key=key, fix=fix)
        return found

    def _check_twice(
        self,
        entry: ApiEntry,
        first: dict[tuple[HostPattern, int | None], ApiEntry],
        node: Node,
        key: str,
    ) -> None:
        ports: Iterable[int | None] = entry.ports or (None,)
        for pattern in entry.patterns:
            others = [first.setdefault((pattern, port), entry) for port in ports]
            other = next((other for other in others if other is not entry), None)
            if other is not None:
                what = f"{pattern} is restricted twice, first in line {other.source.line}"
                self._problems.add(what, node, key=key, fix="make one entry of the two")

    def _entry(self, node: YamlMapping, key: str) -> ApiEntry | None:
        before = len(self._problems)
        fields = self._fields(node, key, FIELDS, _fix_of_field)
        whole = len(self._problems) == before and node.whole
        if whole and not {"host", "hosts"} & set(fields):
            fix = "add a line: host: api.anthropic.com"
            self._problems.add("the entry names no host", node, key=key, fix=fix)
        if whole and not set(KEYS) & set(fields):
            fix = f"add what is to be restricted: {', '.join(KEYS)}"
            self._problems.add("the entry restricts nothing", node, key=key, fix=fix)
        patterns = self._hosts(fields, key)
        ports = self._read(fields, "ports", key, self._ports)
        readers: dict[str, Callable[[Node, str], _Given | None]] = {
            "paths": self._api_paths,
            "models": self._models,
            "beta": self._beta,
            "server_tools": self._server_tools,
            "mcp_servers": self._reach,
            "sources": self._reach,
            "max_body": self._size,
        }
        values = {}
        for name, read in readers.items():
            given = self._read(fields, name, key, read)
            if given is not None:
                values["max_bytes" if name == "max_body" else name] = given.value
        if patterns is None or len(self._problems) > before:
            return None
        return ApiEntry(patterns, self._source(node), ports, values)

    # One method a key: each returns None once it has noted a problem.

    def _api_paths(self, node: Node, key: str) -> _Given | None:
        return self._limit(node, key, self._path, _PATHS)

    def _models(self, node: Node, key: str) -> _Given | None:
        return self._limit(node, key, self._word, _MODELS)

    def _beta(self, node: Node, key: str) -> _Given | None:
        return self._limit(node, key, self._word, _BETA, none=True)

    def _server_tools(self, node: Node, key: str) -> _Given | None:
        return self._limit(node, key, self._tool, _SERVER_TOOLS, none=True)

    def _limit[T](
        self,
        node: Node,
        key: str,
        read: Callable[[Node, str], T | None],
        example_and_absence: tuple[str, str],
        *,
        none: bool = False,
    ) -> _Given | None:
        """Return what `all`, `none` or a list says."""
        if isinstance(node, YamlScalar) and node.text == ALL:
            return _Given(None)
        if isinstance(node, YamlScalar) and node.text == NONE:
            if none:
                return _Given(())
            name = key.rpartition(".")[2]
            fix = "name some, or deny the host: list it under deny"
            self._problems.add(
                f"{name}: none would leave nothing to ask for", node, key=key, fix=fix
            )
            return None
        if self._is_other_word(node, key, (ALL, NONE) if none else (ALL,)):
            return None
        values = self._list(node, key, read, example_and_absence)
        return None if values is None else _Given(tuple(values))

    def _is_other_word(self, node: Node, key: str, known: Collection[str]) -> bool:
        """Note it as a problem if a value is another word for one of those that are known.

        In a list it would be a name: the host `any`.
        """
        if not isinstance(node, YamlScalar):
            return False
        word = _word_for(node.text)
        if word is None or word not in known:
            return False
        name = key.rpartition(".")[2].partition("[")[0]
        what = f"{quoted(node.text)} is not a value of {name}"
        self._problems.add(what, node, key=key, fix=f"write {name}: {word}")
        return True

    def _word(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        if not text.strip("*"):
            fix = f"write {key.rpartition('.')[2].partition('[')[0]}: all"
            self._problems.add("a name for every one", node, key=key, fix=fix)
        elif _is_word(text) is None or "**" in text:
            fix = 'write one word, in which one "*" matches any characters: "claude-*"'
            self._problems.add("not a name", node, key=key, fix=fix)
        else:
            return text
        return None

    def _tool(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        if (dated := _dated(text)) is not None:
            fix = f"write {dated[1]}, which means every version of it"
            self._problems.add("a tool with its date", node, key=key, fix=fix)
        elif _is_tool(text) is None:
            fix = "write the tool's type without its date, such as web_search"
            self._problems.add("not the type of a tool", node, key=key, fix=fix)
        else:
            return text
        return None

    def _reach(self, node: Node, key: str) -> _Given | None:
        words = {
            ALL: DestinationScope(every=True),
            NONE: DestinationScope(allowlisted=False),
            ALLOWLISTED: DestinationScope(),
        }
        if isinstance(node, YamlScalar) and node.text in words:
            return _Given(words[node.text])
        if self._is_other_word(node, key, (ALL, NONE)):
            return None
        if isinstance(node, YamlScalar) and "." not in node.text:
            name = key.rpartition(".")[2]
            fix = f"write {ALL}, {NONE}, {ALLOWLISTED}, or hosts: {name}: {_REACH[0]}"
            self._problems.add(
                f"{quoted(node.text)} is not a value of {name}", node, key=key, fix=fix
            )
            return None
        items = self._list(node, key, self._place, _REACH)
        if items is None:
            return None
        hosts = tuple(item for item in items if isinstance(item, HostPattern))
        return _Given(DestinationScope(allowlisted=len(hosts) < len(items), hosts=hosts))

    def _place(self, node: Node, key: str) -> HostPattern | str | None:
        """Return a host of the list, or the word `allowlisted`."""
        text = node.text if isinstance(node, YamlScalar) else ""
        if text == ALLOWLISTED:
            return ALLOWLISTED
        if text in {ALL, NONE}:
            fix = f"write {key.rpartition('.')[2].partition('[')[0]}: {text}"
            self._problems.add(f"{text} in a list", node, key=key, fix=fix)
            return None
        if self._is_other_word(node, key, (ALL, NONE)):
            return None
        if (host := host_in(text)) is not None:
            fix = (
                f'write "{host}" for HTTPS at port 443; for others allow it, and write allowlisted'
            )
            self._problems.add(f"{quoted(text)} is more than a host", node, key=key, fix=fix)
            return None
        return self._host(node, key)

    def _size(self, node: Node, key: str) -> _Given | None:
        try:
            size = parse_size(node.text if isinstance(node, YamlScalar) else "")
        except ValueError:
            size = 0
        if not _SMALLEST_BODY <= size <= LARGEST_BODY:
            most = f"{LARGEST_BODY // 1024**2}M"
            fix = f"write a size from 1K to {most}, such as 32M"
            self._problems.add("not the size of a body", node, key=key, fix=fix)
            return None
        return _Given(size)

    def _shown(self, node: YamlScalar) -> str:
        return super()._shown(node) if node.text not in {ALL, NONE, ALLOWLISTED} else ""


def _word_for(text: str) -> str | None:
    """Return the word that somebody means who writes another; None: no such word."""
    folded = text.strip().lower()
    if folded in _LIKE_ALL:
        return ALL
    return NONE if folded in _LIKE_NONE else None


def resolved(entries: Iterable[ApiEntry]) -> tuple[ApiRestrictions, ...]:
    """Return what is in force for each pattern of the entries, the most specific first.

    So the first that covers a host and port has everything that is said about them.
    """
    listed = list(entries)
    places = [(pattern, entry.ports, entry) for entry in listed for pattern in entry.patterns]
    coverage = Coverage(places)
    found: list[ApiRestrictions] = []
    for pattern in sorted({pattern for pattern, _, _ in places}, key=_rank):
        around = sorted(coverage.around(pattern, None), key=_precedence)
        found += _in_force(pattern, around)
    return tuple(found)


def _in_force(
    pattern: HostPattern, around: list[tuple[HostPattern, ApiEntry]]
) -> list[ApiRestrictions]:
    """Return what is in force for one pattern: on ports that are named, then on the others."""
    named = [entry.ports for wide, entry in around if wide == pattern]
    special = {port for _, entry in around for port in entry.ports or ()}
    if None not in named:
        special &= {port for ports in named for port in ports or ()}
    rest = _values_at(None, around) if None in named else None
    alike: list[tuple[Location, dict[str, Any], set[int]]] = []
    for port in sorted(special):
        source, values = _values_at(port, around)
        group = next((ports for _, others, ports in alike if others == values), None)
        if group is not None:
            group.add(port)
        elif rest is None or rest[1] != values:
            alike.append((source, values, {port}))
    found = [
        ApiRestrictions((pattern,), source, frozenset(ports), **values)
        for source, values, ports in alike
    ]
    return found if rest is None else [*found, ApiRestrictions((pattern,), rest[0], **rest[1])]


def _values_at(
    port: int | None, around: list[tuple[HostPattern, ApiEntry]]
) -> tuple[Location, dict[str, Any]]:
    """Return what is said about a port, and by whom; None is each port that nobody names."""
    here = [entry for _, entry in around if entry.ports is None or port in entry.ports]
    values: dict[str, Any] = {}
    for entry in here:
        values = {**entry.values, **values}
    return here[0].source, values


def _precedence(
    place: tuple[HostPattern, ApiEntry],
) -> tuple[bool, tuple[int, int, int, str], bool]:
    pattern, entry = place
    return entry.source.preset is not None, _rank(pattern), entry.ports is None


def _rank(pattern: HostPattern) -> tuple[int, int, int, str]:
    """Return what sorts narrower patterns first; of the two wildcards of a name "*.x" is."""
    kind, depth = pattern.specificity
    return -kind, -depth, pattern.kind is PatternKind.DOMAIN, str(pattern)


def _fix_of_field(name: str) -> str:
    folded = name.lower()
    if folded in {"methods", "scheme", "tls", "addresses", "preset", "note"}:
        return f"{folded} belongs to an entry of allow"
    if (other := _OTHER_NAMES.get(folded)) is not None:
        return f"write {other}"
    return nearest(folded, FIELDS) or f"use one of {', '.join(FIELDS)}"
