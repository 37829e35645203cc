"""Globs for names of models and betas: `*` matches any characters.

Pure, without backtracking.
"""

from collections.abc import Iterable


def matches_any(globs: Iterable[str], word: str) -> bool:
    """Return whether one of `globs` matches all of `word`; `*` matches any characters or none."""
    return any(matches(glob, word) for glob in globs)


def matches(glob: str, word: str) -> bool:
    """Return whether `glob` matches all of `word`; `*` matches any characters or none."""
    first, *others = glob.split("*")
    if not others:
        return word == first
    *inner, last = others
    at, end = len(first), len(word) - len(last)
    if at > end or not word.startswith(first) or not word.endswith(last):
        return False
    # The leftmost match of each piece leaves the most room for the next.
    for piece in inner:
        found = word.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
