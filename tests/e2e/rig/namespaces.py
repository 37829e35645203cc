"""Makes two network namespaces joined by one cable: the host under test and its internet.

In `host` run the proxy and its clients, with a resolver file of our own. In `internet` every
address there is answers, so an origin can stand at a public address, at the metadata
address, in a private network; nothing that is sent can leave the machine. The cable is short, or as
long as a round trip of some milliseconds.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

_AGENT = Path(__file__).with_name("namespace_agent.py")
_LINK = Path(__file__).with_name("delaying_link.py")
NAMESPACE_PROGRAMS = ("unshare", "nsenter", "ip", "mount", "env")

NAME_SERVER = "9.9.9.9"
SEARCH_DOMAIN = "search.test"  # as a network's DHCP server hands one out
HOST_ADDRESS = "10.99.0.2"
INTERNET_ADDRESS = "10.99.0.1"
CABLE_HOST = "wan"
CABLE_INTERNET = "lan"


class Namespace:
    """One network namespace, kept alive by an agent process inside it."""

    def __init__(self, start: Sequence[str], *, mounts: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._agent = subprocess.Popen(
                [*start, sys.executable, "-I", str(_AGENT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self._channel = ours
        self._mounts = mounts
        if self._channel.recv(16) != b"ready":
            self.close()
            raise RuntimeError(f"cannot make a network namespace by {' '.join(start)}")

    @property
    def pid(self) -> int:
        """The process that keeps the namespace alive."""
        return self._agent.pid

    def close(self) -> None:
        """Let the namespace go; sockets that were born in it live on until they are closed."""
        self._channel.close()
        self._agent.wait(timeout=60)

    def argv(self, command: Sequence[str], *, cwd: Path | None = None) -> list[str]:
        """Return the command line that runs `command` inside."""
        enter = ["nsenter", "--target", str(self.pid), "--net"]
        if self._mounts:
            enter.append("--mount")
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        # A mount namespace is entered at its root: the working directory is set inside.
        where = ["env", "-C", str(cwd or Path.cwd())] if self._mounts else []
        return [*enter, "--", *where, *command]

    def run(self, command: Sequence[str]) -> None:
        """Run a set-up command inside; it must succeed."""
        subprocess.run(self.argv(command), check=True)

    def new_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a new socket that belongs to this namespace."""
        self._channel.send(json.dumps([int(family), int(kind), protocol]).encode())
        _, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
        return socket.socket(fileno=descriptors[0])

    def connect(self, address: str, port: int, *, timeout_s: float = 60.0) -> socket.socket:
        """Return a TCP connection made from inside."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = self.new_socket(family, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    def listen(self, address: str, port: int) -> socket.socket:
        """Return a listening TCP socket inside; the address "::" serves IPv4 too."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = self.new_socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(1024)
        return listener


class Cabled:
    """The two namespaces, cabled and addressed."""

    def __init__(self, directory: Path, *, rtt_ms: float = 0.0) -> None:
        missing = [tool for tool in NAMESPACE_PROGRAMS if shutil.which(tool) is None]
        if missing:
            raise RuntimeError(f"the end-to-end tests need {', '.join(missing)} on the PATH")
        with ExitStack() as stack:
            unprivileged = [] if os.geteuid() == 0 else ["--map-root-user"]
            self.host = Namespace(["unshare", "--net", "--mount", *unprivileged], mounts=True)
            stack.callback(self.host.close)
            self.internet = Namespace(self.host.argv(["unshare", "--net"]), mounts=False)
            stack.callback(self.internet.close)
            if rtt_ms:
                stack.callback(self._join_far(rtt_ms))
            else:
                self._join_near()
            self._address()
            self._name_services(directory)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Let both namespaces go."""
        self._stack.close()

    def _join_near(self) -> None:
        pair = ["ip", "link", "add", CABLE_HOST, "type", "veth", "peer", "name", CABLE_INTERNET]
        self.host.run([*pair, "netns", str(self.internet.pid)])

    def _join_far(self, rtt_ms: float) -> Callable[[], None]:
        """Join them by a link with that round trip; return what takes it down."""
        words = [CABLE_HOST, CABLE_INTERNET, str(self.internet.pid), str(rtt_ms)]
        link = subprocess.Popen(
            self.host.argv([sys.executable, "-I", "-S", str(_LINK), *words]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

        def close() -> None:
            link.communicate(timeout=60)

        if link.stdout is None or link.stdout.readline() != b"ready\n":
            close()
            raise RuntimeError("cannot make a link that delays")
        for run, cable in ((self.host.run, CABLE_HOST), (self.internet.run, CABLE_INTERNET)):
            # No neighbour has to be found, which would cost round trips of its own: without ARP,
            # frames are addressed to the interface's own address, which the other end has as well.
            alike = ["address", "02:00:00:00:00:01", "arp", "off", "txqueuelen", "10000"]
            run(["ip", "link", "set", cable, *alike])
        return close

    def _address(self) -> None:
        host, internet = self.host.run, self.internet.run
        host(["ip", "link", "set", "lo", "up"])
        internet(["ip", "link", "set", "lo", "up"])
        for run, cable, number in ((host, CABLE_HOST, 2), (internet, CABLE_INTERNET, 1)):
            run(["ip", "addr", "add", f"10.99.0.{number}/30", "dev", cable])
            run(["ip", "-6", "addr", "add", f"fd99::{number}/64", "dev", cable, "nodad"])
            run(["ip", "link", "set", cable, "up"])
        host(["ip", "route", "add", "default", "via", INTERNET_ADDRESS])
        host(["ip", "-6", "route", "add", "default", "via", "fd99::1"])
        # In the main table, not the local one, so that the cable's own network still wins.
        everything = ["route", "add", "local", "default", "dev", "lo", "table", "main"]
        internet(["ip", *everything])
        internet(["ip", "-6", *everything])

    def _name_services(self, directory: Path) -> None:
        """Give the host a resolver, a hosts file and a lookup order that know no other network."""
        files = {
            "resolv.conf": (
                f"nameserver {NAME_SERVER}\nsearch {SEARCH_DOMAIN}\noptions timeout:2 attempts:5\n"
            ),
            "hosts": "127.0.0.1 localhost\n::1 localhost\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        }
        for name, text in files.items():
            file = directory / name
            file.write_text(text)
            target = Path("/etc") / name
            if not target.exists():
                raise RuntimeError(f"{target} is missing, so a test's own cannot be laid over it")
            self.host.run(["mount", "--bind", str(file), str(target)])
