"""The option --since: an age, a day or a time, read into nanoseconds since 1970."""

import time
from datetime import datetime, timedelta
from typing import Any, Final, override

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.errors import ConfigError

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DAYS_AGO: Final = {"today": 0, "yesterday": 1}


class Since(click.ParamType[int]):
    """An age ("90s", "30m", "1h", "2d", "1w"), a day ("today", "yesterday") or an ISO 8601 time.

    A day begins at midnight where the reader is, and a time without an offset is a local one.
    """

    name = "since"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_since(value, time.time_ns())
        except (ValueError, OverflowError):
            raise ConfigError(
                f'"{escape_text(value)}" is neither an age nor a time',
                where="--since or CLAUDE_PROXY_LOG_SINCE",
                fix="use a form like 90s, 2h, 2d, today, yesterday, 2026-01-31 or 2026-01-31T09:30",
            ) from None


def parse_since(text: str, now_ns: int) -> int:
    """Return the time that `text` means, in nanoseconds since 1970; raise ValueError."""
    unit = _UNITS_S.get(text[-1:])
    if unit is not None and text[:-1].isascii() and text[:-1].isdecimal():
        moment_ns = now_ns - int(text[:-1]) * unit * 1_000_000_000
    elif (days := _DAYS_AGO.get(text.lower())) is not None:
        here = datetime.fromtimestamp(now_ns // 1_000_000_000).astimezone()
        day = here.date() - timedelta(days=days)
        # Not 24 hours before midnight: a day may have 23 or 25.
        moment = datetime(day.year, day.month, day.day).astimezone()
        moment_ns = round(moment.timestamp()) * 1_000_000_000
    else:
        # Without an offset it is local time, as in the table.
        moment = datetime.fromisoformat(text).astimezone()
        moment_ns = round(moment.timestamp() * 1e6) * 1000
    return max(0, moment_ns)
