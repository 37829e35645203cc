"""File stamps: whether a file is still the one that was read, without reading it again."""

from pathlib import Path

type FileStamp = tuple[int, ...]


def stamp_of_file(path: Path) -> FileStamp | None:
    """Return the state of a file or link, None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    # The change time also shows a new owner or mode.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
