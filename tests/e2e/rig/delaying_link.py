"""Joins two network namespaces by a link that is far away: each frame arrives half an RTT later.

    delaying_link.py NAME NAME_OF_PEER PID_OF_PEER RTT_MS

The kernel's own (`tc qdisc add … netem delay`) is often not built in. This program is a pipelined
delay line between two TAP interfaces, one in its own namespace and one in that of the process
PID_OF_PEER: frames are delayed, never merged, dropped or held up by others, so that whatever costs
round trips costs them here, a TCP handshake and a name's look-up too. It says "ready" when both
interfaces are there, and ends with its standard input.
"""

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path

_SET_INTERFACE = 0x400454CA  # TUNSETIFF
_TAP, _NO_PACKET_INFO = 0x0002, 0x1000
_FRAME = 64 * 1024
_PRIORITY = -10  # late frames would be counted as a longer link


class Direction:
    """One way through the link."""

    def __init__(self, source: int, sink: int, delay_s: float) -> None:
        self.source = source
        self._sink = sink
        self._delay_s = delay_s
        self._travelling: deque[tuple[float, bytes]] = deque()

    def take_in(self) -> None:
        """Let every frame that has come set off."""
        with contextlib.suppress(BlockingIOError):
            while frame := os.read(self.source, _FRAME):
                self._travelling.append((time.monotonic() + self._delay_s, frame))

    def deliver(self, now_s: float) -> float | None:
        """Hand over what has arrived; return when the next frame does."""
        while self._travelling and self._travelling[0][0] <= now_s:
            # An interface that has gone down takes nothing: nobody is there any more.
            with contextlib.suppress(OSError):
                os.write(self._sink, self._travelling.popleft()[1])
        return self._travelling[0][0] if self._travelling else None


def interface(name: str) -> int:
    """Make a TAP interface in the namespace that this process is in now."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(
        descriptor, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), _TAP | _NO_PACKET_INFO)
    )
    return descriptor


def main(name: str, peer: str, pid: str, rtt_ms: str) -> None:
    """Join the two namespaces until standard input ends."""
    near = interface(name)
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        os.setns(namespace.fileno(), os.CLONE_NEWNET)
    far = interface(peer)
    with contextlib.suppress(PermissionError):
        os.nice(_PRIORITY)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    delay_s = float(rtt_ms) / 2000
    directions = Direction(near, far, delay_s), Direction(far, near, delay_s)
    due: list[float] = []
    while True:
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        ready, _, _ = select.select([near, far, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            return
        for direction in directions:
            if direction.source in ready:
                direction.take_in()
        now_s = time.monotonic()
        due = [at for way in directions if (at := way.deliver(now_s)) is not None]


if __name__ == "__main__":
    main(*sys.argv[1:])
