"""Path comparison as text: which path is below which; pure.

Plans have hundreds of mounts, and `Path.parents` makes a new path of each step: compared as text, a
plan takes a fraction of the time. Only for paths without `..`, as all of a plan are.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path


def prefix_of(directory: Path) -> str:
    """Return what the text of each path below a directory starts with; that of `/` does as well."""
    return f"{str(directory).rstrip('/')}/"


def is_at_or_below(path: Path, directory: Path) -> bool:
    """Tell whether a path is a directory, or is in it at any depth."""
    text = str(path)
    return text.startswith(prefix_of(directory)) or text == str(directory)


def above(path: Path) -> Iterator[str]:
    """Yield the text of each directory above an absolute path, the nearest first."""
    text = str(path)
    while text != "/":
        text = text.rpartition("/")[0] or "/"
        yield text


def nearest_above[T](path: Path, by_text: Mapping[str, T]) -> T | None:
    """Return the value of the nearest directory above a path that has one."""
    return next((by_text[text] for text in above(path) if text in by_text), None)
