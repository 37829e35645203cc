"""Codex's config.toml without what may be secret; pure.

Lines are left out of the text, as there is no writer of TOML, and the result is read again: a file
in which something is left that may be secret is not carried at all.
"""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from claude_proxy.deferred.patterns import lazy_pattern

_HEADER = lazy_pattern(r"\s*\[+([^\]]*)\]+\s*(?:#.*)?")
_KEY = lazy_pattern(r"\s*([A-Za-z0-9_.\"'-]+)\s*=")
# Tables and inline tables of variables and fields.
_LEFT_OUT = frozenset({"env", "headers", "http_headers", "env_http_headers", "query_params", "set"})

type MayBeSecret = Callable[[str, object], bool]


def carried(text: str, project: Path, may_be_secret: MayBeSecret) -> tuple[str, list[str]] | None:
    """Return a file's text without what may be secret, and what was left out; None: not at all."""
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    kept, left_out = _filtered(text, project, may_be_secret)
    try:
        found = tomllib.loads(kept)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    if any(may_be_secret(name, value) for name, value in _leaves(found, "")):
        return None
    return kept, left_out


def _filtered(text: str, project: Path, may_be_secret: MayBeSecret) -> tuple[str, list[str]]:
    kept: list[str] = []
    left_out: list[str] = []
    skipping, table = False, ""
    for line in text.splitlines():
        if header := _HEADER.fullmatch(line):
            table = header[1].strip()
            last = _last_of(table)
            other = table.startswith("projects.") and str(project) not in table
            skipping = other or last in _LEFT_OUT
            if skipping and not other:
                left_out.append(table)
        key = _KEY.match(line)
        if (
            key
            and not skipping
            and _is_left_out(_last_of(key[1]), line[key.end() :], may_be_secret)
        ):
            left_out.append(f"{table}.{key[1]}" if table else key[1])
            continue
        if not skipping:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept), left_out


def _is_left_out(key: str, value: str, may_be_secret: MayBeSecret) -> bool:
    return key in _LEFT_OUT or may_be_secret(key, value.strip().strip("\"'"))


def _last_of(dotted: str) -> str:
    return dotted.rpartition(".")[2].strip().strip("\"'")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, str(key))
    elif isinstance(value, list):
        for before, word in zip(["", *value], value, strict=False):
            option = before if isinstance(before, str) and before.startswith("-") else name
            yield from _leaves(word, option)
    else:
        yield name, value
