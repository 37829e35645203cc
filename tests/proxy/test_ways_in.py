"""Running proxies with every kind of listener, signal and service manager."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FindProgram
from tests.support.engines import HOLDS, Engine
from tests.support.waiting import until

DEADLINE_S = 60.0
REQUEST = b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\nConnection: close\r\n\r\n"
READY = "Press Ctrl+C"
NOBODY = 65534


class Served:
    """One running proxy."""

    def __init__(self, place: Path, *options: str | Path, **popen: Any) -> None:
        self.place = place
        self._out = place / f"out-{time.monotonic_ns()}"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [*command(place), *map(str, options)], stdout=out, stderr=out, **popen
            )

    def said(self) -> str:
        return self._out.read_text()

    def wait_until_ready(self) -> "Served":
        until(lambda: READY in self.said() or self.process.poll() is not None)
        assert READY in self.said(), self.said()
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said())
        assert found is not None
        return int(found[1])

    def decisions(self) -> list[dict[str, Any]]:
        log = [sys.executable, "-m", "claude_proxy", "log", "--json", "--steps"]
        shown = subprocess.run(
            [*log, "--statedir", str(self.place / "state")],
            capture_output=True,
            text=True,
            check=True,
        )
        entries = [json.loads(line) for line in shown.stdout.splitlines()]
        return [entry for entry in entries if entry["phase"] != "notice"]


def command(place: Path) -> list[str]:
    rules = place / "allowlist.yaml"
    rules.write_text("allow: []\n")
    rules.chmod(0o600)
    places = ["--confdir", str(place / "conf"), "--statedir", str(place / "state")]
    serve = [sys.executable, "-m", "claude_proxy", "serve", "--grace", "1s"]
    return [*serve, "--allowlist", str(rules), *places]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def serve(place: Path) -> Iterator[Callable[..., Served]]:
    """Start proxies, which end with the test."""
    started: list[Served] = []

    def start(*options: str | Path, ready: bool = True, **popen: Any) -> Served:
        started.append(Served(place, *options, **popen))
        return started[-1].wait_until_ready() if ready else started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert "Traceback" not in one.said(), one.said()


def ask(address: Any) -> bytes:
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as client:
        client.settimeout(DEADLINE_S)
        client.connect(address)
        with contextlib.suppress(BrokenPipeError):  # turned away already
            client.sendall(REQUEST)
        return answer_of(client)


def answer_of(client: socket.socket) -> bytes:
    """Return what comes up to the end, be it a clean one or a reset."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def reason_of(answer: bytes) -> str:
    found = re.search(rb"X-Claude-Proxy-Reason: (\S+)", answer)
    return found[1].decode() if found else ""


# --- the socket's file


def test_after_a_kill_the_next_start_takes_the_path_over(
    place: Path, serve: Callable[..., Served]
) -> None:
    path = place / "p.sock"
    serve("--listen", f"unix:{path}").stop(signal.SIGKILL)
    assert path.is_socket()

    serve("--listen", f"unix:{path}")

    assert reason_of(ask(str(path))) == "no-rule"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_the_file_along(
    place: Path, serve: Callable[..., Served], workers: str, number: signal.Signals
) -> None:
    path = place / "p.sock"
    proxy = serve("--listen", f"unix:{path}", "--workers", workers)
    assert {reason_of(ask(str(path))) for _ in range(6)} == {"no-rule"}

    assert proxy.stop(number) == 0

    assert not path.exists()


def test_a_signal_during_the_start_leaves_nothing_behind(
    place: Path, serve: Callable[..., Served]
) -> None:
    path = place / "sockets" / "p.sock"
    serve("--listen", f"unix:{path}").stop()  # so that the CA is there, and a start is short

    for wait_ms in range(0, 1000, 200):
        proxy = serve("--listen", f"unix:{path}", ready=False)
        time.sleep(wait_ms / 1000)
        # As long as it is being loaded there is nobody to take the signal.
        assert proxy.stop() in {0, -signal.SIGTERM}
        assert list(path.parent.iterdir()) == []

    proxy = serve("--listen", f"unix:{path}", ready=False)
    until(path.exists)
    assert proxy.stop() == 0
    assert list(path.parent.iterdir()) == []


