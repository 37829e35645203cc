"""Probes of protected files that the host replaces meanwhile: they must stay protected."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import FILES, Spec, Try, attempt, open_to_write

_ANSWER_S = 30.0
_PATIENCE_S = 5.0  # for the guard, on a slow machine; the window itself is not what is tried here
_PAUSE_S = 0.01
_ROUNDS = 3


def replaced(spec: Spec) -> Iterator[Try]:
    """Have the host replace its files; then write each, and read the hidden one."""
    request = Path(spec["replace"]["request"])
    for number in range(_ROUNDS):
        request.touch()
        if not _is_true(lambda: not request.exists(), _ANSWER_S):
            raise RuntimeError("the host replaced nothing")
        for path in spec["replace"]["entries"]:
            _is_true(partial(_is_protected, path), _PATIENCE_S)
            what = f"{Path(path).name}, replaced outside ({number + 1})"
            yield attempt(what, partial(open_to_write, path), denied=FILES)
        hidden = spec["replace"]["hidden"]
        _is_true(partial(_is_empty, hidden), _PATIENCE_S)
        yield attempt(
            f"{Path(hidden).name}, hidden ({number + 1})", partial(_read, hidden), denied=FILES
        )


def _is_true(fact: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def _is_protected(path: str) -> bool:
    # Without opening it: a file that is open when the guard looks ends the run.
    return not os.access(path, os.W_OK)


def _is_empty(path: str) -> bool:
    return not Path(path).stat().st_size


def _read(path: str) -> str:
    if found := Path(path).read_bytes():
        return found.decode("utf-8", "replace")
    raise PermissionError(errno.EACCES, "nothing is shown")
