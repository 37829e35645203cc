"""Path templates: paths that differ only in ids, versions or hashes, as one entry of globs.

Law kept: never wider than what was seen. Only a part that looks generated (a number, a UUID, a
version, a hash) becomes `*`, and only if enough different ones were seen. A word stays a word, and
no `*` covers a text without a digit, so a sibling such as /users/admin is never folded in. A glob
has no class of characters, so a number is written as ten globs, one for each digit that it may
begin with. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.patterns import PathGlob, PatternError

ENOUGH: Final = 3  # different examples, before a part of a path is taken for a variable one
MOST_GLOBS: Final = 100  # of one template
_REMEMBERED: Final = 65_536  # paths
_LONGEST_PATH: Final = 1000  # longer ones were shortened when they were recorded

_DIGITS: Final = "0123456789"


class _Kind(StrEnum):
    """What a part of a segment looks like."""

    NUMBER = "number"
    UUID = "uuid"
    VERSION = "version"
    HASH = "hash"
    ID = "id"


class _Part(NamedTuple):
    kind: _Kind | None  # None: a word or punctuation, which stays as it is
    text: str


type _Shape = tuple[tuple[str, ...], ...]

_UUID = r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
_find_parts = lazy_pattern(
    rf"""
    (?P<uuid> (?<![0-9A-Za-z]) {_UUID} (?![0-9A-Za-z]) )
    | (?P<version> (?<![0-9A-Za-z.]) [0-9]+ (?: \.[0-9]+ )+ (?![0-9A-Za-z]) )
    | (?P<id> (?<![0-9A-Za-z_-]) (?=[0-9A-Za-z_-]*[0-9]) (?=[0-9A-Za-z_-]*[A-Z])
        (?=[0-9A-Za-z_-]*[a-z]) [0-9A-Za-z]+ [0-9A-Za-z_-]{{14,}} [0-9A-Za-z] (?![0-9A-Za-z_-]) )
    | (?P<piece> [0-9A-Za-z]+ )
    | (?P<escape> %[0-9A-Fa-f]{{2}} )
    | (?P<rest> . )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
).finditer
_is_number = lazy_pattern(r"[0-9]+", re.ASCII).fullmatch
_is_hash = lazy_pattern(r"(?=[0-9]*[a-f])(?=[a-f]*[0-9])(?:[0-9a-f]{7,})", re.ASCII).fullmatch
# Letters and digits mixed: "utf8", "oauth2" and "v1" are words, and so is what has few digits.
_is_id = lazy_pattern(r"(?=(?:[A-Za-z]*[0-9]){2})(?=[0-9]*[A-Za-z])[0-9A-Za-z]{10,}").fullmatch
# "toolu_", "session-": the word before an id says what it is one of.
_prefix_of_id = lazy_pattern(r"[a-z]+[_-]", re.ASCII).match


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """Paths of one shape, or one path, and the globs that cover them."""

    shape: str  # for a person: "/users/<number>"; a single path as it is
    globs: tuple[str, ...]
    count: int  # how often they were asked for
    different: int  # how many different ones
    first: str  # the one that was seen first


@lru_cache(maxsize=_REMEMBERED)
def is_writable(path: str) -> bool:
    """Return whether a glob can name just this path."""
    if "*" in path or len(path) > _LONGEST_PATH:
        return False
    try:
        PathGlob.parse(path)
    except PatternError:
        return False
    return True


def templates_of(
    counts: Mapping[str, int],
    *,
    never: Iterable[str] = (),
    exact: Callable[[str], bool] = lambda _path: False,
) -> list[PathTemplate]:
    """Return templates that cover these paths, which are in the order in which they were seen.

    Each path must be writable. No template covers one of `never`; a path that is to be `exact` is
    no example of a template.
    """
    groups: dict[_Shape, list[_Parsed]] = defaultdict(list)
    found = []
    for path, count in counts.items():
        parsed = _Parsed(path, count, _parts_of(path))
        if exact(path) or not parsed.variables:
            found.append(_single(parsed))
        else:
            groups[parsed.shape].append(parsed)
    refused = frozenset(never)
    for group in groups.values():
        found += _of_group(group, refused)
    order = {path: at for at, path in enumerate(counts)}
    return sorted(found, key=lambda template: order[template.first])