def test_a_start_that_fails_leaves_no_socket_behind(
    place: Path, serve: Callable[..., Served]
) -> None:
    path = place / "p.sock"
    (place / "state").mkdir(mode=0o700)
    (place / "state" / "audit.sqlite3").write_text("no database at all, but text " * 100)

    proxy = serve("--listen", f"unix:{path}", ready=False)

    assert proxy.process.wait(DEADLINE_S) != 0
    assert "fix:" in proxy.said()
    assert not path.exists()


def test_a_second_proxy_on_one_socket_is_refused_and_the_first_lives_on(
    place: Path, serve: Callable[..., Served]
) -> None:
    path = place / "p.sock"
    serve("--listen", f"unix:{path}")

    second = serve("--listen", f"unix:{path}", ready=False)

    assert second.process.wait(DEADLINE_S) == 2
    assert "another process already listens on this socket" in second.said()
    assert reason_of(ask(str(path))) == "no-rule"


def test_a_socket_that_is_removed_while_it_runs_is_no_fault(
    place: Path, serve: Callable[..., Served]
) -> None:
    path = place / "p.sock"
    proxy = serve("--listen", f"unix:{path}", "--port", "0")
    path.unlink()
    path.write_text("somebody's")

    assert reason_of(ask(("127.0.0.1", proxy.port()))) == "no-rule"
    assert proxy.stop() == 0
    assert path.read_text() == "somebody's"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_socket_file_is_removed_after_its_first_client(
    place: Path, serve: Callable[..., Served], workers: str
) -> None:
    path = place / "p.sock"
    serve("--listen", f"unix:{path}", "--unlink-socket", "--workers", workers)
    with socket.socket(socket.AF_UNIX) as looking:
        looking.connect(str(path))
    assert path.is_socket()

    assert reason_of(ask(str(path))) == "no-rule"

    assert not path.exists()


# --- several at once


def test_every_listener_has_a_name_of_its_own_in_the_audit(
    place: Path, serve: Callable[..., Served]
) -> None:
    one, two = place / "one.sock", place / "two.sock"
    proxy = serve("--listen", f"unix:{one}", "--port", "0", "--listen", f"unix:{two}")
    port = proxy.port()
    addresses: list[Any] = [str(one), ("127.0.0.1", port), str(two)]
    for address in addresses:
        ask(address)

    decisions = proxy.decisions()

    names = [f"unix {one}", f"tcp 127.0.0.1:{port}", f"unix {two}"]
    assert [decision["listener"] for decision in decisions] == names
    program = Path("/proc/self/exe").resolve()
    peer = f"pid {os.getpid()} uid {os.geteuid()} {program}"
    assert [decision["client"] for decision in decisions][::2] == [peer, peer]
    assert all(name.replace("unix ", "unix:") in proxy.said() for name in names[::2])


def test_tcp_needs_a_password_and_unix_sockets_peer_credentials(
    place: Path, serve: Callable[..., Served]
) -> None:
    environment = os.environ | {"CLAUDE_PROXY_AUTH": "agent:correct horse"}
    proxy = serve("--listen", f"unix:{place}/p.sock", "--port", "0", env=environment)

    unauthenticated = ask(("127.0.0.1", proxy.port()))

    assert unauthenticated.startswith(b"HTTP/1.1 407 ")
    assert reason_of(ask(str(place / "p.sock"))) == "no-rule"
    assert "correct horse" not in proxy.said()
    assert "correct horse" not in str(proxy.decisions())


def test_a_banner_names_no_port_where_there_is_none(
    place: Path, serve: Callable[..., Served]
) -> None:
    proxy = serve("--listen", f"unix:{place}/p.sock")

    assert f"claude-proxy listens on unix:{place}/p.sock\n" in proxy.said()
    assert "http://" not in proxy.said()


# --- whose it is


