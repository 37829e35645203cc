"""States of the owner's files, by which a change is noticed without reading them.

Imports nothing that reads a policy: what watches the files does so from the start.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from claude_proxy.config.strict_yaml.file_text import MAX_BYTES

POLICIES = "policies"  # in the directory of the configuration
PRESETS = "presets"

type Fingerprint = tuple[int, ...]
type States = dict[Path, Fingerprint]

ABSENT: Fingerprint = (0, 0, 0, 0, 0)  # of a file that is not there, or cannot be looked at


def fingerprint(path: Path) -> Fingerprint:
    """Return the state of a file; one that cannot be looked at has a state of its own."""
    try:
        return fingerprint_of(path.stat())
    except OSError:
        return ABSENT


def fingerprint_of(found: os.stat_result) -> Fingerprint:
    """Return the state of a file that was looked at."""
    # The change time also shows what restores the modification time, and a new owner or mode.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def arrived_whole(before: Fingerprint, now: Fingerprint) -> bool:
    """Tell whether another file was renamed to the path, and so was complete when it came.

    A rename changes the change time of a file, writing sets both times. What was written and
    renamed within one tick of the file system's clock looks like a new file that is being written.
    """
    return is_another(before, now) and now[4] > now[3]


def is_another(before: Fingerprint, now: Fingerprint) -> bool:
    """Tell whether another file is at the path."""
    return now != ABSENT and now[:2] != before[:2]


def digest(path: Path) -> bytes | None:
    """Return the digest of what is in a file now; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return sha256(file.read(MAX_BYTES + 1)).digest()
    except OSError:
        return None


def changed(states: Mapping[Path, Fingerprint]) -> bool:
    """Tell whether a file is in another state than the one given."""
    return any(fingerprint(path) != state for path, state in states.items())
