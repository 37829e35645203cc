"""Strict YAML parser: one document to nodes with line and column, all values as text.

Law kept: default-deny. Whatever could hide what a file says (anchors, aliases, merge keys, tags,
duplicate keys, a second document, characters that an editor does not show) is a problem with a
place and a fix. Problems are gathered, not raised.

PyYAML's own loaders read `NO` as false, keep the last of two equal keys and follow aliases. So
this reads PyYAML's events and builds the nodes itself, without recursion: a depth bomb meets our
limit, not the interpreter's.
"""

import re
from collections.abc import Callable
from dataclasses import field
from itertools import islice
from typing import Any

from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, too_large
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import compiled_later, lazy_pattern
from claude_proxy.errors import ConfigError, ConfigErrors

with compiled_later():  # of its reader in Python, for which libyaml stands in: half of its import
    import yaml

MAX_DEPTH = 16  # the file's own shape needs 5
MAX_PROBLEMS = 100  # more help nobody, and a wrong file may hold a hundred thousand

_QUOTED_CHARACTERS = 80
_TOO_DEEP = ("nested too deeply", "the file needs five levels at most")

# libyaml does the same work ten times as fast; both report the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Not allowed anywhere, comments included. YAML 1.1 takes NEL, LS and PS for line breaks,
# so a comment may end where no editor shows it; the bidirectional controls reorder what is shown.
_HIDING = {
    "a control character": "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff",
    "an unusual line break": "\x85\u2028\u2029",
    "a character that reorders the text around it": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "an invisible character": "\u00ad\u200b\u2060\ufeff",
}
_hiding = lazy_pattern(f"[{''.join(_HIDING.values())}]").finditer
_lone_return = lazy_pattern(r"\r(?!\n)").finditer
_indenting_tab = lazy_pattern(r"^ *\t", re.MULTILINE).finditer


@dataclass(slots=True)
class YamlScalar:
    """One value as written; `plain` if it is written without quotes."""

    text: str
    plain: bool
    line: int
    column: int


@dataclass(slots=True)
class YamlList:
    """A list, in block or flow style."""

    line: int
    column: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(slots=True)
class YamlMapping:
    """A mapping in the file's order; `whole` unless keys that cannot stay are left out."""

    line: int
    column: int
    entries: "list[tuple[YamlScalar, Node]]" = field(default_factory=list)
    whole: bool = True


@dataclass(slots=True)
class Broken:
    """Something already reported; readers of the nodes skip it."""

    line: int
    column: int


type Node = YamlScalar | YamlList | YamlMapping | Broken


class Problems:
    """Gathers what is wrong with one file, each with its place, and raises it all together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: list[tuple[int, int, ConfigError]] = []

    def add(self, what: str, node: Node, *, key: str | None = None, fix: str | None = None) -> None:
        """Note a problem at `node`."""
        self.add_at(what, node.line, node.column, key=key, fix=fix)

    def add_at(
        self, what: str, line: int, column: int, *, key: str | None = None, fix: str | None = None
    ) -> None:
        """Note a problem at a line and column, both counted from 1."""
        where = f"{self.name}:{line}:{column}"
        if key:
            where += f", {key}"
        self._found.append((line, column, ConfigError(what, where=where, fix=fix)))

    def raise_if_any(self) -> None:
        """Raise `ConfigErrors` with everything found, in the file's order."""
        if not self._found:
            return
        ordered = [error for _, _, error in sorted(self._found, key=lambda found: found[:2])]
        shown = ordered[:MAX_PROBLEMS]
        if len(ordered) > MAX_PROBLEMS:
            more = len(ordered) - MAX_PROBLEMS
            shown.append(
                ConfigError(
                    f"{more} more problems in this file are not shown",
                    where=self.name,
                    fix="fix the ones above first",
                )
            )
        raise ConfigErrors(shown)

    def __len__(self) -> int:
        return len(self._found)


def gathered(problems: Problems) -> tuple[ConfigError, ...]:
    """Return everything noted, in the file's order."""
    try:
        problems.raise_if_any()
    except ConfigErrors as errors:
        return errors.problems
    return ()


def quoted(text: str) -> str:
    """Return `text` as an error message quotes it: bounded, and harmless at a terminal."""
    if len(text) > _QUOTED_CHARACTERS:
        text = text[: _QUOTED_CHARACTERS - 1] + "…"
    return f'"{harmless(text)}"'


