"""Guarded entries: directory entries of the host on which the protection of a sandbox is mounted.

The kernel takes such a mount away when a program outside replaces the entry. These functions find
which protection is gone and mount it again, in the sandbox's mount namespace, while everything
inside is stopped.

Law kept: nothing that an agent made is obeyed. No link is followed, only regular files and
directories are opened, and of these no more is read than a limit.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from claude_proxy.sandbox.bubblewrap import mount_calls

READ, HIDE, PIN, OWN = "read", "hide", "pin", "own"

type _Update = Callable[[bytes], None]

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PATIENCE_S = 2.0
_SECOND_NAME_PATIENCE_S = 0.1  # some editors save by link(2) and unlink(2)
_PAUSE_S = 0.001
_MOST_BYTES = 1 << 20
_MOST_FILES = 500


class UnprotectableError(Exception):
    """Protection cannot be put back; `at` is the path, and the text says why."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(why)
        self.at = at


class Entry:
    """One entry: `names` lead to it from `base`, a mount that no program outside can take away.

    `kind` says what is mounted: the entry itself, read-only (READ) or writable (PIN: it keeps a
    directory from being renamed inside), an empty cover (HIDE), or something else (OWN).
    """

    __slots__ = ("at", "base", "kind", "known", "names", "spare")

    def __init__(self, kind: str, base: str, at: str) -> None:
        self.kind = kind
        self.base = base
        self.at = at
        self.names = at[len(base) :].strip("/").split("/")
        self.known: set[bytes | None] = set()  # digests of contents that it had
        self.spare: int | None = None  # OWN: a copy of the mount


class Found:
    """An entry as it is now, by descriptors; close it."""

    __slots__ = ("entry", "parent")

    def __init__(self, parent: int, entry: int) -> None:
        self.parent = parent
        self.entry = entry

    def is_mount(self) -> bool:
        """Tell whether something is mounted on it: no process inside can mount anything."""
        return mount_calls.mount_of(self.entry) != mount_calls.mount_of(self.parent)

    def is_protected(self, kind: str) -> bool:
        """Tell whether what the kind asks for is mounted on it."""
        return self.is_mount() and (kind in {PIN, OWN} or mount_calls.is_read_only(self.entry))

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.entry)
        os.close(self.parent)


