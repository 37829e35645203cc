"""TOML locations: the line and column of each key and list item, which `tomllib` does not give.

For messages only: nothing is decided by it. `tomllib` has read the text, so this looks only for
what separates tokens; where it gets lost it stops, and returns what it has found. Pure.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from claude_proxy.deferred.patterns import lazy_pattern

type Path = tuple[str | int, ...]
type Place = tuple[int, int]

_find_tokens = lazy_pattern(
    r"""
      (?P<skip>[ \t\r]+|\#[^\n]*)
    | (?P<text>\"\"\"(?:[^\\]|\\.)*?\"{3,5} | '''.*?'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<mark>[\[\]{}=,.\n])
    | (?P<bare>[^\s\[\]{}=,."'\#]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
).finditer
_END = ""
_MARKS = frozenset("[]{}=,.\n")


class _Token(NamedTuple):
    text: str
    at: int


def places_of(text: str) -> dict[Path, Place]:
    """Return the place of each key and each item of a list, both counted from 1."""
    reader = _TokenReader(text)
    with suppress(ValueError, RecursionError):  # lost; what is found so far is right
        reader.read()
    # Where each line begins: counting lines again for each of 50,000 hosts would take minutes.
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    found = {}
    for path, at in reader.found.items():
        line = bisect_right(starts, at)
        found[path] = (line, at - starts[line - 1] + 1)
    return found


class _TokenReader:
    """Walks over the tokens of a text, and notes where keys and items begin."""

    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._tokens = self._read_tokens(text)
        self._now = next(self._tokens)

    @staticmethod
    def _read_tokens(text: str) -> Iterator[_Token]:
        for found in _find_tokens(text):
            if found.lastgroup != "skip":
                yield _Token(found[0], found.start())
        while True:
            yield _Token(_END, len(text))

    def read(self) -> None:
        prefix: Path = ()
        while self._now.text != _END:
            if self._now.text == "\n":
                self._step()
            elif self._now.text == "[":
                prefix = self._header()
            else:
                self._pair(prefix)

    def _step(self) -> _Token:
        token, self._now = self._now, next(self._tokens)
        return token

    def _header(self) -> Path:
        while self._now.text == "[":
            self._step()
        path = self._key(())
        while self._now.text == "]":
            self._step()
        return path

    def _pair(self, prefix: Path) -> None:
        path = self._key(prefix)
        if self._step().text != "=":
            raise ValueError("no pair")
        self._value(path)

    def _key(self, prefix: Path) -> Path:
        """Read a dotted key, and note each part of it that is new."""
        path = prefix
        while True:
            token = self._step()
            path = (*path, _name_of(token.text))
            self.found.setdefault(path, token.at)
            if self._now.text != ".":
                return path
            self._step()

    def _value(self, path: Path) -> None:
        if self._now.text == "[":
            self._list(path)
        elif self._now.text == "{":
            self._table(path)
        else:
            while self._now.text not in {",", "]", "}", "\n", _END}:
                self._step()  # a number or a date may be several tokens

    def _list(self, path: Path) -> None:
        self._step()
        index = 0
        while self._now.text != "]":
            if self._now.text in {"\n", ","}:
                self._step()
            elif self._now.text in {_END, "}"}:
                raise ValueError("no list")
            else:
                item = (*path, index)
                self.found[item] = self._now.at
                self._value(item)
                index += 1
        self._step()

    def _table(self, path: Path) -> None:
        self._step()
        while self._now.text != "}":
            if self._now.text in {"\n", ","}:
                self._step()
            else:
                self._pair(path)
        self._step()


def _name_of(text: str) -> str:
    if text[:1] in {'"', "'"}:
        return str(tomllib.loads(f"name = {text}")["name"])
    if text == _END or text in _MARKS:
        raise ValueError("no key")
    return text
