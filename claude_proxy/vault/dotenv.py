""".env parser: KEY=VALUE lines, quotes, comments and `export`. Pure.

There is no standard for such files, and their readers disagree. So a value that two of them would
read differently (an escape, an expansion, text after a closing quote) is an error when it is asked
for, and ignored in other variables. Law: secrets stay outside. No message and no repr quotes one.
"""

import re
from typing import NoReturn

from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError

MAX_BYTES = 256 * 1024

_UNSEEN = lazy_pattern(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_NOTHING = lazy_pattern(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_BEGIN = lazy_pattern(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_DOUBLE = lazy_pattern(r'"(?P<inner>(?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = lazy_pattern(r"'(?P<inner>[^']*)'")
_BARE = lazy_pattern(r"[^\n]*")
_COMMENT = lazy_pattern(r"(?:^|[ \t])#.*")
_ESCAPE = lazy_pattern(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """One assignment: its value, or why the value is ambiguous."""

    line: int
    value: str
    fault: str | None = None

    def __repr__(self) -> str:
        return f"_Assignment(line={self.line})"


class Dotenv:
    """The variables of one file; a value is checked when it is asked for."""

    def __init__(self, name: str, entries: dict[str, list[_Assignment]]) -> None:
        self._name = name
        self._entries = entries

    def __repr__(self) -> str:
        return f"Dotenv({self._name!r})"

    def value(self, variable: str) -> str | None:
        """Return what a variable is set to, None if it is not; ConfigError if it is ambiguous."""
        entries = self._entries.get(variable, [])
        if not entries:
            return None
        if len(entries) > 1:
            where = f"{self._name}:{entries[1].line}"
            first = entries[0].line
            raise ConfigError(
                f"{variable} is set twice, first in line {first}", where=where, fix="keep one"
            )
        [entry] = entries
        if entry.fault is not None:
            raise ConfigError(
                f"the value of {variable} {entry.fault}",
                where=f"{self._name}:{entry.line}",
                fix="put the whole value in single quotes, on one line",
            )
        return entry.value


def parse(raw: bytes, name: str) -> Dotenv:
    """Return the variables in a file's bytes; ConfigError if it is not a .env file."""
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"the file is larger than {MAX_BYTES // 1024} KiB",
            where=name,
            fix="check that it is the right file; it must hold KEY=VALUE lines",
        )
    text = decode(raw, name).replace("\r\n", "\n")
    if unseen := _UNSEEN.search(text):
        line = text.count("\n", 0, unseen.start()) + 1
        what = f"the file contains the invisible character U+{ord(unseen[0]):04X}"
        raise ConfigError(what, where=f"{name}:{line}", fix="delete it")
    return Dotenv(name, _DotenvReader(text, name).read())


class _DotenvReader:
    """Walks over a text from one assignment to the next."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._at = 0
        self._line = 1

    def read(self) -> dict[str, list[_Assignment]]:
        entries: dict[str, list[_Assignment]] = {}
        while self._at < len(self._text):
            if self._taken(_NOTHING) is not None:
                continue
            begin = self._taken(_BEGIN)
            if begin is None:
                self._refuse("the line is not KEY=VALUE", "write KEY=VALUE, or # before a comment")
            entries.setdefault(begin["name"], []).append(self._entry())
        return entries

    def _taken(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Return the match at this place, and continue after it; None if there is none."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        self._line += found[0].count("\n")
        return found

    def _refuse(self, what: str, fix: str) -> NoReturn:
        raise ConfigError(what, where=f"{self._name}:{self._line}", fix=fix)

    def _entry(self) -> _Assignment:
        mark = self._text[self._at : self._at + 1]
        if mark not in {'"', "'"}:
            found = _BARE.match(self._text, self._at)
            self._at = self._at if found is None else found.end()
            return _of_bare(self._line, "" if found is None else found[0])
        line = self._line
        quoted = self._taken(_DOUBLE if mark == '"' else _SINGLE)
        if quoted is None:
            self._refuse("a quote opens here and is never closed", "close the quote")
        if self._taken(_NOTHING) is None:
            if self._line > line:  # probably closed by the quote of another value
                self._line = line
                what = "a quote opens here and closes in the middle of another line"
                self._refuse(what, "close the quote where the value ends")
            self._taken(_BARE)
            return _Assignment(line, "", "continues after its closing quote")
        read = _of_double if mark == '"' else _of_single
        return read(line, quoted["inner"])


def _of_bare(line: int, written: str) -> _Assignment:
    value = _COMMENT.sub("", written).strip(" \t")
    if any(mark in value for mark in "\"'\\"):
        return _Assignment(line, "", "contains a quote or a backslash")
    return _expanding(line, value)


def _of_double(line: int, written: str) -> _Assignment:
    if any(escaped not in '"\\' for escaped in _ESCAPE.findall(written)):
        return _Assignment(line, "", "contains an escape that programs read differently")
    return _expanding(line, _ESCAPE.sub(r"\1", written))


def _of_single(line: int, written: str) -> _Assignment:
    if "\\" in written:
        return _Assignment(line, "", "contains a backslash, which programs read differently")
    return _on_one_line(line, written)


def _expanding(line: int, value: str) -> _Assignment:
    if "$" in value or "`" in value:
        return _Assignment(line, "", "contains a $ or `, which other programs would expand")
    return _on_one_line(line, value)


def _on_one_line(line: int, value: str) -> _Assignment:
    if "\n" in value:
        return _Assignment(line, "", "spans several lines")
    return _Assignment(line, value)
