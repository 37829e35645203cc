"""Marks a file as written by claude-proxy, so that it can be told later whether it still is.

Law kept: what somebody else has written, or changed, is not taken away from them unasked.
"""

import hashlib
import re
import shlex
from dataclasses import dataclass

from claude_proxy.server.service.quoting import refuse_control

_MARK = re.compile(
    r"# Written by claude-proxy (?P<version>\S+): (?P<command>[^\n]*)\n"
    r"# sha256 of the lines below: (?P<digest>[0-9a-f]{64})\n"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the head of a file says of where it came from."""

    version: str
    words: tuple[str, ...]  # the arguments of `claude-proxy` that it was written by
    changed: bool  # the file is no longer what was written
    text: str  # what is below the mark


def marked(text: str, version: str, words: tuple[str, ...]) -> str:
    """Return `text` below a head that names the command by which it was written."""
    command = refuse_control(shlex.join(("claude-proxy", *words)))
    return (
        f"# Written by claude-proxy {version}: {command}\n"
        f"# sha256 of the lines below: {_digest(text)}\n{text}"
    )


def read_mark(text: str) -> Mark | None:
    """Return what the head of a file says; None if it was not written by claude-proxy."""
    found = _MARK.match(text)
    if found is None:
        return None
    try:
        words = tuple(shlex.split(found["command"])[1:])
    except ValueError:
        return None
    rest = text[found.end() :]
    return Mark(found["version"], words, _digest(rest) != found["digest"], rest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
