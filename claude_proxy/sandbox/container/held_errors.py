"""Standard error of an engine's process, which is also that of the command it runs.

What may be an error of the engine itself is held back, so that it can be reported with a fix.
"""

import contextlib
import os
import re
import select
import threading

_HOLD_S = 0.3
_PIECE = 64 * 1024
# How the engines begin an error of their own, and what docker writes after one.
_OWN = (b"Error: ", b"Error response from daemon: ", b"docker: ")
_ADVICE = re.compile(rb"\n*(?:Run|See) 'docker [a-z ]*--help'[^\n]*\n?$")


class HeldErrors:
    """A pipe that is copied to this process's standard error.

    A line that may be the engine's own is held back for a moment: it is the last before its end.
    """

    def __init__(self, descriptor: int, *, quiet: bool) -> None:
        self._descriptor, self._quiet = descriptor, quiet
        self._held = b""
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    @property
    def own(self) -> bytes:
        """What its last lines say that may be the engine's own, if anything; it has ended."""
        self._thread.join()
        return self._held

    def finish(self, *, said: bool = True) -> bytes:
        """Wait for its end and return what was held back, which is written out if `said`."""
        self._thread.join()
        held, self._held = self._held, b""
        if said:
            _write(held)
        return held

    def _copy(self) -> None:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        while True:
            held = self._held and not self._quiet
            if held and not waiting.poll(_HOLD_S * 1000):
                self._flush()
            piece = os.read(self._descriptor, _PIECE)
            if not piece:
                return
            if held and _ADVICE.fullmatch(piece):
                continue
            self._flush()
            at = len(piece) if not self._quiet else 0
            last = _last_own(_ADVICE.sub(b"", piece))
            if last is not None:
                piece, at = _ADVICE.sub(b"", piece), last
            if not self._quiet:
                _write(piece[:at])
            self._held += piece[at:]

    def _flush(self) -> None:
        if not self._quiet:
            held, self._held = self._held, b""
            _write(held)


def _last_own(piece: bytes) -> int | None:
    """Return where the last lines begin that may be an engine's own; None: there is none."""
    at = None
    end = len(piece.rstrip(b"\n"))
    while end > 0:
        begin = piece.rfind(b"\n", 0, end) + 1
        if not piece[begin:].startswith(_OWN):
            break
        at, end = begin, begin - 1
    return at


def _write(data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(2, data) :]
