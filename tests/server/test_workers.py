"""Workers: several processes are one proxy, from the first to the last."""

import math
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.server import workers
from claude_proxy.server.workers import WorkerSlot
from claude_proxy.system.sd_notify import StateListener
from tests.support.processes import has_ended
from tests.support.waiting import until

DEADLINE_S = 60.0


class Running:
    """A proxy with two workers, started the way a user would."""

    def __init__(self, folder: Path, *more: str) -> None:
        rules = folder / "allowlist.yaml"
        rules.write_text("allow: []\n")
        rules.chmod(0o600)
        self.rules = rules
        self.out = folder / "out.txt"
        self.statedir = folder / "state"
        options = ["--workers", "2", "--port", "0", "--allowlist", str(rules), *more]
        places = ["--confdir", str(folder / "conf"), "--statedir", str(folder / "state")]
        with (
            self.out.open("wb") as out,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        ):
            manager.bind(str(folder / "notify"))
            manager.settimeout(DEADLINE_S)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "claude_proxy", "serve", *options, *places],
                stdout=out,
                stderr=out,
                env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            )
            assert manager.recv(100) == b"READY=1"  # all of them
        until(lambda: "Press Ctrl+C" in self.said())
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said())
        assert found is not None
        self.url = found[0]
        until(lambda: len(self.workers()) == 2)
        self.first_workers = self.workers()

    def said(self) -> str:
        return self.out.read_text()

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in _children(pid)]

    def ask(self, url: str = "http://denied.test/") -> httpx.Response:
        with httpx.Client(proxy=self.url, trust_env=False, timeout=DEADLINE_S) as client:
            return client.get(url)

    def notices(self, kind: str) -> list[str]:
        with closing(sqlite3.connect(self.statedir / "audit.sqlite3")) as log:
            rows = log.execute("SELECT text FROM notice WHERE kind = ?", (kind,))
            return [text for (text,) in rows]


def _children(pid: int) -> list[str]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Lend a proxy; a test's parameter is more options of it."""
    proxy = Running(tmp_path, *getattr(request, "param", ()))
    workers = proxy.workers()
    yield proxy
    if proxy.process.poll() is None:
        proxy.process.kill()
        proxy.process.wait()
    until(lambda: all(map(has_ended, workers)))


def test_every_worker_serves_and_the_banner_is_printed_once(running: Running) -> None:
    answers = [running.ask() for _ in range(8)]

    assert {answer.headers["x-claude-proxy-reason"] for answer in answers} == {"no-rule"}
    assert running.said().count("claude-proxy listens on") == 1