def harmless(text: str) -> str:
    """Return `text` with whatever a terminal would obey, or could not show, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parse(text: str, problems: Problems) -> Node | None:
    """Return the root node of the only document, None if there is none; note what is wrong."""
    if len(text) > MAX_BYTES:
        raise too_large(problems.name)
    note_hiding_characters(text, problems)
    _note_tabs(text, problems)
    if problems:
        return None
    builder = _Builder(problems)
    try:
        # Not `yaml.parse`, which asks twice for each event: there may be a million.
        for event in iter(_LOADER(text).get_event, None):
            builder.take(event)
            if builder.stopped:
                break
    except yaml.MarkedYAMLError as error:
        _note_syntax_error(error, problems)
        return None
    finally:
        builder.release()
    return builder.root


def note_hiding_characters(text: str, problems: Problems) -> None:
    """Note what an editor does not show, and line ends that only some see; in any format."""
    for found in islice(_hiding(text), MAX_PROBLEMS):
        name = next(name for name, those in _HIDING.items() if re.match(f"[{those}]", found[0]))
        what = f"{name} (U+{ord(found[0]):04X}) in the file"
        problems.add_at(what, *_place_of(text, found.start()), fix="delete it")
    for found in islice(_lone_return(text), MAX_PROBLEMS):
        what = "a carriage return without a line feed"
        fix = "save the file with ordinary line ends"
        problems.add_at(what, *_place_of(text, found.start()), fix=fix)


def _note_tabs(text: str, problems: Problems) -> None:
    for found in islice(_indenting_tab(text), MAX_PROBLEMS):
        place = _place_of(text, found.end() - 1)
        problems.add_at("a tab in the indentation", *place, fix="indent by spaces")


def _place_of(text: str, position: int) -> tuple[int, int]:
    """Return the line and column of a character, both counted from 1."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _note_syntax_error(error: yaml.MarkedYAMLError, problems: Problems) -> None:
    what = " ".join(str(error.problem or error.context).split())
    context = str(error.context or "")
    mark = error.problem_mark or error.context_mark
    fix = "compare its indentation with the lines above; quote a value that holds ': ' or ' #'"
    if "nesting depth" in what:  # libyaml has a limit of its own for brackets
        what, fix = _TOO_DEEP
    elif "alias" in context:
        what = "a value without quotes cannot begin with *"
        mark = error.context_mark or mark
        fix = 'put the pattern in quotes: "*.example.com"'
    elif "cannot start any token" in what:
        fix = "put the value in quotes"
    elif "quoted scalar" in context or "flow" in context:
        # Where it began: the end, where the parser gave up, may be a hundred lines below.
        mark = error.context_mark or mark
        fix = "close what opens here"
    elif "simple key" in context:
        mark = error.context_mark or mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    if (what, fix) != _TOO_DEEP:
        what = f"this is not YAML: {what}"
    problems.add_at(what, line, column, fix=fix)


class _Builder:
    """Builds nodes from events, without recursion; reports what YAML allows and we do not."""

    def __init__(self, problems: Problems) -> None:
        self.root: Node | None = None
        self.stopped = False
        self._problems = problems
        self._documents = 0
        self._open: list[YamlList | YamlMapping] = []
        # For each open mapping: the key that waits for its value, and where each key was first.
        self._keys: list[tuple[list[YamlScalar | Broken], dict[str, int]]] = []
        self._takers: dict[type[Any], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._take_scalar,
            yaml.SequenceStartEvent: self._begin,
            yaml.MappingStartEvent: self._begin,
            yaml.SequenceEndEvent: self._end,
            yaml.MappingEndEvent: self._end,
            yaml.AliasEvent: self._take_alias,
            yaml.DocumentStartEvent: self._begin_document,
        }

    def take(self, event: Any) -> None:
        """Take the next event into account."""
        taker = self._takers.get(type(event))
        if taker is not None:
            taker(event)

    def release(self) -> None:
        """Break the reference cycle: the nodes of a large file are freed without a collection."""
        self._takers.clear()

    def _take_scalar(self, event: Any) -> None:
        mark = event.start_mark
        if event.anchor is not None or event.tag is not None:
            self._note_decoration(event)
        self._place(YamlScalar(event.value, event.implicit[0], mark.line + 1, mark.column + 1))

    def _begin(self, event: Any) -> None:
        mark = event.start_mark
        if event.anchor is not None or event.tag is not None:
            self._note_decoration(event)
        kind = YamlList if isinstance(event, yaml.SequenceStartEvent) else YamlMapping
        node = kind(mark.line + 1, mark.column + 1)
        self._place(node)
        if len(self._open) >= MAX_DEPTH:
            what, fix = _TOO_DEEP
            self._problems.add(what, node, fix=fix)
            self.stopped = True
            return
        self._open.append(node)
        self._keys.append(([], {}))

    def _end(self, _event: Any) -> None:
        self._open.pop()
        self._keys.pop()

    def _take_alias(self, event: Any) -> None:
        mark = event.start_mark
        node = Broken(mark.line + 1, mark.column + 1)
        self._problems.add(
            f"an alias (*{event.anchor})",
            node,
            fix=f'write out what it refers to; quote a pattern: "*{event.anchor}"',
        )
        self._place(node)

    def _begin_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            mark = event.start_mark
            self._problems.add_at(
                "a second document", mark.line + 1, mark.column + 1, fix="delete this --- line"
            )
            self.stopped = True

    def _note_decoration(self, event: Any) -> None:
        """Report an anchor or a tag; the value itself is read on as if it were not there."""
        mark = event.start_mark
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        name = f"a tag ({tag})" if event.anchor is None else f"an anchor (&{event.anchor})"
        self._problems.add_at(name, mark.line + 1, mark.column + 1, fix="delete it")

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, YamlList):
            parent.items.append(node)
            return
        waiting, seen = self._keys[-1]
        if waiting:
            key = waiting.pop()
            if isinstance(key, YamlScalar):
                parent.entries.append((key, node))
            else:
                parent.whole = False
        else:
            waiting.append(self._key_of(node, seen))

    def _key_of(self, node: Node, seen: dict[str, int]) -> YamlScalar | Broken:
        """Return `node` as a key, or something broken if it cannot be one."""
        broken = Broken(node.line, node.column)
        if isinstance(node, Broken):
            return node
        if not isinstance(node, YamlScalar):
            self._problems.add("a key that is not a word", node, fix="write a plain key")
            return broken
        if node.plain and node.text == "<<":
            self._problems.add("a merge key (<<)", node, fix="write out what it refers to")
            return broken
        if node.text in seen:
            self._problems.add(
                f"the key {quoted(node.text)} is there twice, first in line {seen[node.text]}",
                node,
                fix="keep one of the two",
            )
            return broken
        seen[node.text] = node.line
        return node
