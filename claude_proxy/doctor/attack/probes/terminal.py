"""Terminal probes: typing into the terminal outside."""

import ctypes
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from claude_proxy.doctor.attack.probes.outcome import (
    TERMINAL,
    Spec,
    Try,
    attempt,
    is_filtered,
    stopped,
)
from claude_proxy.doctor.attack.probes.syscalls import HIGH_BIT, call

_TIOCSTI, _TIOCLINUX, _TIOCSCTTY = 0x5412, 0x541C, 0x540E


def terminal(_: Spec) -> Iterator[Try]:
    """Type into the terminal from which this was started."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as problem:
        own = problem
    else:
        yield from _type_into(descriptor, "")
        os.close(descriptor)
        return
    if not is_filtered():
        saw = errno.errorcode.get(own.errno or 0, "")
        yield stopped("the terminal outside", TERMINAL, f"there is none ({saw})")
        return
    # A new terminal shows whether the filter denies the calls.
    master, slave = os.openpty()
    child = os.fork()
    if child == 0:
        reports = b""
        try:
            os.setsid()
            fcntl.ioctl(slave, _TIOCSCTTY, 0)
            reports = json.dumps(list(_type_into(slave, " (a new terminal)"))).encode()
        finally:
            os.write(slave, reports.hex().encode() + b"\n")
            os._exit(0)
    os.close(slave)
    said = b""
    with suppress(OSError):
        while not said.endswith(b"\n") and (piece := os.read(master, 65536)):
            said += piece
    os.waitpid(child, 0)
    for row in json.loads(bytes.fromhex(said.split()[-1].decode())):
        yield Try(*row)


def _type_into(descriptor: int, where: str) -> Iterator[Try]:
    letter = ctypes.c_char(b"#")
    for what, number in (
        ("TIOCSTI", _TIOCSTI),
        ("TIOCSTI with a high bit", _TIOCSTI | HIGH_BIT),
        ("TIOCLINUX", _TIOCLINUX),
    ):
        yield attempt(
            what + where,
            partial(call, "ioctl", descriptor, number, ctypes.byref(letter)),
            filtered=True,
        )