def connect(proxy: Running, client: str) -> socket.socket:
    address = ("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    return socket.create_connection(address, DEADLINE_S, source_address=(client, 0))


def is_open(connection: socket.socket) -> bool:
    return not select.select([connection], (), (), 0)[0]  # nothing is sent to it but its end


@pytest.mark.parametrize("running", [("--max-connections", "20")], indirect=True)
def test_one_client_has_no_more_connections_over_all_workers_and_keeps_nobody_out(
    running: Running,
) -> None:
    with ExitStack() as stack:
        greedy = [stack.enter_context(connect(running, "127.0.0.2")) for _ in range(60)]
        until(lambda: sum(map(is_open, greedy)) <= 20)

        answers = []
        for _ in range(12):  # to either worker
            with connect(running, "127.0.0.3") as connection:
                connection.sendall(b"CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test\r\n\r\n")
                answers.append(connection.recv(12))

    assert answers == [b"HTTP/1.1 403"] * 12


def test_one_signal_ends_them_all_with_success(running: Running) -> None:
    workers = running.workers()

    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(DEADLINE_S) == 0
    until(lambda: all(map(has_ended, workers)))
    assert running.said().count("Stopped.") == 1


def test_an_interrupt_at_the_terminal_ends_them_with_success(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)

    assert running.process.wait(DEADLINE_S) == 0


def test_a_change_of_the_allowlist_reaches_every_worker(running: Running) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # so that nobody else listens there
        url = "http://{}:{}/".format(*closed.getsockname())
        rule = f"host: 127.0.0.1, scheme: http, ports: [{closed.getsockname()[1]}]"
        running.rules.write_text(f"allow:\n  - {{{rule}}}\n")
        running.process.send_signal(signal.SIGHUP)

        # Allowed now, and then refused: 502 from each of the workers in turn.
        until(lambda: all(running.ask(url).status_code == 502 for _ in range(6)))
    # Whoever speaks for all may not have been among those that were asked.
    until(lambda: "Allowlist applied" in running.said())
    assert running.said().count("Allowlist applied") == 1


@pytest.mark.parametrize("at", [0, 1])
def test_a_worker_that_was_killed_is_replaced_and_recorded(running: Running, at: int) -> None:
    gone = running.workers()[at]
    running.rules.write_text("allow: []\ndeny: [denied.test]\n")

    os.kill(gone, signal.SIGKILL)
    until(lambda: len(running.workers()) == 2 and gone not in running.workers())
    running.process.send_signal(signal.SIGHUP)
    until(
        lambda: {running.ask().headers["x-claude-proxy-reason"] for _ in range(8)} == {"deny-rule"}
    )
    (new,) = set(running.workers()) - {gone} - set(running.first_workers)

    number = at + 1
    ended = f"worker {number} (process {gone}) was killed by SIGKILL"
    assert f"{ended}; it is replaced" in running.said()
    assert running.notices("worker-replaced") == [f"{ended}; process {new} replaces it"]
    assert running.said().count("claude-proxy listens on") == 1
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(DEADLINE_S) == 0
    assert "Traceback" not in running.said()


def test_connection_numbers_of_workers_are_different(running: Running) -> None:
    for number in range(12):
        running.ask(f"http://denied{number}.test/")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(DEADLINE_S) == 0

    with closing(sqlite3.connect(running.statedir / "audit.sqlite3")) as log:
        numbers = [number for (number,) in log.execute("SELECT connection FROM decision")]
    assert len(set(numbers)) == 12


def lives(ends: Callable[[WorkerSlot], None], news: StateListener, grace_s: float = 60) -> None:
    """Run two workers in a process of its own that is not a proxy."""
    workers.run(2, ends, news, grace_s=grace_s)


class Quiet:
    """A service manager that is told nothing."""

    def ready(self) -> None: ...
    def reloading(self) -> None: ...
    def reloaded(self) -> None: ...
    def stopping(self) -> None: ...


def report_ready(slot: WorkerSlot) -> None:
    assert slot.report is not None
    if slot.replaces is None:
        os.write(slot.report, b"+")


def test_a_worker_that_ends_again_and_again_ends_the_proxy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "_FIRST_PAUSE_S", 0)
    monkeypatch.setattr(workers, "_SHORT_LIFE_S", math.inf)  # a busy machine forks slowly

    def work(slot: WorkerSlot) -> None:
        report_ready(slot)
        if slot.number == 0 and slot.parent_gone is not None:
            select.select([slot.parent_gone], (), ())
        if slot.replaces is None:
            other_is_ready()
        os._exit(3)

    def other_is_ready() -> None:
        os.read(reading, 1)

    reading, writing = os.pipe()
    os.write(writing, b"x")
    with pytest.raises(ClaudeProxyError, match=r"worker 2 .* ended with code 3, 5 times in a row"):
        lives(work, Quiet())
    os.close(reading)
    os.close(writing)
    assert capfd.readouterr().err.count("it is replaced") == 4


def test_a_worker_that_does_not_start_ends_the_proxy() -> None:
    def work(slot: WorkerSlot) -> None:
        if slot.number == 0:
            raise ClaudeProxyError("it cannot start")
        time.sleep(DEADLINE_S)

    with pytest.raises(
        ClaudeProxyError, match=r"ended unexpectedly \(code 1\), so the proxy stopped"
    ):
        lives(work, Quiet())


def test_a_worker_that_heeds_no_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_KILL_AFTER_S", 0)

    def work(slot: WorkerSlot) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report_ready(slot)
        if slot.number == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        while True:
            time.sleep(DEADLINE_S)

    lives(work, Quiet(), grace_s=0)


def test_workers_do_not_outlive_their_parent(running: Running) -> None:
    workers = running.workers()

    running.process.kill()
    running.process.wait()

    until(lambda: all(map(has_ended, workers)))


def test_a_port_that_another_proxy_shares_is_busy(running: Running, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    places = ["--confdir", str(tmp_path / "conf"), "--statedir", str(tmp_path / "state")]
    command = [sys.executable, "-m", "claude_proxy", "serve", "--workers", "2", "--port", port]

    second = subprocess.run([*command, *places], capture_output=True, text=True, check=False)

    assert second.returncode == 2
    assert "cannot listen on 127.0.0.1" in second.stderr
