"""Git directories of a run's own, mounted over those of the host; pure.

Law kept: the sandbox cannot move its own wall. Git writes by lock and rename, so a protected file
in a shared Git directory would not stay protected. Here nothing of the host's Git directories is
writable inside: objects and hooks are shown read-only, all else is a copy of the run's own.
"""

from collections.abc import Callable
from pathlib import Path

from claude_proxy.sandbox.plan.git_facts import GitMounts, ObjectStore
from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.mount_layout import Layout

_COVERS = Path("/run/claude-proxy/git-links")


def add_git_mounts(layout: Layout, git: GitMounts, refuse: Callable[[Path], None]) -> None:
    """Add the mounts; `refuse` raises for a path that must not be shown."""
    for number, store in enumerate(git.stores):
        refuse(store.path)
        _add_store(layout, number, store)
    for directory in git.directories:
        refuse(directory.host)
        if not directory.within:
            layout.pin_above(directory.host)
            layout.put(Mount(MountKind.WRITE, directory.host, directory.private))
        if directory.hooks is not None:
            layout.put(Mount(MountKind.READ, directory.host / "hooks", directory.hooks))
    for number, (link, target) in enumerate(git.links):
        layout.pin_above(link)
        layout.add_file(cover_of(number), f"gitdir: {target}\n".encode("utf-8", "surrogateescape"))
    for file in git.files:
        if layout.is_written(file):
            layout.pin_above(file)
            layout.put(Mount(MountKind.READ, file, file))


def cover_of(number: int) -> Path:
    """Return the file inside that covers a `.git` link: it names the directory instead."""
    return _COVERS / str(number)


def _add_store(layout: Layout, number: int, store: ObjectStore) -> None:
    at = ObjectStore.inside(number)
    layout.put(Mount(MountKind.READ, at, store.path))
    if store.has_alternates:
        # They are shown as stores of their own; their paths lead nowhere inside.
        layout.cover_file(at / "info/alternates", b"")
    if store.lfs is not None:
        # git-lfs looks for its objects beside each alternate.
        layout.put(Mount(MountKind.READ, at.with_name("lfs"), store.lfs))
