"""Ref that keeps the commit a run began with, while the run lasts.

The run borrows the host's objects. If the host drops that commit and collects garbage meanwhile,
nothing of the run could be read any more.
"""

from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.host_refs import object_in
from claude_proxy.sandbox.git.ref_names import is_object
from claude_proxy.sandbox.plan.git_facts import GitDirectory


def add(directory: GitDirectory, run: str) -> None:
    """Keep the commit that HEAD leads to; OSError if the host's repository cannot be written."""
    for worktree in directory.worktrees[:1]:
        head = (directory.start / worktree / "HEAD").read_text("utf-8", "surrogateescape").strip()
        packed = (directory.start / "packed-refs").read_bytes()
        commit = head if is_object(head) else object_in(packed, head.removeprefix("ref: "))
        if commit:
            path = directory.host / _name_for(run)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{commit}\n")


def remove(host: Path, run: str) -> None:
    """Remove the ref, wherever the host has moved it meanwhile."""
    name = _name_for(run)
    with suppress(OSError):
        (host / name).unlink()
    with suppress(OSError):
        (host / name).parent.rmdir()
    with suppress(OSError):
        if name.encode() in (host / "packed-refs").read_bytes():
            HostGit(host).run("update-ref", "-d", name)


def _name_for(run: str) -> str:
    # No run has "@" in its name, and "~" is not allowed in that of a ref.
    return f"refs/claude-proxy/{run.replace('~', '@')}@start"
