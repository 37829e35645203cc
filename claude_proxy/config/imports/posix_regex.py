"""POSIX regular expressions, basic and extended, as squid and tinyproxy read them.

Fail closed: an expression that these programs would refuse, or whose meaning POSIX leaves open, is
a ValueError, and not read as something that it may not mean. Pure.
"""

from claude_proxy.config.imports.languages import (
    EMPTY,
    Alt,
    Anchor,
    Any1,
    Chars,
    Expr,
    Repeat,
    Seq,
)
from claude_proxy.deferred.patterns import lazy_pattern

_MOST_CHARACTERS = 2_000
_MOST_REPEATS = 255  # RE_DUP_MAX
_MOST_DEPTH = 50

_ASCII = "".join(map(chr, range(0x80)))
_CLASSES: dict[str, frozenset[str]] = {
    "alnum": frozenset(filter(str.isalnum, _ASCII)),
    "alpha": frozenset(filter(str.isalpha, _ASCII)),
    "blank": frozenset(" \t"),
    "digit": frozenset("0123456789"),
    "lower": frozenset(filter(str.islower, _ASCII)),
    "space": frozenset(" \t\n\r\f\v"),
    "upper": frozenset(filter(str.isupper, _ASCII)),
    "xdigit": frozenset("0123456789abcdefABCDEF"),
    "punct": frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
}
_WORD = frozenset("_") | _CLASSES["alnum"]  # \w of the GNU library
_interval = lazy_pattern(r"([0-9]{1,3})(?:(,)([0-9]{0,3}))?").match


def parse(text: str, *, extended: bool, ignore_case: bool, alphabet: Chars) -> Expr:
    """Return the expression; ValueError says why it cannot be read.

    `alphabet` is what the texts may consist of that it is compared with.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it is longer than {_MOST_CHARACTERS} characters")
    return _Parser(text, alphabet, extended=extended, ignore_case=ignore_case).whole()


class _Parser:
    def __init__(self, text: str, alphabet: Chars, *, extended: bool, ignore_case: bool) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._alphabet = alphabet
        self._extended = extended
        self._ignore_case = ignore_case

    def whole(self) -> Expr:
        found = self._alternatives()
        if self._at < len(self._text):
            raise ValueError("it closes a parenthesis that it has not opened")
        return found

    # An operator is written alone in an extended expression, after a backslash in a basic one.

    def _sees(self, operator: str) -> bool:
        mark = operator if self._extended else f"\\{operator}"
        return self._text.startswith(mark, self._at)

    def _takes(self, operator: str) -> bool:
        if not self._sees(operator):
            return False
        self._at += 1 if self._extended else 2
        return True

    def _alternatives(self) -> Expr:
        branches = [self._branch()]
        while self._takes("|"):
            branches.append(self._branch())
        if len(branches) > 1 and EMPTY in branches:
            raise ValueError("one of its alternatives is empty, which POSIX leaves open")
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def _branch(self) -> Expr:
        parts: list[Expr] = []
        while self._at < len(self._text) and not self._sees("|") and not self._sees(")"):
            parts.append(self._piece(is_first=not parts))
        return Seq(tuple(parts))

    def _piece(self, *, is_first: bool) -> Expr:
        part = self._atom(is_first=is_first)
        while (times := self._repetition(part)) is not None:
            part = Repeat(part, *times)
        return part

    def _repetition(self, part: Expr) -> tuple[int, int | None] | None:
        is_star = self._text.startswith("*", self._at)
        if isinstance(part, Anchor):
            if is_star and not self._extended:
                return None  # an ordinary character there
            if is_star or any(map(self._sees, "+?{")):
                raise ValueError("it repeats an anchor, which POSIX leaves open")
        if is_star:
            self._at += 1
            return 0, None
        if self._takes("+"):
            return 1, None
        if self._takes("?"):
            return 0, 1
        return self._braces() if self._sees("{") else None

    def _braces(self) -> tuple[int, int | None]:
        self._takes("{")
        found = _interval(self._text, self._at)
        if found is None:
            raise ValueError("its braces hold no number")
        self._at = found.end()
        if not self._takes("}"):
            raise ValueError("its braces are not closed")
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if (most is not None and most < least) or max(least, most or 0) > _MOST_REPEATS:
            raise ValueError("its braces hold no range")
        return least, most

    def _atom(self, *, is_first: bool) -> Expr:
        if self._takes("("):
            return self._group()
        char = self._text[self._at]
        self._at += 1
        if char == "\\":
            return self._escaped()
        if char == "^" and (self._extended or is_first):
            return Anchor(at_end=False)
        if char == "$" and (self._extended or self._ends_branch()):
            return Anchor(at_end=True)
        if self._extended and char in "*+?{":
            raise ValueError(f"it repeats nothing at {char!r}")
        if char == "[":
            return Any1(self._bracket())
        return Any1(self._alphabet if char == "." else self._spelled(char))

    def _group(self) -> Expr:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise ValueError("its parentheses are nested too deeply")
        inner = self._alternatives()
        if not self._takes(")"):
            raise ValueError("a parenthesis is not closed")
        self._depth -= 1
        if inner == EMPTY:
            raise ValueError("it has an empty group, which POSIX leaves open")
        return inner

    def _ends_branch(self) -> bool:
        return self._at == len(self._text) or self._sees("|") or self._sees(")")

    def _escaped(self) -> Expr:
        if self._at == len(self._text):
            raise ValueError("it ends in a backslash")
        char = self._text[self._at]
        self._at += 1
        if char == "w":
            return Any1(_WORD & self._alphabet)
        if char.isalnum() or char in "<>`'":
            raise ValueError(f"it has \\{char}, which POSIX leaves open")
        return Any1(self._spelled(char))

    def _spelled(self, char: str) -> Chars:
        if not self._ignore_case:
            return frozenset(char)
        return frozenset({char, char.lower(), char.upper()})

    # Bracket expressions; a backslash is an ordinary character in them.

    def _bracket(self) -> Chars:
        is_negated = self._text.startswith("^", self._at)
        self._at += is_negated
        found: set[str] = set()
        is_first = True
        while is_first or not self._text.startswith("]", self._at):
            is_first = False
            found |= self._bracket_item()
        self._at += 1
        if self._ignore_case:
            found |= {other for char in found for other in (char.lower(), char.upper())}
        return self._alphabet - found if is_negated else frozenset(found)

    def _bracket_item(self) -> set[str]:
        if self._text.startswith("[:", self._at):
            end = self._text.find(":]", self._at)
            name = self._text[self._at + 2 : end] if end >= 0 else ""
            if name not in _CLASSES:
                raise ValueError("it has an unknown class of characters")
            self._at = end + 2
            return set(_CLASSES[name])
        if self._text.startswith(("[.", "[="), self._at):
            raise ValueError("it has a collating symbol")
        first = self._bracket_char()
        follows = self._text[self._at : self._at + 2]
        if not follows.startswith("-") or follows in {"-", "-]"}:
            return {first}
        self._at += 1
        if self._text.startswith(("[:", "[.", "[="), self._at):
            raise ValueError("it has a range that ends in a class")
        last = self._bracket_char()
        if last < first:
            raise ValueError(f"its range {first}-{last} is the wrong way round")
        return set(map(chr, range(ord(first), min(ord(last), 0xFF) + 1)))

    def _bracket_char(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("a bracket is not closed")
        self._at += 1
        return self._text[self._at - 1]
