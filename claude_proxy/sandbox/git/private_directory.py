"""Private Git directory of a run: copied from the host's, without its objects, hooks and logs.

Law kept: the sandbox cannot move its own wall. What the run writes into it is obeyed only inside.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git.host_refs import packed_of
from claude_proxy.sandbox.git.ref_names import STASH
from claude_proxy.sandbox.plan.git_facts import GitDirectory, ObjectStore

_TREES = ("info", "rebase-merge", "rebase-apply", "sequencer", "rr-cache")
_LEFT_OUT = (".lock", ".pid", ".ipc", ".sock")
_NOT_NEEDED = {"packed-refs", "description", "COMMIT_EDITMSG", "gitk.cache"}


def make(directory: GitDirectory) -> None:
    """Create the private directory; OSError if it cannot be written."""
    host, private = directory.host, directory.private
    private.mkdir(mode=0o700, parents=True)
    _copy_files(host, private)
    for name in _TREES:
        _copy_tree(host / name, private / name)
    packed, symbolic = packed_of(host)
    (private / "refs/heads").mkdir(parents=True)
    for name, text in symbolic.items():
        (private / name).parent.mkdir(parents=True, exist_ok=True)
        (private / name).write_bytes(text)
    (private / "packed-refs").write_bytes(packed)
    for name in filter(None, directory.worktrees):
        (private / name).mkdir(parents=True)
        _copy_files(host / name, private / name)
        for tree in (*_TREES, "refs"):
            _copy_tree(host / name / tree, private / name / tree)
    stashes = host / "logs" / STASH
    if stashes.is_file():
        _copy_file(stashes, private / "logs" / STASH)
    (private / "hooks").mkdir(exist_ok=True)
    info = private / "objects/info"
    info.mkdir(parents=True)
    stores = "".join(f"{ObjectStore.inside(number)}\n" for number in directory.stores)
    (info / "alternates").write_text(stores)
    (private / "objects/pack").mkdir()
    _keep_start(directory)


def _keep_start(directory: GitDirectory) -> None:
    private, start = directory.private, directory.start
    start.mkdir(mode=0o700, parents=True)
    for name in ("HEAD", "packed-refs", *(f"{tree}/HEAD" for tree in directory.worktrees if tree)):
        with suppress(FileNotFoundError):
            _copy_file(private / name, start / name)
    _copy_tree(private / "logs", start / "logs")


def _copy_files(host: Path, private: Path) -> None:
    for entry in os.scandir(host):
        left_out = entry.name in _NOT_NEEDED or entry.name.endswith(_LEFT_OUT)
        if entry.is_file() and not left_out:
            with suppress(FileNotFoundError):  # replaced at this moment
                _copy_file(Path(entry.path), private / entry.name)


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file with its time, by which git tells which entries of an index it may trust."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.name == "HEAD" and source.is_symlink():
        target.write_text(f"ref: {os.readlink(source)}\n")  # noqa: PTH115 - a name of a ref
        return
    shutil.copyfile(source, target)
    found = source.stat()
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_tree(source: Path, target: Path) -> None:
    """Copy plain files and directories; links and locks are left out."""
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError:
        return
    target.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _copy_tree(Path(entry.path), target / entry.name)
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_LEFT_OUT):
            with suppress(FileNotFoundError):
                shutil.copyfile(entry.path, target / entry.name)