class GuardedEntries:
    """All guarded entries of one sandbox; made in its mount namespace, before COMMAND starts."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._bases = {base: os.open(base, _PATH) for base in {entry.base for entry in entries}}
        self.entries = sorted(entries, key=lambda entry: len(entry.names))
        self.entries = [entry for entry in self.entries if self._is_expected(entry)]
        for entry in self.entries:
            if entry.kind == OWN and (found := self.find(entry)) is not None:
                try:
                    entry.spare = mount_calls.clone(found.entry)
                except OSError:  # before Linux 5.2: a replacement ends the run
                    entry.spare = None
                finally:
                    found.close()

    def _is_expected(self, entry: Entry) -> bool:
        """Tell whether its directory exists: what may appear in one that a run makes is the run's.

        What is to be hidden is expected anywhere.
        """
        parent = self.parent_of(entry)
        if parent is None:
            return entry.kind == HIDE
        os.close(parent)
        return True

    def one_for_each_directory(self) -> list[Entry]:
        """Return one entry for each directory that holds some, and for those above it."""
        found: dict[tuple[str, ...], Entry] = {}
        for entry in self.entries:
            for depth in range(1, len(entry.names) + 1):
                at = "/".join([entry.base.rstrip("/"), *entry.names[:depth]])
                directory = (entry.base, *entry.names[: depth - 1])
                if directory not in found:
                    found[directory] = Entry(PIN, entry.base, at)
        return list(found.values())

    def find(self, entry: Entry) -> Found | None:
        """Return an entry, without following any link; None if it does not exist."""
        parent = self.parent_of(entry)
        if parent is None:
            return None
        try:
            return Found(parent, os.open(entry.names[-1], _PATH, dir_fd=parent))
        except OSError:
            os.close(parent)
            return None

    def parent_of(self, entry: Entry) -> int | None:
        """Return a descriptor of the directory that holds an entry; None if there is none."""
        here = os.dup(self._bases[entry.base])
        for name in entry.names[:-1]:
            try:
                below = os.open(name, _PATH | os.O_DIRECTORY, dir_fd=here)
            except OSError:
                return None
            finally:
                os.close(here)
            here = below
        return here

    def unprotected(self) -> list[Entry]:
        """Return the entries that exist and on which nothing is mounted, the deepest first."""
        return [entry for entry in reversed(self.entries) if self._is_bare(entry)]

    def _is_bare(self, entry: Entry) -> bool:
        found = self.find(entry)
        if found is None:
            return False
        try:
            return not found.is_protected(entry.kind)
        finally:
            found.close()

    def protect(self, entry: Entry) -> None:
        """Mount the protection of an entry again; UnprotectableError if that fails.

        The deepest entries come first: a directory is mounted with what is mounted below it, so
        that a process that has it open in either mount meets the same protection.
        """
        began = time.monotonic()
        error = "it is replaced faster than it can be protected"
        while time.monotonic() < began + _PATIENCE_S:
            found = self.find(entry)
            if found is None:
                return
            try:
                if found.is_protected(entry.kind):
                    return
                status = os.fstat(found.entry)
                if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    raise UnprotectableError(entry.at, _what(status))
                if _has_second_name(status) and entry.kind in {READ, HIDE}:
                    if time.monotonic() > began + _SECOND_NAME_PATIENCE_S:
                        raise UnprotectableError(entry.at, "it has a second name (a hard link)")
                    time.sleep(_PAUSE_S)
                    continue
                self._mount(entry, found)
            except OSError as failure:  # replaced again, or the kernel refuses
                error = failure.strerror or "the kernel refuses"
                time.sleep(_PAUSE_S)
            finally:
                found.close()
        raise UnprotectableError(entry.at, error.lower())

    def _mount(self, entry: Entry, found: Found) -> None:
        if entry.kind == HIDE:
            mount_calls.hide(found.entry)
        elif entry.kind == OWN:
            self._mount_spare(entry, found)
            return
        else:
            mount_calls.bind_to_itself(found.entry, whole=entry.kind == PIN)
        if entry.kind == PIN:
            return
        again = self.find(entry)
        if again is None:
            return
        try:
            # If it was replaced in between, this is no mount, and the caller looks again.
            if again.is_mount() and not mount_calls.is_read_only(again.entry):
                mount_calls.make_read_only(again.entry)
        finally:
            again.close()

    def _mount_spare(self, entry: Entry, found: Found) -> None:
        if entry.spare is None:
            raise UnprotectableError(entry.at, "what was mounted on it is gone")
        mount_calls.attach(entry.spare, found.entry)
        os.close(entry.spare)
        entry.spare = None
        again = self.find(entry)
        if again is not None:
            try:
                entry.spare = mount_calls.clone(again.entry) if again.is_mount() else None
            finally:
                again.close()

    def learn_content(self, entry: Entry) -> bool:
        """Note what an entry contains now; return whether it contained the same before."""
        digest = self._digest_of(entry)
        known = digest is not None and digest in entry.known
        entry.known.add(digest)
        return known

    def _digest_of(self, entry: Entry) -> bytes | None:
        """Return a digest of the content; None if it is too large, or is not to be read."""
        found = self.find(entry) if entry.kind == READ else None
        if found is None:
            return None
        try:
            return digest_of(found.entry)
        finally:
            found.close()

    def mounts(self, entry: Entry) -> Iterator[tuple[str, int]]:
        """Yield the path of each directory on the way to an entry, and the mount that it is on.

        The entry itself comes last. Directories are named as a process inside sees them.
        """
        here = os.dup(self._bases[entry.base])
        at = entry.base.rstrip("/")
        try:
            for name in entry.names:
                below = os.open(name, _PATH, dir_fd=here)
                os.close(here)
                here = below
                at = f"{at}/{name}"
                yield at, mount_calls.mount_of(here)
        except OSError:
            return
        finally:
            os.close(here)


def _has_second_name(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1


def _what(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link now, which cannot be protected"
    return "it is neither a file nor a directory now"


def digest_of(entry: int) -> bytes | None:
    """Return a digest of a file or of all that is in a directory; None if that is too much."""
    digest = hashlib.sha256()
    budget = _Budget()
    try:
        _add(digest.update, entry, budget)
    except (OSError, OverflowError):
        return None
    return digest.digest()


class _Budget:
    """How much more may be read."""

    def __init__(self) -> None:
        self.bytes = _MOST_BYTES
        self.files = _MOST_FILES

    def take(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise OverflowError

    def take_file(self) -> None:
        self.files -= 1
        if self.files < 0:
            raise OverflowError


def _add(update: _Update, entry: int, budget: _Budget) -> None:
    budget.take_file()
    status = os.fstat(entry)
    update(b"%o %d\0" % (status.st_mode, status.st_nlink if stat.S_ISREG(status.st_mode) else 0))
    if stat.S_ISLNK(status.st_mode):
        update(os.fsencode(os.readlink("", dir_fd=entry)))
    elif stat.S_ISREG(status.st_mode):
        _add_file(update, entry, budget)
    elif stat.S_ISDIR(status.st_mode):
        directory = os.open(f"self/fd/{entry}", _READ | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(directory)):  # noqa: PTH208 - of a descriptor
                update(os.fsencode(name) + b"\0")
                below = os.open(name, _PATH, dir_fd=directory)
                try:
                    _add(update, below, budget)
                finally:
                    os.close(below)
        finally:
            os.close(directory)


def _add_file(update: _Update, entry: int, budget: _Budget) -> None:
    descriptor = os.open(f"self/fd/{entry}", _READ)
    try:
        while piece := os.read(descriptor, 1 << 16):
            budget.take(len(piece))
            update(piece)
    finally:
        os.close(descriptor)
