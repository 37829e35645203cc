"""Objects of Git LFS that a run has made, copied into the host's repository.

Law kept: the sandbox cannot move its own wall. The name of such an object is the SHA-256 of its
content; what has another content is not taken, and what the host has is not replaced.
"""

import hashlib
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.git.no_links import file_in, kind_of, names_in, root_of

_OBJECTS = "lfs/objects"
_FOLDER = lazy_pattern(r"[0-9a-f]{2}")
_NAME = lazy_pattern(r"[0-9a-f]{64}")
_PIECE = 1024 * 1024


def bring_lfs_objects(private: Path, common: Path) -> list[str]:
    """Copy them; return what went wrong."""
    problems = []
    with root_of(private) as root:
        for name in _objects_in(root) if kind_of(root, "lfs") else ():
            target = common / _OBJECTS / name
            if not target.exists():
                try:
                    _copy(root, name, target)
                except OSError as error:
                    problems.append(f"the LFS object {target.name}: {error.strerror}")
    return problems


def _objects_in(root: int) -> Iterator[str]:
    for first in _names(root, _OBJECTS):
        for second in _names(root, f"{_OBJECTS}/{first}"):
            for name in _names(root, f"{_OBJECTS}/{first}/{second}", _NAME):
                if name.startswith(f"{first}{second}"):
                    yield f"{first}/{second}/{name}"


def _names(root: int, directory: str, wanted: re.Pattern[str] = _FOLDER) -> list[str]:
    if kind_of(root, directory) != stat.S_IFDIR:
        return []
    with suppress(OSError):
        return [name for name in names_in(root, directory) if wanted.fullmatch(name)]
    return []


def _copy(root: int, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.claude-proxy")
    digest = hashlib.sha256()
    try:
        with file_in(root, f"{_OBJECTS}/{name}") as source, partial.open("xb") as out:
            while piece := source.read(_PIECE):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != target.name:
            raise OSError(22, "it has another content than its name says")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
