"""Refs of the host's repository, as one file of packed refs: quicker to write than many files.

Symbolic refs, of which there are few, have no place in it.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git.ref_names import is_object

_LEFT_OUT = "refs/claude-proxy/"  # what other runs have brought over


def packed_of(host: Path) -> tuple[bytes, dict[str, bytes]]:
    """Return all refs of a Git directory as packed refs, and the symbolic ones as files."""
    packed = b""
    with suppress(FileNotFoundError):
        packed = (host / "packed-refs").read_bytes()
    loose: dict[bytes, bytes] = {}
    symbolic: dict[str, bytes] = {}
    for name, text in _loose(host, "refs"):
        if is_object(text.strip().decode("ascii", "replace")):
            loose[os.fsencode(name)] = text.strip()
        elif text.startswith(b"ref: "):
            symbolic[name] = text
    if not loose:
        return packed, symbolic
    lines = [b"%s %s" % (at, name) for name, at in loose.items()]
    # Without a header, as these are neither sorted nor peeled.
    return b"\n".join([*_without(packed, loose), *lines, b""]), symbolic


def object_in(packed: bytes, name: str) -> str:
    """Return the object of a packed ref; empty if it is not among them."""
    line = b" %s\n" % os.fsencode(name)
    end = packed.find(line)
    begin = packed.rfind(b"\n", 0, end) + 1
    found = packed[begin:end].decode("ascii", "replace") if end >= 0 else ""
    return found if is_object(found) else ""


def _without(packed: bytes, names: dict[bytes, bytes]) -> Iterator[bytes]:
    """Yield the lines of packed refs, without those that have these names."""
    for line in packed.split(b"\n"):
        if line and line[:1] not in b"#^" and line.partition(b" ")[2] not in names:
            yield line


def _loose(host: Path, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        entries = list(os.scandir(host / name))
    except OSError:
        return
    for entry in entries:
        below = f"{name}/{entry.name}"
        if below.startswith(_LEFT_OUT) or f"{below}/" == _LEFT_OUT:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _loose(host, below)
        elif entry.is_file(follow_symlinks=False) and not below.endswith(".lock"):
            with suppress(OSError), open(entry.path, "rb") as file:  # noqa: PTH123 - of many
                yield below, file.read()