def ask_as(uid: int, path: Path) -> str:
    """Ask as another user, by whatever name; return the reason or what keeps it from that."""
    program = (
        "import os, sys\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "import socket\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "try: client.connect(sys.argv[1])\n"
        "except PermissionError: sys.exit('no permission')\n"
        f"try: client.sendall({REQUEST!r})\n"
        "except BrokenPipeError: pass\n"
        "try:\n"
        "    while piece := client.recv(65536): sys.stdout.write(piece.decode())\n"
        "except ConnectionResetError: pass\n"
    )
    python = Path("/usr/bin/python3")
    runs = python if python.exists() else Path(sys.executable)
    asked = subprocess.run(
        [runs, "-c", program, path], capture_output=True, text=True, cwd="/", check=False
    )
    return reason_of(asked.stdout.encode()) or asked.stderr.strip()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can pass."""
    if os.geteuid() != 0:
        pytest.skip("only root can ask as somebody else")
    with tempfile.TemporaryDirectory(prefix="ways-in-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_another_user_does_not_reach_the_socket(shared: Path, serve: Callable[..., Served]) -> None:
    serve("--listen", f"unix:{shared}/p.sock")

    assert ask_as(NOBODY, shared / "p.sock") == "no permission"


def test_a_user_who_is_not_named_is_refused_and_recorded(
    shared: Path, serve: Callable[..., Served]
) -> None:
    path = shared / "p.sock"
    proxy = serve("--listen", f"unix:{path}", "--socket-uid", "65533")

    assert ask_as(65533, path) == "no-rule"
    assert ask_as(NOBODY, path) == "client-not-allowed"
    assert reason_of(ask(str(path))) == "client-not-allowed"  # not even who runs it

    refused = [entry for entry in proxy.decisions() if entry["phase"] == "client"]
    assert [entry["reason"] for entry in refused] == ["client-not-allowed"] * 2
    assert f" uid {NOBODY} " in refused[0]["client"]
    assert refused[0]["listener"] == f"unix {path}"


# --- service managers


PASS_ON = """
import os, sys
for at, descriptor in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(descriptor, 3 + at)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_inherited_sockets_are_served_and_kept(place: Path, workers: str) -> None:
    path = place / "handed.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        address = tcp.getsockname()
        # Numbers far from 3 and 4, which they are copied to.
        given = [os.dup(sock.fileno()) for sock in (tcp, unix)]
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        high = ",".join(map(str, given))
        process = [sys.executable, "-c", PASS_ON, high, *command(place), "--workers", workers]
        environment = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:local"}
        out = place / "handed-out"
        with out.open("wb") as file:
            running = subprocess.Popen(
                process, stdout=file, stderr=file, env=environment, pass_fds=given
            )
        for descriptor in given:
            os.close(descriptor)
    try:
        until(lambda: READY in out.read_text() or running.poll() is not None)
        assert f"http://127.0.0.1:{address[1]}\n" in out.read_text()

        assert reason_of(ask(address)) == "no-rule"
        assert reason_of(ask(str(path))) == "no-rule"
    finally:
        running.terminate()

    assert running.wait(DEADLINE_S) == 0
    assert path.is_socket()  # it belongs to who made it


def test_the_gateways_inherited_socket_is_recognised_by_its_name(place: Path) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    proxy, gateway = [sock.getsockname() for sock in listeners]
    given = [os.dup(sock.fileno()) for sock in listeners]
    for descriptor in given:
        os.set_inheritable(descriptor, True)
    key = place / "key"
    key.write_text("a-key-of-the-test")
    key.chmod(0o600)
    high = ",".join(map(str, given))
    options = ["--gateway-provider", "anthropic", "--gateway-key-file", str(key)]
    process = [sys.executable, "-c", PASS_ON, high, *command(place), *options]
    environment = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "proxy:gateway"}
    out = place / "handed-out"
    with out.open("wb") as file:
        running = subprocess.Popen(
            process, stdout=file, stderr=file, env=environment, pass_fds=given
        )
    for end in listeners:
        end.close()
    for descriptor in given:
        os.close(descriptor)
    try:
        until(lambda: READY in out.read_text() or running.poll() is not None)

        assert reason_of(ask(proxy)) == "no-rule", out.read_text()
        with socket.create_connection(gateway) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b'"ok"' in answer_of(client)
    finally:
        running.terminate()

    assert running.wait(DEADLINE_S) == 0


