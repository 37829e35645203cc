"""The process that waits for the task of a proxy, and knows nothing before it has one."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox import waiting_process
from claude_proxy.sandbox.start_patience import StartPatience
from claude_proxy.sandbox.waiting_process import WaitingProcess, harmless

SECRETS = {"PATH": "/usr/bin:/bin", "ANTHROPIC_API_KEY": "sk-secret", "HOME": "/home/me"}

ROOT = Path(__file__).resolve().parents[2]

# Starts a process early, stops it, and waits for a signal.
LAUNCHER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from claude_proxy.sandbox import waiting_process
waiting_process.expect(["true"], {})
pid = waiting_process._Early.waiting.process.pid
os.kill(pid, signal.SIGSTOP)
print(pid, flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def waiting() -> Iterator[WaitingProcess]:
    found = WaitingProcess(SECRETS, "claude-proxy-test")
    yield found
    found.end()


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    yield
    waiting_process.discard()


def has_ended(descriptor: int) -> bool:
    with open(descriptor, "rb", buffering=0) as ended:
        return bool(select.select([ended], [], [], 60)[0])


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "PATHS", "A_PATH"])
def test_what_may_be_a_secret_is_not_harmless(name: str) -> None:
    assert harmless({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_it_is_started_without_what_may_be_a_secret(waiting: WaitingProcess) -> None:
    initial = Path(f"/proc/{waiting.process.pid}/environ").read_bytes()

    assert b"secret" not in initial
    assert b"HOME=/home/me" in initial


def test_it_has_no_files_of_the_launcher(waiting: WaitingProcess, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"):
        links = [path.readlink() for path in Path(f"/proc/{waiting.process.pid}/fd").iterdir()]

    assert not [link for link in links if str(link).startswith(str(tmp_path))]
    assert os.getsid(waiting.process.pid) == waiting.process.pid


def test_it_ends_when_its_launcher_has_no_task_for_it(waiting: WaitingProcess) -> None:
    descriptor = os.pidfd_open(waiting.process.pid)

    waiting._channel.close()

    assert has_ended(descriptor)
    assert waiting.process.wait(60) == 0


def test_a_process_that_has_ended_gets_no_task(waiting: WaitingProcess) -> None:
    waiting.process.send_signal(signal.SIGKILL)
    waiting.process.wait()

    assert not waiting.hand_over(b"task", [], StartPatience())


def test_a_process_that_reads_nothing_takes_no_task_of_any_length(waiting: WaitingProcess) -> None:
    waiting.process.send_signal(signal.SIGSTOP)
    patience = StartPatience()
    patience.give_up_at = 0.0

    with pytest.raises(TimeoutError):
        waiting.hand_over(bytes(64 << 20), [], patience)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_launcher_ends_a_stopped_process_too(number: signal.Signals) -> None:
    # The measurement of the coverage has a handler of its own for SIGTERM.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(ROOT)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    with launcher.stdout as told:
        descriptor = os.pidfd_open(int(told.readline()))

        launcher.send_signal(number)

        assert launcher.wait(60) == -number
    assert has_ended(descriptor)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["-h"],
        ["--dry-run", "--", "true"],
        ["--proxy", "127.0.0.1:1", "--", "true"],
        ["--proxy=127.0.0.1:1", "--", "true"],
        ["--no-network", "true"],
        ["--list-policies"],
    ],
)
def test_a_run_without_a_proxy_of_its_own_starts_none(arguments: list[str]) -> None:
    waiting_process.expect(arguments, SECRETS)

    assert waiting_process.take() is None


def test_what_follows_the_options_is_the_commands() -> None:
    waiting_process.expect(["--", "claude", "--help"], SECRETS)

    found = waiting_process.take()

    assert found is not None
    found.end()


def test_it_is_taken_once() -> None:
    waiting_process.expect(["true"], SECRETS)
    found = waiting_process.take()

    assert found is not None
    assert waiting_process.take() is None
    found.end()


def test_what_nobody_has_taken_is_ended() -> None:
    waiting_process.expect(["true"], SECRETS)
    assert waiting_process._Early.waiting is not None
    process = waiting_process._Early.waiting.process

    waiting_process.discard()

    assert process.returncode == -signal.SIGKILL
    assert waiting_process.take() is None


def test_a_machine_without_room_for_it_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(waiting_process, "WaitingProcess", fail)

    waiting_process.expect(["true"], SECRETS)

    assert waiting_process.take() is None


def test_one_that_has_ended_is_not_adopted() -> None:
    waiting_process.expect(["--allow-rw", "."], {})
    early = waiting_process.take()
    assert early is not None
    early.process.kill()
    early.process.wait()
    waiting_process._Early.waiting = early

    waiting_process.adopt()

    assert waiting_process.take() is None
