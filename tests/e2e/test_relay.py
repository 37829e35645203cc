"""Our relay beside programs of others: tinyproxy behind it, curl and socat on either side."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_S, until

from .rig.proxy import REPOSITORY

type Start = Callable[..., subprocess.Popen[str]]

BODY = b"the origin's own words\n" * 10_000


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers every GET with the same, and a POST with what it was given."""

    def do_GET(self) -> None:
        self._answer(BODY)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(*command: str | Path, **options: object) -> subprocess.Popen[str]:
            process: subprocess.Popen[str] = subprocess.Popen(
                [str(word) for word in command], text=True, **options
            )  # type: ignore[call-overload]
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield started


class Relay:
    """One relay of ours, that can be ended and started anew."""

    def __init__(self, start: Start, listen: str, to: str) -> None:
        self._start = start
        self._command = [
            sys.executable,
            "-m",
            "claude_proxy.sandbox.relay.relay",
            "--listen",
            listen,
            "--to",
            to,
        ]
        self.where = ""
        self.run()

    def run(self) -> None:
        self.process = self._start(*self._command, stderr=subprocess.PIPE, cwd=REPOSITORY)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.where = line.partition("listens on ")[2].partition(",")[0]


@pytest.fixture
def relay(start: Start) -> Callable[[str, str], Relay]:
    return lambda listen, to: Relay(start, listen, to)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def accepts_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def tinyproxy(program: FindProgram, start: Start, directory: Path) -> str:
    port = free_port()
    settings = directory / "tinyproxy.conf"
    # Without User and Group it stays who it is; without ConnectPort it tunnels to every port.
    settings.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\n")
    start(program("tinyproxy"), "-d", "-c", settings, stdout=subprocess.DEVNULL)
    until(lambda: accepts(port), "tinyproxy to listen")
    return f"127.0.0.1:{port}"


