"""A bare sandbox with a network of its own, in which a test can have servers."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from claude_proxy.sandbox import netns


class NetworkBox:
    """A process in network and user namespaces of its own, until it is closed."""

    def __init__(self, bwrap: str) -> None:
        reading, writing = os.pipe()
        words = ["--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc"]
        with open(reading, "rb") as info:  # noqa: PTH123 - a descriptor
            self.process = subprocess.Popen(
                [bwrap, *words, "--info-fd", str(writing), "--", "cat"],
                pass_fds=[writing],
                stdin=subprocess.PIPE,
            )
            os.close(writing)
            self.init = int(json.load(info)["child-pid"])

    @contextmanager
    def server(self, port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A socket that listens inside, for the duration of a `with`."""
        (listener,) = netns.listeners(self.init, [(host, port)])
        listener.settimeout(60)
        with listener:
            yield listener

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self.process.communicate()


@contextmanager
def network_box(bwrap: str) -> Iterator[NetworkBox]:
    """A box for the duration of a `with`."""
    box = NetworkBox(bwrap)
    try:
        yield box
    finally:
        box.close()