def test_systemd_starts_it_when_the_first_client_comes(place: Path, program: FindProgram) -> None:
    path = place / "activated.sock"
    out = place / "activated-out"
    activate = [program("systemd-socket-activate"), f"--listen={path}", "--fdname=agents"]
    with out.open("wb") as file:
        running = subprocess.Popen([*activate, *command(place)], stdout=file, stderr=file)
    try:
        until(lambda: "Listening on" in out.read_text())
        answers = [ask(str(path)) for _ in range(2)]
    finally:
        running.terminate()
        running.wait(DEADLINE_S)

    assert {reason_of(answer) for answer in answers} == {"no-rule"}
    assert f"listens on unix:{path}" in out.read_text()
    log = [sys.executable, "-m", "claude_proxy", "log", "--listener", "agents", "--json"]
    shown = subprocess.run(
        [*log, "--statedir", str(place / "state")], capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("denied.test") == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_manager_is_notified_of_each_change(
    place: Path, serve: Callable[..., Served], workers: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify"))
        manager.settimeout(DEADLINE_S)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        environment = os.environ | {"NOTIFY_SOCKET": str(place / "notify")}
        told: list[str] = []

        def hear() -> None:
            text, ancillary, _, _ = manager.recvmsg(4096, 4096)
            # systemd believes the main process alone.
            sender = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            assert sender == proxy.process.pid
            told.append(text.decode().partition("\n")[0])

        proxy = serve("--port", "0", "--workers", workers, env=environment)
        hear()
        proxy.process.send_signal(signal.SIGHUP)
        hear()
        hear()
        assert proxy.stop() == 0
        hear()

    assert told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


# --- before the engine is there


def open_at(path: Path) -> socket.socket:
    """Return a connection to a socket that may not be there yet."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)

    def is_open() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client.connect(str(path))
            return True
        return False

    until(is_open)
    return client


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_client_that_is_early_waits_and_is_judged(
    place: Path, serve: Callable[..., Served], workers: str
) -> None:
    engine = Engine(place)
    engine.write(HOLDS)
    environment = os.environ | {"PYTHONPATH": str(place)}
    options = ("--listen", f"unix:{place / 'p.sock'}", "--workers", workers)
    proxy = serve(*options, ready=False, env=environment)

    with open_at(place / "p.sock") as client:
        client.sendall(REQUEST)
        assert READY not in proxy.said()
        engine.release()
        answer = answer_of(client)

    assert reason_of(answer) == "no-rule"
    assert [row["reason"] for row in proxy.decisions()] == ["no-rule"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_proxy_that_has_no_engine_yet_ends_at_a_signal(
    place: Path, serve: Callable[..., Served], workers: str
) -> None:
    Engine(place).write(HOLDS)
    environment = os.environ | {"PYTHONPATH": str(place)}
    options = ("--listen", f"unix:{place / 'p.sock'}", "--workers", workers)
    proxy = serve(*options, ready=False, env=environment)

    with open_at(place / "p.sock") as client:
        assert proxy.stop() == 0
        assert answer_of(client) == b""

    assert not (place / "p.sock").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_engine_that_fails_ends_the_proxy_with_its_error(
    place: Path, serve: Callable[..., Served], workers: str
) -> None:
    Engine(place).write("raise ImportError")
    environment = os.environ | {"PYTHONPATH": str(place)}
    options = ("--listen", f"unix:{place / 'p.sock'}", "--workers", workers)
    proxy = serve(*options, ready=False, env=environment)

    assert proxy.process.wait(DEADLINE_S) == 70
    assert "internal error (ImportError)" in proxy.said()
    assert not (place / "p.sock").exists()


# --- the process at the other end of a lifeline


LIFELINE = """
import os, sys
from pathlib import Path
from claude_proxy.server.app import Lifeline, serve
from claude_proxy.config.settings import Settings, UnixListen
place, ready, until, workers = Path(sys.argv[1]), *map(int, sys.argv[2:])
settings = Settings(place / "allowlist.yaml", place / "conf", place / "state",
    listen=(UnixListen(place / "p.sock"),), workers=workers)
lifeline = Lifeline(
    lambda: [os.write(ready, b"checked ")][:0],
    lambda: [os.write(ready, b"ready"), os.close(ready)][:0],
    until,
)
sys.exit(serve(settings, lifeline=lifeline))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_proxy_says_when_it_is_ready_and_ends_with_who_started_it(
    place: Path, workers: str
) -> None:
    command(place)  # for the allowlist
    hearing, ready = os.pipe()
    until, line = os.pipe()
    program = [sys.executable, "-c", LIFELINE, str(place), str(ready), str(until), workers]
    running = subprocess.Popen(program, pass_fds=(ready, until), stdout=subprocess.DEVNULL)
    os.close(ready)
    os.close(until)
    timer = threading.Timer(DEADLINE_S, running.kill)
    timer.start()
    try:
        assert os.read(hearing, 8) == b"checked "
        assert os.read(hearing, 100) == b"ready"
        assert reason_of(ask(str(place / "p.sock"))) == "no-rule"

        os.close(line)

        assert running.wait(DEADLINE_S) == 0
        assert not (place / "p.sock").exists()
    finally:
        timer.cancel()
        os.close(hearing)
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        running.wait()