class Curl:
    """curl, with nothing in its environment that would lead it."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        # --noproxy "": it leaves out proxies for this machine else
        return subprocess.run(
            [self._program, "-sS", "--max-time", "60", "--noproxy", "", *arguments],
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )


@pytest.fixture
def curl(program: FindProgram) -> Curl:
    return Curl(program("curl"))


def test_curl_goes_through_two_relays_and_a_foreign_proxy(
    curl: Curl, relay: Callable[[str, str], Relay], tinyproxy: str, origin: str, directory: Path
) -> None:
    outer = relay(f"unix:{directory}/out.sock", tinyproxy)
    inner = relay("127.0.0.1:0", outer.where)
    proxy = f"http://{inner.where}"

    assert curl("-x", proxy, f"http://{origin}/").stdout == BODY
    assert curl("-x", proxy, "--proxytunnel", f"http://{origin}/").stdout == BODY
    data = "x" * 100_000
    assert curl("-x", proxy, "-p", "-d", data, f"http://{origin}/").stdout == data.encode()


def test_the_inner_relay_outlives_the_outer_one(
    curl: Curl, relay: Callable[[str, str], Relay], tinyproxy: str, origin: str, directory: Path
) -> None:
    """A container goes on without a restart when its way out on the host was restarted (C14)."""
    outer = relay(f"unix:{directory}/out.sock", tinyproxy)
    inner = relay("127.0.0.1:0", outer.where)
    ask = ("-x", f"http://{inner.where}", "-i", f"http://{origin}/")
    assert curl(*ask).stdout.endswith(BODY)

    for number in (signal.SIGKILL, signal.SIGTERM):
        outer.process.send_signal(number)
        outer.process.wait(PATIENCE_S)
        answer = curl(*ask).stdout
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway (proxy-unreachable)\r\n")
        assert b"\r\nX-Claude-Proxy-Reason: proxy-unreachable\r\n" in answer
        outer.run()

        assert curl(*ask).stdout.endswith(BODY)

    assert inner.process.poll() is None


def test_curl_shows_that_the_proxy_is_gone_whatever_it_speaks(
    curl: Curl, relay: Callable[[str, str], Relay], directory: Path
) -> None:
    where = relay("127.0.0.1:0", f"unix:{directory}/gone.sock").where
    path = relay(f"unix:{directory}/in.sock", f"unix:{directory}/gone.sock").where

    plain = curl("-x", f"http://{where}", "http://a.test/")
    tunnel = curl("-x", f"http://{where}", "https://a.test/")
    socks = curl("-x", f"socks5h://{where}", "http://a.test/")
    over_a_file = curl("-x", f"socks5h://localhost{path.removeprefix('unix:')}", "http://a.test/")
    with_password = curl("-x", f"socks5h://user:word@{where}", "http://a.test/")

    assert plain.stdout.startswith(b"Failed by claude-proxy: ")
    assert b"502" in tunnel.stderr
    # curl's words: it can't complete the SOCKS5 connection, for reason 1.
    for answer in (socks, over_a_file, with_password):
        assert answer.returncode == 97
        assert b"(1)" in answer.stderr


def test_curl_speaks_to_our_unix_socket(
    curl: Curl, relay: Callable[[str, str], Relay], origin: str, directory: Path
) -> None:
    relay(f"unix:{directory}/in.sock", origin)

    answer = curl("--unix-socket", f"{directory}/in.sock", "http://any.test/")

    assert answer.stdout == BODY


def test_socat_speaks_to_our_unix_socket_and_closes_half_of_it(
    program: FindProgram, relay: Callable[[str, str], Relay], origin: str, directory: Path
) -> None:
    relay(f"unix:{directory}/in.sock", origin)

    done = subprocess.run(
        [program("socat"), "-t", "60", "-", f"UNIX-CONNECT:{directory}/in.sock"],
        input=b"GET / HTTP/1.0\r\n\r\n",  # and then the end
        capture_output=True,
        check=True,
    )

    assert done.stdout.endswith(BODY)
    assert done.stderr == b""


def test_socat_may_be_the_outer_relay_and_be_restarted(
    program: FindProgram,
    curl: Curl,
    start: Start,
    relay: Callable[[str, str], Relay],
    tinyproxy: str,
    origin: str,
    directory: Path,
) -> None:
    path = directory / "squid_for_claude.sock"
    inner = relay("127.0.0.1:0", f"unix:{path}")
    for _ in range(2):
        outer = start(program("socat"), f"UNIX-LISTEN:{path},fork,unlink-early", f"TCP:{tinyproxy}")
        until(lambda: accepts_at(path), "socat to listen")

        assert curl("-x", f"http://{inner.where}", f"http://{origin}/").stdout == BODY

        outer.terminate()
        outer.wait(PATIENCE_S)


def test_socat_may_be_the_inner_relay(
    program: FindProgram,
    curl: Curl,
    start: Start,
    relay: Callable[[str, str], Relay],
    tinyproxy: str,
    origin: str,
    directory: Path,
) -> None:
    relay(f"unix:{directory}/out.sock", tinyproxy)
    port = free_port()
    start(
        program("socat"),
        f"TCP-LISTEN:{port},bind=127.0.0.1,fork",
        f"UNIX-CONNECT:{directory}/out.sock",
    )
    until(lambda: accepts(port), "socat to listen")

    assert curl("-x", f"http://127.0.0.1:{port}", f"http://{origin}/").stdout == BODY


def test_a_command_is_led_through_the_relay_to_a_foreign_proxy(
    program: FindProgram, tinyproxy: str, origin: str
) -> None:
    command = [sys.executable, "-m", "claude_proxy", "relay", "--http-port", "0", "--to", tinyproxy]
    # `localhost` would be reached directly, by the NO_PROXY that is set.
    fetch = 'exec "$0" -sS --noproxy "" "$1"'

    done = subprocess.run(
        [*command, "--", "sh", "-c", fetch, program("curl"), f"http://{origin}/"],
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
    )

    assert (done.stdout, done.stderr) == (BODY, b"")
