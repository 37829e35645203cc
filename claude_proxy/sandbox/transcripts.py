"""Transcripts of Claude Code: which of a directory's belong to a project.

Claude Code names the directory of a project's transcripts by the path with every special character
replaced, so /src/a-b and /src/a/b have one directory. Each transcript says where it was made.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern

_HEAD_BYTES = 1024 * 1024
_ENDING = ".jsonl"
_MADE_IN = lazy_pattern(rb'"cwd"\s*:\s*("(?:[^"\\]|\\.)*")')

type ReadHead = Callable[[str, int], bytes]


def own(names: Iterable[str], read_head: ReadHead, project: Path) -> set[str]:
    """Return those of some files, below a directory of transcripts, that belong to a project.

    `read_head` returns the beginning of a file. One that does not say where it was made is left
    out. What is beside the transcripts belongs to the project only if all of them do.
    """
    all_names = list(names)
    sessions = {name for name in all_names if "/" not in name and name.endswith(_ENDING)}
    chosen = {name for name in sessions if _is_of(read_head(name, _HEAD_BYTES), project)}
    ids = {name.removesuffix(_ENDING) for name in chosen}
    alone = chosen == sessions
    return chosen | {
        name
        for name in all_names
        if name not in sessions and (alone or name.partition("/")[0] in ids)
    }


def _is_of(head: bytes, project: Path) -> bool:
    first = next(_places_in(head), None)
    return first is not None and first.is_relative_to(project)


def _places_in(head: bytes) -> Iterator[Path]:
    for found in _MADE_IN.finditer(head):
        try:
            yield Path(json.loads(found[1]))
        except ValueError:
            return