class _Parsed(NamedTuple):
    path: str
    times: int
    segments: tuple[tuple[_Part, ...], ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """What may differ between paths of one shape, in their order."""
        return tuple(part.text for parts in self.segments for part in parts if part.kind)

    @property
    def shape(self) -> _Shape:
        """What paths must have in common to be examples of one template."""
        return tuple(tuple(map(_name_of, parts)) for parts in self.segments)


def _name_of(part: _Part) -> str:
    # A recorded path cannot contain "<": a glob with it is refused before.
    if part.kind is None:
        return part.text
    dots = part.text.count(".") if part.kind is _Kind.VERSION else 0
    return f"<{part.kind}{dots or ''}>"


def _parts_of(path: str) -> tuple[tuple[_Part, ...], ...]:
    return tuple(tuple(_parts_in(segment)) for segment in path.split("/"))


def _parts_in(segment: str) -> Iterator[_Part]:
    prefix = _prefix_of_id(segment)
    start = prefix.end() if prefix is not None else 0
    if start:
        yield _Part(None, segment[:start])
    for match in _find_parts(segment[start:]):
        yield _Part(_kind_of(match.lastgroup or "", match.group()), match.group())


def _kind_of(name: str, text: str) -> _Kind | None:
    if name in {"uuid", "version", "id"}:
        return _Kind(name)
    if name != "piece":
        return None
    if _is_number(text):
        return _Kind.NUMBER
    if _is_hash(text):
        return _Kind.HASH
    return _Kind.ID if _is_id(text) else None


def _of_group(group: Sequence[_Parsed], never: frozenset[str]) -> Iterator[PathTemplate]:
    """Yield the templates of paths of one shape."""
    values = list(zip(*(parsed.variables for parsed in group), strict=True))
    different = [len(set(column)) for column in values]
    few = [at for at, number in enumerate(different) if 1 < number < ENOUGH]
    if few:
        # What has only a few values is no variable: each value has its own template.
        divided: dict[tuple[str, ...], list[_Parsed]] = defaultdict(list)
        for parsed in group:
            variables = parsed.variables
            divided[tuple(variables[at] for at in few)].append(parsed)
        for each in divided.values():
            yield from _of_group(each, never)
        return
    starred = frozenset(at for at, number in enumerate(different) if number >= ENOUGH)
    template = _template(group, starred) if starred else None
    if template is None or _covers_any(template.globs, never):
        yield from map(_single, group)
    else:
        yield template


def _template(group: Sequence[_Parsed], starred: frozenset[int]) -> PathTemplate | None:
    """Return the template with these variables as `*`; None if it takes too many globs."""
    at = 0
    choices: list[tuple[str, ...]] = []
    shape: list[str] = []
    for number, parts in enumerate(group[0].segments):
        if number:
            choices.append(("/",))
            shape.append("/")
        for part in parts:
            if part.kind is None or at not in starred:
                choices.append((part.text,))
                shape.append(part.text)
            else:
                texts = [parsed.variables[at] for parsed in group]
                choices.append(_stars(part.kind, texts))
                shape.append(f"<{part.kind}>")
            at += part.kind is not None
    size = 1
    for choice in choices:
        size *= len(choice)
    if not 0 < size <= MOST_GLOBS:
        return None
    globs = tuple("".join(words) for words in product(*choices))
    if not all(map(_is_glob, globs)):
        return None
    total = sum(parsed.times for parsed in group)
    return PathTemplate("".join(shape), globs, total, len(group), group[0].path)


def _stars(kind: _Kind, texts: Sequence[str]) -> tuple[str, ...]:
    """Return what a variable part is in globs; none covers a text that has no digit."""
    if kind is _Kind.UUID:
        # The first digit of the third group is the version (RFC 9562, 4.2).
        versions = dict.fromkeys(text.split("-")[2][0] for text in texts)
        known = all(each in _DIGITS for each in versions)
        return tuple(f"*-*-{each}*-*-*" for each in versions) if known else ()
    if kind in {_Kind.NUMBER, _Kind.VERSION}:
        rest = ".*" * texts[0].count(".")
        has_zero = any(text.startswith("0") for text in texts)
        digits = _DIGITS if has_zero or kind is _Kind.VERSION else _DIGITS[1:]
        return tuple(f"{digit}*{rest}" for digit in digits)
    return tuple(f"*{digit}*" for digit in _DIGITS)


def _is_glob(text: str) -> bool:
    try:
        PathGlob.parse(text)
    except PatternError:
        return False
    return True


def _covers_any(globs: Iterable[str], paths: Iterable[str]) -> bool:
    parsed = [PathGlob.parse(text) for text in globs]
    return any(glob.matches(path) for glob in parsed for path in paths)


def _single(parsed: _Parsed) -> PathTemplate:
    return PathTemplate(parsed.path, (parsed.path,), parsed.times, 1, parsed.path)
