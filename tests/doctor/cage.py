"""Runs the attacks in places that the tests make: without a sandbox, in a weak one, in a tight one.

What an attack reports of a weak place is the proof that it would see a hole in a tight one.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from claude_proxy.doctor.probe_server import ProbeServer
from claude_proxy.sandbox.bubblewrap import seccomp
from tests.conftest import NOT_INSTALLED

ROOT = Path(__file__).resolve().parents[2]
DENIED = "denied.example.test"
ALLOWED = "allowed.example.test"
EMPTY: dict[str, Any] = {
    "proxy": ["127.0.0.1", 9],
    "socks": ["127.0.0.1", 9],
    "ca": "/nonexistent",
    "allowed": [ALLOWED, 443],
    "denied_host": DENIED,
    "names": "names.example.test",
    "transparent": False,
    "bound": None,
    "placeholder": "a-placeholder-of-ours",
    "key": "no key",
    "canaries": {},
    "sockets": [],
    "control": {"directories": {}, "sockets": []},
    "processes": [],
    "secret": "no secret",
    "hidden": {},
    "guarded": {},
    "shown": [],
    "own_ports": [],
}

# A way to everywhere that leads nowhere: what is sent comes back by loopback, and nobody takes it.
_ROUTES = (
    "ip link set lo up; ip route add default dev lo; ip -6 route add default dev lo; "
    'ip addr add 127.0.0.53/8 dev lo; exec "$@"'
)

_SHORT = (
    "from claude_proxy.doctor.attack.probes import "
    "__main__, dns, kernel, network, proxy_client, unix_sockets; "
    "network.DIRECT_S = dns.DIRECT_S = unix_sockets.DIRECT_S = 0.3; "
    "proxy_client.PROXY_S = 60"
)

type Tries = list[tuple[str, str, str, str]]


def run_probe(
    name: str,
    *,
    around: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    change: str = "",
    **spec: Any,
) -> Tries:
    """Run one attack as the sandbox's interpreter would, and return its tries."""
    report = reports([name], around=around, pass_fds=pass_fds, change=change, **spec)[0]
    assert report["crashed"] is None, report
    return [tuple(row) for row in report["tries"]]


def reports(
    names: Sequence[str],
    *,
    around: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    environ: Mapping[str, str] | None = None,
    change: str = "",
    **spec: Any,
) -> list[dict[str, Any]]:
    """Run attacks in a process that `around` is put before, and return what it prints.

    `change` makes a constant of theirs another one before they begin.
    """
    done = subprocess.run(
        [*around, sys.executable, "-c", f"{_SHORT}; {change or 'pass'}; __main__.main()"],
        input=json.dumps({**EMPTY, **spec, "attacks": names}),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        pass_fds=tuple(pass_fds),
        env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1", **(environ or {})},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def outcomes(tries: Tries) -> set[str]:
    return {outcome for _, outcome, _, _ in tries}


def got_through(tries: Tries) -> list[str]:
    return [what for what, outcome, _, _ in tries if outcome == "through"]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} {NOT_INSTALLED}")
    return found


def routed() -> list[str]:
    """Return what runs a program in a network namespace with a route to everywhere."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [tool("unshare"), *as_root, "--net", tool("sh"), "-c", _ROUTES, "sh"]


def weak(*options: str) -> list[str]:
    """Return a sandbox that hides nothing and takes nothing away, but for what is asked."""
    everything = ("--bind", "/", "/", "--dev-bind", "/dev", "/dev")
    return [tool("bwrap"), "--die-with-parent", *everything, *options, "--"]


def lonely(*shown: Path) -> list[str]:
    """Return a weak sandbox with few files: none that belong to what else runs here."""
    system = {"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"}
    others = [path for path in Path("/").iterdir() if path.is_dir() and path.name not in system]
    emptied = [word for path in others for word in ("--tmpfs", str(path))]
    ours = (ROOT / "claude_proxy", ROOT / "build" / "coverage", ROOT / "pyproject.toml")
    needed = dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix), *ours, *shown))
    kept = [word for path in needed for word in ("--bind-try", str(path), str(path))]
    return weak(*emptied, *kept)


@contextmanager
def tight(*options: str) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield a sandbox that is shut but for its files, and the descriptor of its filter."""
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, seccomp.program())
        os.lseek(descriptor, 0, os.SEEK_SET)
        shut = ("--unshare-all", "--cap-drop", "ALL", "--new-session")
        files = ("--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", *options)
        filtered = ("--seccomp", str(descriptor))
        around = [tool("bwrap"), "--die-with-parent", *shut, *files, *filtered, "--"]
        yield around, (descriptor,)
    finally:
        os.close(descriptor)


class FakeProxy:
    """A proxy that says one thing to everybody; an open one leads all tunnels to one origin."""

    def __init__(
        self, answer: bytes, socks: int | None, origin: "ProbeServer | FixedPort | None" = None
    ) -> None:
        self._answer = answer
        self._socks = socks
        self._origin = origin
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def place(self) -> list[Any]:
        return list(self._listener.getsockname())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                self._talk(client)
            except OSError:
                return

    def _talk(self, client: socket.socket) -> None:
        head = client.recv(65536)
        if head[:1] == b"\x05":
            client.sendall(b"\x05\x00")
            client.recv(65536)
            if self._socks is not None:
                client.sendall(bytes([5, self._socks]) + bytes(8))
            return
        client.sendall(self._answer)
        if head.startswith(b"CONNECT") and self._origin is not None:
            self._join(client, self._origin.port)

    @staticmethod
    def _join(client: socket.socket, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=_copy, args=(far, client), daemon=True)
            back.start()
            _copy(client, far)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
    except OSError:
        pass  # whichever side it was, the other is told
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class FixedPort:
    """Has the port of a listener, all that a fake proxy needs of a server."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
