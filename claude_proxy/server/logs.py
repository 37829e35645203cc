"""Sets up what the proxy says about itself on standard error: one line each, no traceback.

What clients did is the audit log's business; here are only the proxy's own troubles.
"""

import json
import logging
import sys
import time
import traceback

from claude_proxy.config.settings import LogFormat, Verbosity

_LEVELS = {
    Verbosity.QUIET: logging.ERROR,
    Verbosity.NORMAL: logging.WARNING,
    Verbosity.VERBOSE: logging.DEBUG,
}


class _Formatter(logging.Formatter):
    """One line a record; the traceback only for whoever asked for everything."""

    def __init__(self, *, verbose: bool, as_json: bool) -> None:
        super().__init__()
        self._verbose = verbose
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what came from outside must not move the terminal's cursor."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None and not self._verbose:
            text = f"{text} ({record.exc_info[0].__name__})"
        printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        if self._json:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
            return json.dumps({"ts": when, "level": record.levelname.lower(), "text": printable})
        line = f"claude-proxy: {record.levelname.lower()}: {printable}"
        if self._verbose and record.exc_info and record.exc_info[0] is not None:
            # Where, and of which type; an exception's own words may quote what a peer sent.
            frames = "".join(traceback.format_tb(record.exc_info[2]))
            line += f"\n{frames}{record.exc_info[0].__name__}"
        return line


def configure(verbosity: Verbosity, log_format: LogFormat) -> None:
    """Send the program's log to standard error, and mitmproxy's own with it."""
    handler = logging.StreamHandler(sys.stderr)
    verbose = verbosity is Verbosity.VERBOSE
    handler.setFormatter(_Formatter(verbose=verbose, as_json=log_format is LogFormat.JSON))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[verbosity])
    # They quote what peers sent (law 9), and what matters of it is in the audit log.
    for noisy in ("asyncio", "h2", "hpack", "mitmproxy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def report(lines: list[str]) -> None:
    """Print several lines as one message, loudly: they are shown even by --quiet."""
    sys.stderr.write("".join(f"claude-proxy: {line}\n" for line in lines))
    sys.stderr.flush()
