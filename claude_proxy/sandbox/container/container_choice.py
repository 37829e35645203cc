"""Choice of a container where none is named: the only one, or that of this directory; pure.

Law kept: nothing is guessed: where several could be meant, the error names them all.
"""

from collections.abc import Sequence
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.store import StoredContainer


def choose(found: Sequence[StoredContainer], directory: Path, *, what: str) -> StoredContainer:
    """Return the container that is meant in `directory`; ClaudeProxyError if that is not clear.

    `what` says which ones were looked at, as in "container" or "running container".
    """
    if not found:
        raise ClaudeProxyError(
            f"there is no {what}",
            where="NAME was left out",
            fix="see `claude-proxy container list`; make one: claude-proxy container run "
            "--image IMAGE -- CMD",
        )
    if len(found) == 1:
        return found[0]
    for here in (_of(directory, found), _around(directory, found)):
        if len(here) == 1:
            return here[0]
    raise ClaudeProxyError(
        f"there are {len(found)} {what}s, and NAME was left out",
        where=", ".join(sorted(one.name for one in found)),
        fix="name one, or go into the directory that only one of them shows",
    )


def _of(directory: Path, found: Sequence[StoredContainer]) -> list[StoredContainer]:
    return [one for one in found if directory == Path(one.project)]


def _around(directory: Path, found: Sequence[StoredContainer]) -> list[StoredContainer]:
    return [one for one in found if directory.is_relative_to(one.project)]
