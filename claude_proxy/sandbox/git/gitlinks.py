"""Gitlinks that a run has committed: directories that are commits of other repositories.

`git submodule update` fetches what they name, from where `.gitmodules` says, and Git looks into a
repository that is there.
"""

from collections.abc import Iterator
from pathlib import Path

from claude_proxy.sandbox.git.bring_over import BroughtOver
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.ref_names import short_name

_MODE = b"160000"  # gitlink, in a tree
_SHOWN = 5
_MOST_REFS = 20
_PATIENCE_S = 20.0


def lines_of_gitlinks(done: BroughtOver, host: Path) -> Iterator[str]:
    """Yield a line for each ref whose commits have gitlinks that those at the start had not."""
    git = HostGit(host)
    start = done.known.start
    first = start.get(done.known.head) or next(iter(start.values()), "")
    now = {**done.known.last, **{ref.name: ref.object for ref in done.refs if not ref.failed}}
    changed = {name: object_ for name, object_ in now.items() if start.get(name) != object_}
    for name in sorted(changed)[:_MOST_REFS]:
        found = new_gitlinks(git, start.get(name, first), changed[name])
        if found:
            more = f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
            yield (
                f"warning: this run committed submodules (gitlinks) on {_shown(short_name(name))}: "
                f"{', '.join(map(_shown, found[:_SHOWN]))}{more}; check .gitmodules, and what is "
                "in them, before you run git submodule"
            )


def new_gitlinks(git: HostGit, old: str, new: str) -> list[str]:
    """Return the paths of gitlinks in one commit that another has not, or has as another commit."""
    compare = ("diff-tree", "-r", "-z", "--raw", "--no-renames", "--ignore-submodules=none")
    words = (*compare, old, new) if old else ("ls-tree", "-r", "-z", new)
    answer = git.run(*words, patience_s=_PATIENCE_S)
    if not answer.ok:
        return []
    parts = answer.out.split(b"\0")
    if not old:
        rows = [part.partition(b"\t") for part in parts]
        return [_text(path) for head, _, path in rows if head.startswith(_MODE)]
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return [_text(path) for head, path in pairs if head.split(b" ")[1:2] == [_MODE]]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
