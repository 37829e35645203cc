"""Record of a run's private Git directories: what they belong to, and what has been brought over.

Whether a run is alive depends on a lock that its launcher holds on the record, never on a process
id: the kernel releases it however the launcher ends. The record and its neighbours are in the state
directory, where no sandbox sees them.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.git.ref_moves import Known
from claude_proxy.sandbox.plan.git_facts import GitDirectory

FOLDER = "repositories"  # in the state directory

_RECORD = "record"
_BRINGING = "lock"


@dataclass(frozen=True, slots=True)
class Record:
    """A run with private Git directories."""

    run: str
    project: Path
    place: Path
    directories: tuple[GitDirectory, ...]


def create(record: Record) -> int:
    """Write the record into a new directory; return its locked descriptor (OSError)."""
    record.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Renamed when it is locked: an unlocked record is that of a run that has ended.
    new = record.place.with_name(f".{record.place.name}.{os.getpid()}")
    new.mkdir(mode=0o700)
    descriptor = os.open(new / _RECORD, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, json.dumps(_to_json(record)).encode())
    new.rename(record.place)
    return descriptor


def dead(statedir: Path) -> Iterator[tuple[Record, int]]:
    """Yield the records of runs that have ended, each with the descriptor that locks it."""
    with suppress(OSError):
        for place in sorted((statedir / FOLDER).iterdir()):
            descriptor = -1
            with suppress(OSError, ValueError, KeyError, TypeError):
                descriptor = os.open(place / _RECORD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                record = _from_json(place, json.loads(text))
                kept, descriptor = descriptor, -1
                yield record, kept
            if descriptor >= 0:
                os.close(descriptor)


def read(place: Path) -> Record:
    """Return the record in a directory; OSError or ValueError if there is none."""
    return _from_json(place, json.loads((place / _RECORD).read_bytes()))


@contextmanager
def bringing(place: Path) -> Iterator[None]:
    """Let one process at a time bring over what is in a directory."""
    descriptor = os.open(place / _BRINGING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _to_json(record: Record) -> Mapping[str, object]:
    return {
        "run": record.run,
        "project": str(record.project),
        "directories": [
            {
                "host": str(one.host),
                "private": str(one.private.relative_to(record.place)),
                "start": str(one.start.relative_to(record.place)),
                "worktrees": list(one.worktrees),
            }
            for one in record.directories
        ],
    }


def _from_json(place: Path, found: Mapping[str, object]) -> Record:
    directories = found["directories"]
    if not isinstance(directories, list):
        raise TypeError("directories is not a list")
    return Record(
        str(found["run"]),
        Path(str(found["project"])),
        place,
        tuple(
            GitDirectory(
                Path(one["host"]),
                place / one["private"],
                place / one["start"],
                worktrees=tuple(one["worktrees"]),
            )
            for one in directories
        ),
    )


# What has been brought over so far


@dataclass(frozen=True, slots=True)
class Progress:
    """What both sides had in common at the last time; empty if it was never brought over."""

    heads: Mapping[str, str]
    last: Mapping[str, str] | None

    def known(self, start: Known, worktree: str) -> Known:
        """Return what both sides have in common now."""
        last = start.last if self.last is None else self.last
        return Known(self.heads.get(worktree, start.head), start.start, last)


def progress_of(directory: GitDirectory) -> Progress:
    """Return what has been brought over of a private directory."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads(_progress_file(directory).read_bytes())
        return Progress(found["heads"], found["last"])
    return Progress({}, None)


def note_progress(directory: GitDirectory, progress: Progress) -> None:
    """Write it down (OSError)."""
    path = _progress_file(directory)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps({"heads": dict(progress.heads), "last": progress.last}))
    new.replace(path)


def _progress_file(directory: GitDirectory) -> Path:
    return directory.start / "brought"
