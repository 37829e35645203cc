"""One request by every way in: the same decision, the same reason, the same in the audit log."""

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import SHARED_ALLOWLIST, StartProxy
from .rig.client import CannotConnectError, Tunnel, open_tunnel
from .rig.internet import Internet
from .rig.proxy import LOOPBACK, Proxy
from .rig.socks import SocksError, open_socks_tunnel

CURL_DENIED_BY_SOCKS = 97
CURL_DENIED = 56  # a CONNECT that was answered with 403


@dataclass(frozen=True)
class Ask:
    """One thing that a client wants."""

    target: str
    path: str = "/x"
    method: str = "GET"
    host: str | None = None  # of the Host header
    server_name: str | None = None
    tls: bool = True


# Names that lead to where nobody should come.
INWARD = {
    "private.test": "10.30.1.1",  # and its rule names 10.20.0.0/16
    "metadata.test": "169.254.169.254",
    "loopback.test": LOOPBACK,
}

ASKS = {
    "allowed": Ask("allowed.test:443"),
    "no rule": Ask("denied.test:443"),
    "another port": Ask("allowed.test:8443"),
    "a denied path": Ask("allowed.test:443", path="/forbidden/x"),
    "a path outside": Ask("paths.test:443", path="/secret"),
    "another method": Ask("read-only.test:443", method="POST"),
    "another server name": Ask("allowed.test:443", server_name="other.test"),
    "another host": Ask("allowed.test:443", host="other.test"),
    "passed through": Ask("through.test:443"),
    "passed through by another name": Ask("through.test:443", server_name="allowed.test"),
    "a private address": Ask("private.test:443"),
    "the metadata address": Ask("metadata.test:443"),
    "the metadata address itself": Ask("169.254.169.254:80", tls=False),
    "this machine": Ask("loopback.test:443"),
    "a name without an address": Ask("no-such-name.test:443"),
    "no TLS": Ask("allowed.test:443", tls=False),
    "plain": Ask("plain.test:80", tls=False),
    "plain, no rule": Ask("denied.test:80", tls=False),
    "plain, an https rule": Ask("allowed.test:80", tls=False),
    "plain, another host": Ask("plain.test:80", host="second-plain.test", tls=False),
}


@dataclass(frozen=True)
class WayIn:
    """One way for a client to come in."""

    connect: Callable[[], socket.socket]
    socks: bool
    listener: str  # as the audit log has it


@dataclass(frozen=True)
class Verdict:
    """What came of an ask."""

    reached: bool
    answered: bool  # by an origin, not by the proxy
    denied: frozenset[tuple[str, str, int]]  # reason, host, port


