"""Ref that keeps the commit a run began with, while the run lasts.

The run borrows the host's objects. If the host drops that commit and collects garbage meanwhile,
nothing of the run could be read any more.
"""

import os
from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.host_refs import object_in
from claude_proxy.sandbox.git.no_links import directory_in, root_of
from claude_proxy.sandbox.git.ref_names import is_object
from claude_proxy.sandbox.plan.git_facts import GitDirectory


def add(directory: GitDirectory, run: str) -> None:
    """Keep the commit that HEAD leads to."""
    for worktree in directory.worktrees[:1]:
        head = (directory.start / worktree / "HEAD").read_text("utf-8", "surrogateescape").strip()
        packed = (directory.start / "packed-refs").read_bytes()
        commit = head if is_object(head) else object_in(packed, head.removeprefix("ref: "))
        if commit:
            with suppress(OSError):  # a repository that only others may write has no use for it
                _write(directory.host, _name_for(run), commit)


def _write(host: Path, name: str, commit: str) -> None:
    """Write a loose ref, without following a link that an earlier run may have made."""
    above, _, last = name.rpartition("/")
    with root_of(host) as root:
        with suppress(FileExistsError), directory_in(root, "refs") as refs:
            os.mkdir(above.rpartition("/")[2], dir_fd=refs)
        with directory_in(root, above) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(last, flags, 0o644, dir_fd=directory)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - by descriptor
            file.write(f"{commit}\n")


def remove(host: Path, run: str) -> None:
    """Remove the ref, wherever the host has moved it meanwhile."""
    name = _name_for(run)
    with suppress(OSError), root_of(host) as root:
        with directory_in(root, name.rpartition("/")[0]) as directory:
            os.unlink(name.rpartition("/")[2], dir_fd=directory)
        with directory_in(root, "refs") as refs:
            os.rmdir("claude-proxy", dir_fd=refs)
    with suppress(OSError):
        if name.encode() in (host / "packed-refs").read_bytes():
            HostGit(host).run("update-ref", "-d", name)


def _name_for(run: str) -> str:
    # No run has "@" in its name, and "~" is not allowed in that of a ref.
    return f"refs/claude-proxy/{run.replace('~', '@')}@start"
