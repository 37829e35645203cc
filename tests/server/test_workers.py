"""Workers: several processes are one proxy, from the first to the last."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.waiting import until

DEADLINE_S = 60.0


class Running:
    """A proxy with two workers, started the way a user would."""

    def __init__(self, folder: Path) -> None:
        rules = folder / "allowlist.yaml"
        rules.write_text("allow: []\n")
        rules.chmod(0o600)
        self.rules = rules
        self.out = folder / "out.txt"
        options = ["--workers", "2", "--port", "0", "--allowlist", str(rules)]
        places = ["--confdir", str(folder / "conf"), "--statedir", str(folder / "state")]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "claude_proxy", "serve", *options, *places],
                stdout=out,
                stderr=out,
            )
        until(lambda: "Press Ctrl+C" in self.said())
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said())
        assert found is not None
        self.url = found[0]
        until(lambda: len(self.workers()) == 2)

    def said(self) -> str:
        return self.out.read_text()

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in _children(pid)]

    def ask(self, url: str = "http://denied.test/") -> httpx.Response:
        with httpx.Client(proxy=self.url, trust_env=False, timeout=DEADLINE_S) as client:
            return client.get(url)


def _children(pid: int) -> list[str]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    proxy = Running(tmp_path)
    workers = proxy.workers()
    yield proxy
    if proxy.process.poll() is None:
        proxy.process.kill()
        proxy.process.wait()
    until(lambda: all(is_gone(pid) for pid in workers))


def test_every_worker_serves_and_the_banner_is_printed_once(running: Running) -> None:
    answers = [running.ask() for _ in range(8)]

    assert {answer.headers["x-claude-proxy-reason"] for answer in answers} == {"no-rule"}
    assert running.said().count("claude-proxy listens on") == 1


def test_one_signal_ends_them_all_with_success(running: Running) -> None:
    workers = running.workers()

    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(DEADLINE_S) == 0
    until(lambda: all(is_gone(pid) for pid in workers))
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


def test_the_end_of_one_worker_is_the_end_of_all(running: Running) -> None:
    first, second = running.workers()

    os.kill(first, signal.SIGKILL)

    assert running.process.wait(DEADLINE_S) == 1
    until(lambda: is_gone(second))
    assert "a worker process ended unexpectedly" in running.said()
    assert "Traceback" not in running.said()


def test_workers_do_not_outlive_their_parent(running: Running) -> None:
    workers = running.workers()

    running.process.kill()
    running.process.wait()

    until(lambda: all(is_gone(pid) for pid in workers))


def test_a_port_that_another_proxy_shares_is_busy(running: Running, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    places = ["--confdir", str(tmp_path / "conf"), "--statedir", str(tmp_path / "state")]
    command = [sys.executable, "-m", "claude_proxy", "serve", "--workers", "2", "--port", port]

    second = subprocess.run([*command, *places], capture_output=True, text=True, check=False)

    assert second.returncode == 2
    assert "cannot listen on 127.0.0.1" in second.stderr
