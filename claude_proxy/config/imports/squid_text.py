"""Lines of a squid.conf: directives with their words and places, included files in their order.

Fail closed: what would make the meaning depend on the machine (conditions, macros) is an error, and
so is a file that is named and not there. Pure: files are read by the `Library` that is handed in.
"""

from collections.abc import Iterator
from typing import Protocol

from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location

_MOST_INCLUDED = 64
_MOST_DEPTH = 16  # squid's own limit


class Library(Protocol):
    """Reads the files that a configuration names."""

    def names(self, pattern: str, source: Location) -> list[str]:
        """Return the files that a path with wildcards means; ConfigError if there is none."""

    def text(self, name: str, source: Location) -> str:
        """Return a file's text; ConfigError says why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a directive."""

    text: str
    source: Location
    is_file: bool = False  # in quotes: the name of a file with values


@dataclass(frozen=True, slots=True)
class Directive:
    """One logical line."""

    name: str
    words: tuple[Word, ...]
    source: Location


def directives(text: str, *, name: str, library: Library) -> list[Directive]:
    """Return the directives of a configuration and of all that it includes."""
    return list(_Reader(library).read(text, name, 0))


def values(words: tuple[Word, ...], library: Library) -> Iterator[Word]:
    """Yield the values that words say, those in files too."""
    for word in words:
        if not word.is_file:
            yield word
            continue
        for name in library.names(word.text, word.source):
            yield from _values_in(library.text(name, word.source), name)


def _values_in(text: str, name: str) -> Iterator[Word]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        # A comment begins with a word of its own.
        kept = next((words[:at] for at, word in enumerate(words) if word.startswith("#")), words)
        if kept:
            yield Word(" ".join(kept), Location(name, number, 1))


class _Reader:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._included = 0

    def read(self, text: str, name: str, depth: int) -> Iterator[Directive]:
        for number, line in _logical_lines(text):
            source = Location(name, number, 1)
            words = _words(line, source)
            if not words:
                continue
            first, rest = words[0], words[1:]
            if first.text == "include":
                yield from self._include(rest, source, depth)
                continue
            self._refuse_conditions(first, rest, source)
            yield Directive(first.text, rest, source)

    def _include(
        self, words: tuple[Word, ...], source: Location, depth: int
    ) -> Iterator[Directive]:
        if depth >= _MOST_DEPTH:
            what = "files are included too deeply; does one include itself?"
            raise ConfigError(what, where=str(source), fix="delete the line that closes the circle")
        for word in words:
            for name in self._library.names(word.text, source):
                self._included += 1
                if self._included > _MOST_INCLUDED:
                    what = f"more than {_MOST_INCLUDED} files are included"
                    raise ConfigError(what, where=str(source), fix="import fewer at a time")
                yield from self.read(self._library.text(name, source), name, depth + 1)

    def _refuse_conditions(self, first: Word, rest: tuple[Word, ...], source: Location) -> None:
        if first.text in {"if", "else", "endif"}:
            what = f"the condition {quoted(first.text)} depends on the process of squid"
            fix = "import a copy that has the lines of one branch only"
            raise ConfigError(what, where=str(source), fix=fix)
        if first.text == "configuration_includes_quoted_values" and _is_on(rest):
            what = "configuration_includes_quoted_values changes what quotes mean"
            fix = "import a copy without it, where only names of files are in quotes"
            raise ConfigError(what, where=str(source), fix=fix)
        if first.text in {"acl", "http_access"}:
            for word in rest:
                if "${" in word.text:
                    what = f"{quoted(word.text)} is filled in by squid when it runs"
                    fix = "import a copy that has the value in its place"
                    raise ConfigError(what, where=str(source), fix=fix)


def _is_on(words: tuple[Word, ...]) -> bool:
    return bool(words) and words[0].text == "on"


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; a backslash at the end continues a line."""
    begun: tuple[int, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")  # noqa: PLW2901 - the same line
        if begun is None and line.lstrip().startswith("#"):
            continue
        first, before = begun or (number, "")
        if line.endswith("\\"):
            begun = first, before + line[:-1]
            continue
        begun = None
        yield first, before + line
    if begun is not None:
        yield begun


def _words(line: str, source: Location) -> tuple[Word, ...]:
    found: list[Word] = []
    rest = line.strip()
    while rest and not rest.startswith("#"):
        if rest[0] in "\"'":
            text, closing, rest = rest[1:].partition(rest[0])
            if not closing:
                fix = "close what opens here"
                raise ConfigError("a quote is not closed", where=str(source), fix=fix)
            found.append(Word(text, source, is_file=True))
        elif rest.startswith('parameters("'):
            text, closing, rest = rest.removeprefix('parameters("').partition('")')
            found.append(Word(text, source, is_file=True))
        else:
            text, *_ = rest.split(None, 1)
            rest = rest[len(text) :]
            found.append(Word(text, source))
        rest = rest.lstrip()
    return tuple(found)
