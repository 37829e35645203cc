"""Objects of a Git directory that a sandbox writes, copied as data into a scratch repository.

Law kept: the sandbox cannot move its own wall. Only plain files with the names of objects and packs
are copied; alternates, indexes of packs and commit graphs are not. Git then gives each object the
name of its content, so a false one cannot replace another.
"""

import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import BinaryIO

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.git.no_links import file_in, kind_of, names_in, root_of

MAX_FILES = 2_000_000
MAX_BYTES = 32 * 1024**3

_FOLDER = lazy_pattern(r"[0-9a-f]{2}")
_LOOSE = lazy_pattern(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")
_PACK = lazy_pattern(r"pack-[0-9a-f]{40}(?:[0-9a-f]{24})?\.pack")
_PIECE = 1024 * 1024


@dataclass(slots=True)
class Copied:
    """What was copied this time; `problem` says why it is not all."""

    loose: int = 0
    packs: list[Path] = field(default_factory=list)  # without an index yet
    problem: str = ""
    bytes_left: int = MAX_BYTES
    files_left: int = MAX_FILES


def copy_objects(git: Path, objects: Path, skip: Collection[str] = ()) -> Copied:
    """Copy the loose objects and packs of a Git directory that `objects` does not have yet.

    `skip` names packs, without their ending, whose objects the host's repository has. OSError if
    the copy cannot be written, or if the Git directory is none.
    """
    copied = Copied()
    with root_of(git) as root:
        if kind_of(root, "objects") != stat.S_IFDIR:
            copied.problem = "its objects are not a directory"
            return copied
        for folder in _names(root, "objects"):
            if _FOLDER.fullmatch(folder):
                for name in _names(root, f"objects/{folder}"):
                    if _LOOSE.fullmatch(name):
                        copied.loose += _copy(root, f"{folder}/{name}", objects, copied)
        packs = set(_names(root, "objects/pack"))
        for name in sorted(packs):
            # Git writes the index last, so that a pack with one is complete.
            stem = name.removesuffix(".pack")
            complete = _PACK.fullmatch(name) and f"{stem}.idx" in packs and stem not in skip
            if complete and _copy(root, f"pack/{name}", objects, copied):
                copied.packs.append(objects / "pack" / name)
    return copied


def _names(root: int, name: str) -> list[str]:
    with suppress(OSError):
        return names_in(root, name)
    return []


def _copy(root: int, name: str, objects: Path, copied: Copied) -> bool:
    """Copy one file, unless it is there; the copy has its name when it is complete."""
    target = objects / name
    if target.exists():
        return False
    if copied.files_left <= 0 or copied.bytes_left <= 0:
        copied.problem = "it has more objects than are brought over at once"
        return False
    copied.files_left -= 1
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name("copying")
    try:
        with file_in(root, f"objects/{name}") as source, partial.open("wb") as out:
            complete = _copy_bytes(source, out, copied)
    except FileNotFoundError:
        return False  # packed meanwhile
    except OSError as error:
        copied.problem = f"{name}: {(error.strerror or '').lower()}"
        return False
    if complete:
        partial.rename(target)
    else:
        copied.problem = "its objects are larger than what is brought over at once"
        partial.unlink()
    return complete


def _copy_bytes(source: BinaryIO, out: BinaryIO, copied: Copied) -> bool:
    while copied.bytes_left > 0:
        piece = source.read(_PIECE)
        if not piece:
            return True
        out.write(piece)
        copied.bytes_left -= len(piece)
    return False
