"""Mount sources: device and inode of what a plan shows, compared with what bwrap has mounted.

Laws kept: no quiet downgrade, secrets stay outside. A plan is judged by paths without symbolic
links, and bwrap mounts by path. In between, an agent of another run, in whose project this one's
directory is, can replace that directory with a link to something that it must not see. So each
source is opened where it was judged, without following a link, and kept open: its inode number
cannot be given to another file meanwhile. What bwrap has mounted must be the same file.

Not handed to bwrap as descriptors: the kernel mounts only what was opened in the namespace of the
mount, so bwrap's own --bind-fd (since 0.10) mounts by path and compares as well.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.bubblewrap import mountinfo
from claude_proxy.sandbox.plan.model import FileId, SandboxPlan
from claude_proxy.system import file_shortage

_PATHS_SHOWN = 5
_ENDED = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # for a process that exits or has exited
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class MountSources:
    """The files that the mounts of one plan show, held open until they have been compared."""

    def __init__(self, descriptors: Mapping[Path, int]) -> None:
        self._descriptors = dict(descriptors)

    @classmethod
    def opened(cls, planned: SandboxPlan, project: FileId | None = None) -> Self:
        """Open the source of each mount; ClaudeProxyError if one is not where it was judged.

        `project` is the project's directory as it was when the run began.
        """
        self = cls({})
        try:
            for mount in planned.mounts:
                if mount.shows:
                    self._descriptors[mount.at] = _held(Path(str(mount.source)))
            if project is not None:
                self._refuse_other(planned.project, project)
        except BaseException:
            self.close()
            raise
        return self

    def _refuse_other(self, at: Path, expected: FileId) -> None:
        if at not in self._descriptors or file_id(self._descriptors[at]) != expected:
            raise _replaced(at)

    def check(
        self, init: int, below: Path = Path("/"), opened: Callable[[], None] = lambda: None
    ) -> None:
        """Compare with the mounts of the sandbox whose first process is `init`; then close.

        `below` is where its root is, as that process sees it; `opened` is called once that is open,
        before it is searched. Raises ClaudeProxyError if something
        else is mounted. Call it before COMMAND is released.
        """
        try:
            places = list(self._differing(init, below, opened))
        finally:
            self.close()
        if places:
            raise _replaced(*places)

    def _differing(self, init: int, below: Path, opened: Callable[[], None]) -> Iterator[Path]:
        # A planned path that is behind a link has no mount of its own (see mountinfo).
        try:
            mounted = mountinfo.places_in(Path(f"/proc/{init}/mountinfo").read_bytes())
            root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _ENDED:
                return  # it runs nothing any more, and the runner reports its end
            raise _replaced(Path("/")) from error
        try:
            opened()
            for at, held in self._descriptors.items():
                place = below / at.relative_to("/")
                if place in mounted and not _is_same(held, place, root):
                    yield at
        finally:
            os.close(root)

    def close(self) -> None:
        """Let go of the files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def file_id(path: Path | int) -> FileId:
    """Return what tells a file from every other one; OSError if there is none."""
    found = os.stat(path)  # noqa: PTH116 - of a descriptor as well
    return FileId(found.st_dev, found.st_ino)


def refuse_replaced(path: Path, expected: FileId) -> None:
    """Raise ClaudeProxyError if another file is at a path by now."""
    with suppress(OSError):
        if file_id(path) == expected:
            return
    raise _replaced(path)


def _held(source: Path) -> int:
    """Return a descriptor of what is at a path without symbolic links, at exactly that path."""
    try:
        descriptor = os.open(source, _HOLD)
    except OSError as error:
        raise _replaced(source) from error
    is_link = stat.S_ISLNK(os.fstat(descriptor).st_mode)
    if is_link or _path_of(descriptor) != str(source):  # a link was on the way
        os.close(descriptor)
        raise _replaced(source)
    return descriptor


def _is_same(held: int, at: Path, root: int) -> bool:
    try:
        descriptor = os.open(str(at).lstrip("/") or ".", _HOLD, dir_fd=root)
        try:
            # By its path, as an absolute link inside would have led to a file of the host.
            return _path_of(descriptor) == str(at) and file_id(descriptor) == file_id(held)
        finally:
            os.close(descriptor)
    except OSError as error:
        if file_shortage.is_shortage(error):
            raise  # nothing was found out
    return False


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - as the kernel writes it


def _replaced(*places: Path) -> ClaudeProxyError:
    return ClaudeProxyError(
        "this was replaced or removed while the run started; nothing was run",
        where=", ".join(map(str, places[:_PATHS_SHOWN])),
        fix="if another run may write there, end it; then try again",
    )
