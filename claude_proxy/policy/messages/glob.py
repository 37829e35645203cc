"""Matches words against the globs that an `anthropic` entry lists.

Pure, and linear: a star is never tried twice.
"""

from collections.abc import Iterable


def matches_any(globs: Iterable[str], word: str) -> bool:
    """Tell whether one of `globs` covers `word`; their `*` stands for any characters, or none."""
    return any(matches(glob, word) for glob in globs)


def matches(glob: str, word: str) -> bool:
    """Tell whether `glob` covers all of `word`, letter by letter."""
    first, *others = glob.split("*")
    if not others:
        return word == first
    *inner, last = others
    at, end = len(first), len(word) - len(last)
    if at > end or not word.startswith(first) or not word.endswith(last):
        return False
    # The leftmost place for each piece leaves the most room for the next.
    for piece in inner:
        found = word.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
