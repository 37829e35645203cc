"""Draft of a policy file from another program's lists: entries, and what could not be kept.

Law kept: no quiet downgrade. Each part of the other file that means less here, or nothing, is a
remark with its line; the text that is written is read back as `claude-proxy run` would. Pure.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import field

from claude_proxy.config.allowlist import loader
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Network

NOT_CARRIED = "not carried over"
NARROWER = "narrower"

# What no reader of YAML takes for anything but a text.
_is_plain = lazy_pattern(r"\.?[a-z][a-z0-9-]*(\.[a-z0-9-]+)+|[A-Z]{4,}|GET|PUT").fullmatch
_DEFAULT_PORT = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


@dataclass(frozen=True, slots=True)
class Remark:
    """A part of the other file that means less in the policy, or nothing."""

    kind: str  # `NOT_CARRIED` or `NARROWER`
    what: str
    source: Location
    fix: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.source}: {self.what}; fix: {self.fix}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `allow` or `deny`; None and empty mean every value."""

    pattern: HostPattern
    source: Location
    scheme: Scheme | None = None
    ports: frozenset[int] | None = None
    methods: frozenset[str] | None = None
    paths: tuple[str, ...] | None = None
    addresses: tuple[Network, ...] = ()

    def place(self) -> tuple[object, ...]:
        """Return what it says without where that comes from."""
        return (
            self.pattern,
            self.scheme,
            self.ports,
            self.methods,
            self.paths,
            self.addresses,
        )


@dataclass(slots=True)
class Draft:
    """The policy that one file is converted to."""

    name: str  # of the file, as messages show it
    tool: str  # the word after `claude-proxy import`
    allow: list[Entry] = field(default_factory=list)
    deny: list[Entry] = field(default_factory=list)
    allows_by_default: bool = False
    _remarks: dict[Remark, None] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def remark(self, kind: str, what: str, source: Location, fix: str) -> None:
        """Note what means less; once."""
        self._remarks.setdefault(Remark(kind, what, source, fix))

    def remark_once(self, kind: str, what: str, source: Location, fix: str) -> None:
        """Note what means less, for the first of all lines of which it is true."""
        if what not in self._said:
            self._said.add(what)
            self.remark(kind, what, source, fix)

    def deny_network(self, pattern: HostPattern, source: Location) -> None:
        """Deny addresses, also to names that resolve to them."""
        self.deny.append(Entry(pattern, source))

    @property
    def remarks(self) -> list[Remark]:
        """What means less, by file and line."""
        return sorted(self._remarks, key=lambda each: (each.source.file, each.source.line))

    def text(self) -> str:
        """Return the policy file."""
        lines = [f"# Converted from {harmless(self.name)} by `claude-proxy import {self.tool}`."]
        lines.append(f"default: {'allow' if self.allows_by_default else 'deny'}")
        lines += _list("allow", _unique(self.allow), deny=False)
        denied = _unique(self.deny)
        lines += _list("deny", denied, deny=True) if denied else []
        return "".join(f"{line}\n" for line in lines)

    def policy(self) -> Policy:
        """Return the rules of the text; a mistake in it is one of this program."""
        return loader.load(self.text(), name=f"the policy converted from {self.name}")


def _unique(entries: Iterable[Entry]) -> list[Entry]:
    found: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        found.setdefault(entry.place(), entry)
    return list(found.values())


def _list(name: str, entries: list[Entry], *, deny: bool) -> Iterator[str]:
    if not entries:
        yield f"{name}: []"
        return
    yield f"{name}:"
    last = None
    for entry in entries:
        # Where values of one line became many entries, the line is named once.
        if str(entry.source) != last:
            last = str(entry.source)
            yield f"  # {harmless(last)}"
        yield f"  - {_entry(entry, deny=deny)}"


def _entry(entry: Entry, *, deny: bool) -> str:
    said = {"host": _flow(str(entry.pattern))}
    scheme = entry.scheme if deny else entry.scheme or Scheme.HTTPS
    if scheme is not None and (deny or scheme is not Scheme.HTTPS):
        said["scheme"] = scheme.value
    default = None if deny or scheme is None else frozenset({_DEFAULT_PORT[scheme]})
    if entry.ports is not None and entry.ports != default:
        said["ports"] = f"[{', '.join(map(str, sorted(entry.ports)))}]"
    for key, values in (
        ("methods", sorted(entry.methods or ())),
        ("paths", list(entry.paths or ())),
        ("addresses", [str(each).removesuffix(_single(each)) for each in entry.addresses]),
    ):
        if values:
            said[key] = f"[{', '.join(map(_flow, values))}]"
    if len(said) == 1:
        return said["host"]
    return "{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}"


def _single(network: Network) -> str:
    return f"/{network.max_prefixlen}"


def _flow(text: str) -> str:
    return text if _is_plain(text) else json.dumps(text)
