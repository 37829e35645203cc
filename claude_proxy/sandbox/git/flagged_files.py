"""Files of a change that deserve the first look: what runs, what tools obey, what leads away; pure.

Law kept: nothing that is obeyed outside comes over unseen. A file is judged by its name and mode
alone, wherever in the tree it is.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from claude_proxy.sandbox.git.work_tree import EXECUTABLE, GITLINK, LINK
from claude_proxy.sandbox.plan import obeyed_files

_NONE = "000000"
_BARE = frozenset({"HEAD", "config", "commondir"})


def reasons(path: str, old_mode: str, new_mode: str, *, link: str = "") -> Iterator[str]:
    """Yield why a changed file should be looked at first; nothing if it was removed."""
    if new_mode == _NONE:
        return
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    if new_mode == EXECUTABLE and old_mode != EXECUTABLE:
        yield "new executable" if old_mode == _NONE else "has become executable"
    if new_mode == LINK:
        yield f"symbolic link to {link}" if link else "symbolic link"
    if new_mode == GITLINK:
        yield "a repository of its own (gitlink)"
    if tool := _tool_of(parts):
        yield f"obeyed outside by {tool}"
    elif name in _BARE:
        yield "makes a directory look like a repository of git"


def _tool_of(parts: tuple[str, ...]) -> str:
    """Return the name of a tool that obeys a file, or everything in a directory above it."""
    above = ["/".join(parts[:depth]) for depth in range(len(parts))]
    found = obeyed_files.obeying(above[-1], parts[-1]) if parts else None
    for directory, name in zip(above, parts[:-1], strict=False):
        found = found or obeyed_files.obeying_all_in(directory, name)
    return "" if found is None else found.name
