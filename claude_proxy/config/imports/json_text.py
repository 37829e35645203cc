"""JSON settings of other programs: values with the line of each key and item.

Fail closed: a key that is there twice, a comment, anything that is not JSON is an error with its
place, and nothing of the file is used. Pure.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location

type Path = tuple[str | int, ...]

_find_tokens = lazy_pattern(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+').finditer


class JsonText:
    """The values of a file, and where they are."""

    def __init__(self, text: str, name: str) -> None:
        """Read a text; ConfigError if it is not a JSON object."""
        self._name = name
        self.root = _parsed(text, name)
        starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._lines = {path: bisect_right(starts, at) for path, at in _positions(text)}

    def source(self, *path: str | int) -> Location:
        """Return where a key or an item is, or what is around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return Location(self._name, self._lines.get(path, 1), 1)

    def table(self, *path: str | int) -> dict[str, Any]:
        """Return the object at a path, empty if there is none; ConfigError if it is another."""
        value = self._value(path)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(path, "an object, with keys in braces")
        return value

    def texts(self, *path: str | int) -> Iterator[tuple[str, Location]]:
        """Yield the texts of the list at a path; ConfigError if it holds anything else."""
        value = self._value(path)
        if value is None:
            return
        if not isinstance(value, list):
            raise self._wrong(path, 'a list of texts, as in ["example.com"]')
        for at, item in enumerate(value):
            if not isinstance(item, str):
                raise self._wrong((*path, at), "a text in quotes")
            yield item, self.source(*path, at)

    def _value(self, path: Path) -> Any:
        value: Any = self.root
        for at, key in enumerate(path):
            if not isinstance(value, dict):
                raise self._wrong(path[:at], "an object, with keys in braces")
            value = value.get(key)
            if value is None:
                return None
        return value

    def _wrong(self, path: Path, wanted: str) -> ConfigError:
        shown = ".".join(map(str, path))
        where = f"{self.source(*path)}, {shown}"
        return ConfigError(f"{shown} is not what it should be", where=where, fix=f"write {wanted}")


def _parsed(text: str, name: str) -> dict[str, Any]:
    try:
        root = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        fix = "JSON has no comments and no comma after the last item"
        raise ConfigError(f"this is not JSON: {_lower(error.msg)}", where=where, fix=fix) from error
    except RecursionError as error:
        raise ConfigError("nested too deeply", where=name, fix="is it the right file?") from error
    except ValueError as error:
        raise ConfigError(str(error), where=name, fix="delete one of the two") from error
    if not isinstance(root, dict):
        fix = "name the file that holds the settings"
        raise ConfigError("the file is not a JSON object", where=name, fix=fix)
    return root


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quoted(key)} is there twice")
        found[key] = value
    return found


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _positions(text: str) -> Iterator[tuple[Path, int]]:
    """Yield the position of each key and item of a text that is JSON."""
    path: list[str | int] = []
    is_key: list[bool] = []  # of each open object: whether a key comes next
    for found in _find_tokens(text):
        mark = found[0]
        if mark in "]}":
            path.pop()
            is_key.pop()
        elif mark == ",":
            if isinstance(path[-1], int):
                path[-1] += 1
            else:
                is_key[-1] = True
        elif mark == ":":
            is_key[-1] = False
        elif is_key and is_key[-1]:
            path[-1] = json.loads(mark)
            yield tuple(path), found.start()
            continue
        elif path and isinstance(path[-1], int):
            yield tuple(path), found.start()
        if mark in "[{":
            path.append(0 if mark == "[" else "")
            is_key.append(mark == "{")
