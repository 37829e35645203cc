"""Allowlist editor: adds or removes entries of a list and leaves every other byte as it is.

Comments and order are the owner's: lines are inserted where the parsed list ends, and nothing
that was parsed is written again. Pure.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence

import yaml

from claude_proxy.config.allowlist import pasted
from claude_proxy.config.allowlist.pasted import DEFAULT_PORTS, SshAddress
from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.patterns import PathGlob, PatternError
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RuleScheme, Tls
from claude_proxy.wire.authority import quoted

_PLAIN = lazy_pattern(r"\.?[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+")


class EditError(ValueError):
    """A text that no entry can be added to: where, and how to fix it."""

    def __init__(self, what: str, line: int, fix: str) -> None:
        super().__init__(what)
        self.line = line
        self.fix = fix


@dataclass(frozen=True, slots=True)
class AllowEntry:
    """What an owner asks to allow: a host pattern, and what differs from the defaults."""

    host: str
    scheme: RuleScheme = Scheme.HTTPS
    port: int = 443
    methods: tuple[str, ...] = ()  # none: every method
    paths: tuple[str, ...] = ()  # none: every path
    addresses: tuple[str, ...] = ()  # that are not public but that the host may have
    tls: Tls = Tls.INTERCEPT

    @classmethod
    def parse(cls, text: str) -> "AllowEntry":
        """Read HOST, HOST:PORT or a URL, whose path is then the only one.

        PatternError for anything else.
        """
        found = pasted.parse(text)
        if isinstance(found, SshAddress):
            raise PatternError(
                f"{quoted(text)} is reached by a protocol of its own, whose requests nobody judges",
                f"use the repository's HTTPS address, {found.https_url}, or allow every byte with "
                f"tcp://{found.host}:{found.port}",
            )
        host = str(pattern_of(found.host))
        paths = () if found.path is None else (PathGlob.parse(found.path).text,)
        return cls(host, found.scheme, found.port, paths=paths)

    def lines(self) -> list[str]:
        """Return the entry as it is written in the file, without indentation."""
        host = self.host if _PLAIN.fullmatch(self.host) else json.dumps(self.host)
        fields = list(self._fields())
        # A name of one label might be that of a preset.
        if not fields and set(".:") & set(self.host):
            return [f"- {host}"]
        return [f"- host: {host}", *(f"  {name}: {value}" for name, value in fields)]

    def _fields(self) -> Iterator[tuple[str, str]]:
        if self.scheme is not Scheme.HTTPS:
            yield "scheme", self.scheme.value
        if self.port != DEFAULT_PORTS.get(self.scheme):
            yield "ports", f"[{self.port}]"
        if self.methods:
            yield "methods", f"[{', '.join(self.methods)}]"
        if self.paths:
            yield "paths", json.dumps(list(self.paths))
        if self.addresses:
            yield "addresses", json.dumps(list(self.addresses))
        if self.tls is not Tls.INTERCEPT:
            yield "tls", self.tls.value


@dataclass(frozen=True, slots=True)
class PresetEntry:
    """A preset, shipped or the owner's."""

    name: str

    def lines(self) -> list[str]:
        """Return the entry as it is written in the file, without indentation."""
        return [f"- preset: {self.name}"]


type Entry = AllowEntry | PresetEntry


def with_entries(text: str, entries: Sequence[Entry]) -> str:
    """Return `text`, which must be a valid list, with `entries` at the end of `allow:`."""
    if not entries:
        return text
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    listed = _allow_of(root)
    if listed is None:
        lines = text.splitlines()
        return _with_lines(text, len(lines), ["allow:", *_indented(entries, 2)])
    if not isinstance(listed, yaml.SequenceNode):
        # `allow:` with nothing after it.
        return _with_lines(text, listed.start_mark.line + 1, _indented(entries, 2))
    if not listed.flow_style:
        end = _end_of(listed.value[-1])
        return _with_lines(text, end + 1, _indented(entries, listed.start_mark.column))
    if listed.value:
        raise EditError(
            "the list is written between brackets, where no line can be added",
            listed.start_mark.line + 1,
            'write each entry on a line of its own, as in "  - example.com"',
        )
    emptied = text[: listed.start_mark.index].rstrip(" ") + text[listed.end_mark.index :]
    return _with_lines(emptied, listed.end_mark.line + 1, _indented(entries, 2))


def without_entries(text: str, lines: Collection[int], presets: Collection[str]) -> str:
    """Return `text` without the entries of `allow:` on these lines, or of these presets.

    Lines count from 1 and are those that entries begin on, as a rule's `source` has them.
    """
    listed = _allow_of(yaml.compose(text, Loader=yaml.SafeLoader))
    if not isinstance(listed, yaml.SequenceNode):
        return text
    found = [
        node
        for node in listed.value
        if node.start_mark.line + 1 in lines or _preset_in(node) in presets
    ]
    if found and listed.flow_style:
        raise EditError(
            "the list is written between brackets, where no line can be removed",
            listed.start_mark.line + 1,
            'write each entry on a line of its own, as in "  - example.com"',
        )
    kept = text.splitlines(keepends=True)
    for node in reversed(found):
        begin = node.start_mark.line
        while not kept[begin].lstrip().startswith("-"):
            begin -= 1  # the dash has a line of its own
        del kept[begin : _end_of(node) + 1]
    return "".join(kept)


def _preset_in(node: yaml.Node) -> str | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "preset" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
    return None


def _allow_of(root: yaml.Node | None) -> yaml.Node | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    for key, value in root.value:
        if key.value == "allow":
            found: yaml.Node = value
            return found
    return None


def _end_of(node: yaml.Node) -> int:
    """Return the line that a node ends on; the end of a block is marked past what follows it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return _end_of(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return _end_of(node.value[-1])
    return int(node.end_mark.line)


def _indented(entries: Iterable[Entry], column: int) -> list[str]:
    return [" " * column + line for entry in entries for line in entry.lines()]


def _with_lines(text: str, number: int, added: list[str]) -> str:
    """Return `text` with lines put in before line `number`, counted from 0."""
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += ending
    lines[number:number] = [line + ending for line in added]
    return "".join(lines)
