"""File marks: a header that shows whether claude-proxy wrote a file and whether it was changed.

Without --force, a file that somebody else wrote or changed is neither overwritten nor removed.
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
    """The content of a file's header."""

    version: str
    words: tuple[str, ...]  # the arguments of the `claude-proxy` command that wrote it
    changed: bool  # the file has been changed since
    text: str  # the text below the mark


def marked(text: str, version: str, words: tuple[str, ...]) -> str:
    """Return `text` below a header that names the command that wrote it."""
    command = refuse_control(shlex.join(("claude-proxy", *words)))
    return (
        f"# Written by claude-proxy {version}: {command}\n"
        f"# sha256 of the lines below: {_digest(text)}\n{text}"
    )


def read_mark(text: str) -> Mark | None:
    """Return the mark of a file; None if claude-proxy did not write it."""
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
