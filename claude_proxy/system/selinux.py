"""SELinux: whether this machine enforces it, so that what a container sees needs a label."""

from pathlib import Path

_ENFORCE = Path("/sys/fs/selinux/enforce")


def is_enforced(file: Path = _ENFORCE) -> bool:
    """Return whether it is enforced; `file` is where the kernel says so."""
    try:
        return file.read_bytes().strip() == b"1"
    except OSError:
        return False