@dataclass
class House:
    """A proxy with a door of each kind."""

    proxy: Proxy
    unix: Path
    internet: Internet
    trust: ssl.SSLContext

    def ways(self) -> dict[str, WayIn]:
        """Return every way in."""
        host, port = self.internet.host, self.proxy.port
        tcp = f"tcp {LOOPBACK}:{port}"
        by = {
            "tcp": (lambda: host.connect(LOOPBACK, port), tcp),
            "ipv6": (lambda: host.connect("::1", port), f"tcp [::1]:{port}"),
            "unix": (self._connect_unix, f"unix {self.unix}"),
        }
        return {
            f"{spoken} by {name}": WayIn(connect, spoken == "socks", listener)
            for name, (connect, listener) in by.items()
            for spoken in ("http", "socks")
        }

    def _connect_unix(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(self.unix))
        return connection

    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """Return what comes of every ask by every way in: for client, origin and audit log."""
        asked = [(name, way, *self._asked(name, way)) for name in ASKS for way in self.ways()]
        rows = [row for row in self.proxy.audit() if row.phase != "notice"]
        found: dict[str, dict[str, Verdict]] = {name: {} for name in ASKS}
        for name, way, span, reached, answered in asked:
            listener = self.ways()[way].listener
            mine = [row for row in rows if row.id in span and row.listener == listener]
            found[name][way] = Verdict(
                reached=reached,
                answered=answered,
                denied=frozenset(
                    (row.reason, row.host, row.port) for row in mine if not row.allowed
                ),
            )
        return found

    def _asked(self, name: str, way: str) -> tuple[range, bool, bool]:
        """Ask; return when, whether an origin was asked and whether it answered."""
        since = time.time_ns()
        with self.internet.watch() as seen:
            answered = self._try(ASKS[name], self.ways()[way])
        return range(since, time.time_ns()), bool(seen.exchanges), answered

    def _try(self, ask: Ask, way: WayIn) -> bool:
        """Ask; tell whether an origin answered."""
        failures = (CannotConnectError, SocksError, HTTPException, OSError)
        with contextlib.suppress(*failures), self._opened(ask, way) as tunnel:
            target = ask.path
            if not ask.tls and not way.socks and ask.target.endswith(":80"):
                target = f"http://{ask.target.removesuffix(':80')}{ask.path}"
            host = ask.host or ask.target.removesuffix(":443").removesuffix(":80")
            tunnel.send(f"{ask.method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return tunnel.read().reason is None
        return False

    def _opened(self, ask: Ask, way: WayIn) -> Tunnel:
        connection, context = way.connect(), self.trust if ask.tls else None
        if way.socks:
            return open_socks_tunnel(connection, ask.target, context, server_name=ask.server_name)
        if not ask.tls and ask.target.endswith(":80"):
            return Tunnel(connection, ask.target)  # as plain HTTP goes to an HTTP proxy
        return open_tunnel(connection, ask.target, context, server_name=ask.server_name)


@pytest.fixture
def sockets(tmp_path: Path) -> Path:
    """A directory for sockets, whose name is short enough."""
    directory = tmp_path / "s"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def house(
    internet: Internet, start_proxy: StartProxy, sockets: Path, ports: Iterator[int]
) -> House:
    for name, address in INWARD.items():
        internet.names.answer(name, [address])
    port = next(ports)
    proxy = start_proxy(
        SHARED_ALLOWLIST,
        *("--port", str(port), "--listen", f"[::1]:{port}"),
        *("--listen", f"unix:{sockets}/p.sock"),
    )
    proxy.port = port
    trust = ssl.create_default_context(cafile=proxy.ca_file)
    trust.load_verify_locations(internet.pki.root_file)
    return House(proxy, sockets / "p.sock", internet, trust)


REASONS = {
    "allowed": None,
    "no rule": "no-rule",
    "another port": "port-not-allowed",
    "a denied path": "deny-rule",
    "a path outside": "path-not-allowed",
    "another method": "method-not-allowed",
    "another server name": "sni-mismatch",
    "another host": "host-mismatch",
    "passed through": None,
    "passed through by another name": "sni-mismatch",
    "a private address": "address-not-allowed",
    "the metadata address": "address-not-allowed",
    "the metadata address itself": "no-rule",
    "this machine": "address-not-allowed",
    "a name without an address": None,
    "no TLS": "not-tls",
    "plain": None,
    "plain, no rule": "no-rule",
    "plain, an https rule": "port-not-allowed",
    "plain, another host": "host-mismatch",
}


def test_the_same_request_by_any_way_in_gets_the_same_decision(house: House) -> None:
    found = house.verdicts()

    for name, verdicts in found.items():
        assert len(verdicts) == 6
        assert len(set(verdicts.values())) == 1, (name, verdicts)
    first = {name: next(iter(verdicts.values())) for name, verdicts in found.items()}
    assert {name for name, verdict in first.items() if verdict.reached} == {
        "allowed",
        "passed through",
        "plain",
    }
    assert all(verdict.answered == verdict.reached for verdict in first.values())
    reasons = {name: {reason for reason, *_ in verdict.denied} for name, verdict in first.items()}
    assert reasons == {name: {reason} - {None} for name, reason in REASONS.items()}


# --- curl and socat, as anybody has them


@pytest.fixture
def socat(house: House, program: FindProgram, ports: Iterator[int]) -> Iterator[int]:
    """A port whose clients come out at the Unix socket: a relay that we did not write."""
    port = next(ports)
    listen = f"TCP-LISTEN:{port},bind={LOOPBACK},fork,reuseaddr"
    relay = subprocess.Popen(
        house.internet.host.argv([program("socat"), listen, f"UNIX-CONNECT:{house.unix}"])
    )

    def listens() -> bool:
        try:
            house.internet.host.connect(LOOPBACK, port).close()
        except OSError:
            return False
        return True

    until(listens, "socat to listen")
    yield port
    relay.terminate()
    relay.wait()


def test_curl_comes_in_by_every_door(house: House, socat: int) -> None:
    port = house.proxy.port
    ways = {
        f"http://{LOOPBACK}:{port}": f"tcp {LOOPBACK}:{port}",
        f"http://[::1]:{port}": f"tcp [::1]:{port}",
        f"socks5h://{LOOPBACK}:{port}": f"tcp {LOOPBACK}:{port}",
        f"socks5h://[::1]:{port}": f"tcp [::1]:{port}",
        f"socks5h://localhost{house.unix}": f"unix {house.unix}",
        f"http://{LOOPBACK}:{socat}": f"unix {house.unix}",
        f"socks5h://{LOOPBACK}:{socat}": f"unix {house.unix}",
    }
    curl = ["curl", "-sS", "--max-time", "60", "--cacert", str(house.proxy.ca_file)]

    for at, (way, listener) in enumerate(ways.items()):
        allowed = house.proxy.place.run(*curl, "--proxy", way, f"https://allowed.test/curl-{at}")
        plain = house.proxy.place.run(*curl, "--proxy", way, f"http://plain.test/plain-{at}")
        denied = house.proxy.place.run(*curl, "--proxy", way, f"https://denied.test/curl-{at}")

        assert (allowed.returncode, plain.returncode) == (0, 0), allowed.stderr + plain.stderr
        by_socks = way.startswith("socks5h")
        assert denied.returncode == (CURL_DENIED_BY_SOCKS if by_socks else CURL_DENIED), way
        rows = house.proxy.audit("--listener", listener)[-3:]
        told = [(row.host, row.reason, row.path) for row in rows]
        assert told == [
            ("allowed.test", "rule-matched", f"/curl-{at}"),
            ("plain.test", "rule-matched", f"/plain-{at}"),
            ("denied.test", "no-rule", ""),
        ]
        program = "/socat" if str(socat) in way else "/curl"
        assert listener.startswith("tcp") or all(program in row.client for row in rows)
