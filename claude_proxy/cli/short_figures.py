"""Short figures for tables: sizes, durations and times in a few characters; pure."""

from datetime import UTC, datetime
from typing import Final

UNKNOWN: Final = "-"

_ENOUGH_DIGITS: Final = 1000
_FEW: Final = 10
_MINUTE_MS: Final = 60_000


def size_of(count: int) -> str:
    """Return a number of bytes in short form: "512", "1.5K", "23M"."""
    size, units = float(count), iter(("", "K", "M", "G", "T", "P"))
    unit = next(units)
    while size >= _ENOUGH_DIGITS and unit != "P":
        size, unit = size / 1024, next(units)
    return f"{size:.1f}{unit}" if unit and size < _FEW else f"{size:.0f}{unit}"


def duration_of(milliseconds: float) -> str:
    """Return a duration in short form: "12ms", "3.4s", "2m05s", "3h20m"."""
    if milliseconds < _ENOUGH_DIGITS:
        return f"{milliseconds:.0f}ms"
    if milliseconds < _MINUTE_MS:
        return f"{milliseconds / 1000:.1f}s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def local_time(time_ns: int) -> str:
    """Return a time as the reader's clock shows it: "2026-01-31 09:30:00"."""
    moment = _moment(time_ns)
    return UNKNOWN if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def local_clock(time_ns: int) -> str:
    """Return the time of day as the reader's clock shows it: "09:30:00"."""
    moment = _moment(time_ns)
    return UNKNOWN if moment is None else f"{moment:%H:%M:%S}"


def _moment(time_ns: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return None
