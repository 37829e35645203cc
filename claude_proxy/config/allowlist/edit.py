"""Allowlist editor: adds entries to the text of a list and leaves every other byte as it is.

Comments and order are the owner's: lines are inserted where the parsed list ends, and nothing
that was parsed is written again. Pure.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import Scheme

_ENTRY = re.compile(r"(?:(https?)://)?(\[[^\[\]]+\]|[^:/\[\]]+)(?::([0-9]{1,5}))?/?")
_PLAIN = re.compile(r"\.?[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+")
_DEFAULT_PORTS = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


class EditError(ValueError):
    """A text that no entry can be added to: where, and how to fix it."""

    def __init__(self, what: str, line: int, fix: str) -> None:
        super().__init__(what)
        self.line = line
        self.fix = fix


@dataclass(frozen=True, slots=True)
class AllowEntry:
    """What an owner asks to allow: a host pattern, and a scheme and port if not the default."""

    host: str
    scheme: Scheme = Scheme.HTTPS
    port: int = 443

    @classmethod
    def parse(cls, text: str) -> "AllowEntry":
        """Read HOST, HOST:PORT or a URL without a path; raise ValueError for anything else."""
        match = _ENTRY.fullmatch(text)
        if match is None:
            # An IPv6 address or a network; the one parser explains best what is neither.
            return cls(str(HostPattern.parse(text)))
        scheme = Scheme(match[1] or "https")
        port = int(match[3]) if match[3] else _DEFAULT_PORTS[scheme]
        return cls(str(HostPattern.parse(match[2].strip("[]"))), scheme, port)

    def lines(self) -> list[str]:
        """Return the entry as it is written in the file, without indentation."""
        host = self.host if _PLAIN.fullmatch(self.host) else json.dumps(self.host)
        usual_port = self.port == _DEFAULT_PORTS[self.scheme]
        # A name of one label might be that of a preset.
        if self.scheme is Scheme.HTTPS and usual_port and set(".:") & set(self.host):
            return [f"- {host}"]
        lines = [f"- host: {host}"]
        if self.scheme is Scheme.HTTP:
            lines.append("  scheme: http")
        if not usual_port:
            lines.append(f"  ports: [{self.port}]")
        return lines


def with_entries(text: str, entries: Sequence[AllowEntry]) -> str:
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


def _indented(entries: Iterable[AllowEntry], column: int) -> list[str]:
    return [" " * column + line for entry in entries for line in entry.lines()]


def _with_lines(text: str, number: int, added: list[str]) -> str:
    """Return `text` with lines put in before line `number`, counted from 0."""
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += ending
    lines[number:number] = [line + ending for line in added]
    return "".join(lines)
