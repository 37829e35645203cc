"""Logging to standard error: one line per message, no traceback unless it was asked for.

What clients did goes to the audit log; this is only about problems of the proxy itself.
"""

import contextlib
import json
import logging
import select
import sys
import time
import traceback
from typing import TextIO, override

from claude_proxy.config.settings import LogFormat, Verbosity

_LEVELS = {
    Verbosity.QUIET: logging.ERROR,
    Verbosity.NORMAL: logging.WARNING,
    Verbosity.VERBOSE: logging.DEBUG,
}


class _Formatter(logging.Formatter):
    """One line per record; the traceback of an internal error only with `tracebacks`."""

    def __init__(self, *, tracebacks: bool, as_json: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; text from outside must not send control codes to the terminal."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None and not self._tracebacks:
            text = f"{text} ({record.exc_info[0].__name__})"
        printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        if self._json:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
            return json.dumps({"ts": when, "level": record.levelname.lower(), "text": printable})
        line = f"claude-proxy: {record.levelname.lower()}: {printable}"
        if self._tracebacks and record.exc_info and record.exc_info[0] is not None:
            # The location and the type only: an exception's message may quote what a peer sent.
            frames = "".join(traceback.format_tb(record.exc_info[2]))
            line += f"\n{frames}{record.exc_info[0].__name__}"
        return line


class _Handler(logging.StreamHandler[TextIO]):
    """Writes a record, unless the terminal has been stopped: the event loop must not wait."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        write(self.stream, self.format(record) + "\n")


def configure(verbosity: Verbosity, log_format: LogFormat, *, tracebacks: bool = False) -> None:
    """Send the log of the program and of mitmproxy to standard error."""
    handler = _Handler(sys.stderr)
    as_json = log_format is LogFormat.JSON
    handler.setFormatter(_Formatter(tracebacks=tracebacks and not as_json, as_json=as_json))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[verbosity])
    # They quote what peers sent (secrets stay outside); the audit log has what matters.
    for noisy in ("asyncio", "h2", "hpack", "mitmproxy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def report(lines: list[str]) -> None:
    """Print several lines as one message; --quiet does not suppress them."""
    write(sys.stderr, "".join(f"claude-proxy: {line}\n" for line in lines))


def write(stream: TextIO, text: str) -> None:
    """Write lines, without ever waiting: what a stopped terminal or pipe does not take is lost."""
    with contextlib.suppress(OSError, ValueError):
        for line in text.splitlines(keepends=True):
            if not _takes_a_line(stream):
                return
            stream.write(line)
            stream.flush()


def _takes_a_line(stream: TextIO) -> bool:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return True  # it is no file
    return bool(select.select((), (descriptor,), (), 0)[1])
