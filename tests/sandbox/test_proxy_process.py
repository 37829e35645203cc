"""The proxy of a run serves on the socket that it is given, and ends with its launcher."""

import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import InheritedListen, Settings, Verbosity
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import helper_processes, waiting_process
from claude_proxy.sandbox.helper_processes import ProxyProcess
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog, open_log
from claude_proxy.sandbox.start_patience import StartPatience
from tests.support.engines import HOLDS, Engine

ROOT = Path(__file__).resolve().parents[2]
REQUEST = b"CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test:443\r\n\r\n"

# Starts a proxy process and waits to be killed.
LAUNCHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.sandbox.test_proxy_process import Stand
stand = Stand(Path(sys.argv[1]))
stand.proxy_process.wait_until_ready()
print(stand.proxy_process.pid, stand.run_directory.socket_path, flush=True)
sys.stdin.read()
"""


class Stand:
    """A proxy process and what it needs, in a directory of their own."""

    def __init__(self, directory: Path, allowlist: str = "allow: [allowed.test]\n") -> None:
        self.directory = directory
        file = directory / "allowlist.yaml"
        file.write_text(allowlist, encoding="utf-8")
        self.settings = Settings(
            file, directory / "conf", directory / "state", verbosity=Verbosity.QUIET
        )
        self.run_directory = RunDirectory.make(["tried"], name="tried", above=directory / "runs")
        self.log: RunLog = open_log(self.settings.statedir, "tried")
        with self.run_directory.listen() as listener:
            settings = replace(self.settings, listen=(InheritedListen(listener.fileno(), "run"),))
            self.proxy_process: ProxyProcess = helper_processes.start_proxy_process(
                settings, (listener,), self.run_directory, self.log
            )

    def close(self) -> None:
        """Take it all down."""
        self.proxy_process.end()
        self.log.file.close()
        self.run_directory.remove()


@contextmanager
def stand_at(directory: Path, allowlist: str = "allow: [allowed.test]\n") -> Iterator[Stand]:
    """A proxy process that is taken down without waiting."""
    stand = Stand(directory, allowlist)
    try:
        yield stand
    finally:
        stand.proxy_process.process.kill()
        stand.close()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """What is imported in the place of mitmproxy."""
    return Engine(tmp_path)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="stand-") as name:
        yield Path(name)


@pytest.fixture
def stand(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A proxy process that starts, and has all the time that it needs to end."""
    monkeypatch.setattr(helper_processes, "_END_PATIENCE_S", 60.0)
    stand = Stand(directory)
    yield stand
    stand.close()


def ask(path: Path) -> bytes:
    """Return the first line of the answer to a CONNECT that is denied."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(REQUEST)
        return client.makefile("rb").readline()


@dataclass
class Held:
    """The sockets that a process listens on."""

    unix: list[str]
    tcp: int


def listening(pid: int) -> Held:
    """Return what a process listens on, as the kernel tells."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    unix = [
        line.split()[7]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if line.split()[6] in inodes and len(line.split()) > 7 and line.split()[5] == "01"
    ]
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return Held(unix, sum(row[9] in inodes for row in rows))


def test_it_serves_on_the_socket_that_it_inherits_and_on_nothing_else(stand: Stand) -> None:
    stand.proxy_process.wait_until_ready()

    assert ask(stand.run_directory.socket_path).startswith(b"HTTP/1.1 403")
    assert listening(stand.proxy_process.pid) == Held([str(stand.run_directory.socket_path)], 0)


def test_it_ends_with_the_lifeline(stand: Stand) -> None:
    stand.proxy_process.wait_until_ready()

    stand.proxy_process.end()

    assert stand.proxy_process.process.returncode == 0


def test_it_ends_when_its_launcher_is_killed(directory: Path) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(directory), str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert launcher.stdout is not None
    pid, path = launcher.stdout.readline().split()
    descriptor = os.pidfd_open(int(pid))
    assert ask(Path(os.fsdecode(path))).startswith(b"HTTP/1.1 403")

    launcher.kill()
    launcher.communicate()

    with open(descriptor, "rb", buffering=0) as ended:  # noqa: PTH123 - a descriptor
        assert select.select([ended], [], [], 60)[0]


def test_it_has_its_own_session_that_no_key_reaches(stand: Stand) -> None:
    assert os.getsid(stand.proxy_process.pid) == stand.proxy_process.pid


def test_it_has_no_streams_of_the_terminal(stand: Stand) -> None:
    stand.proxy_process.wait_until_ready()

    streams = [
        str(Path(f"/proc/{stand.proxy_process.pid}/fd/{number}").readlink()) for number in range(3)
    ]

    assert streams == ["/dev/null", str(stand.log.path), str(stand.log.path)]
    assert stat.S_IMODE(stand.log.path.stat().st_mode) == 0o600


def test_an_empty_log_is_removed(stand: Stand) -> None:
    stand.proxy_process.wait_until_ready()
    stand.proxy_process.end()

    assert not stand.log.path.exists()


def test_a_start_error_is_reported_with_place_and_fix(directory: Path) -> None:
    stand = Stand(directory, 'allow:\n  - "*"\n')

    with pytest.raises(ConfigError) as caught:
        stand.proxy_process.wait_until_ready()

    stand.close()
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{directory}/allowlist.yaml:2")
    assert caught.value.fix is not None


def test_a_killed_proxy_is_reported(stand: Stand) -> None:
    os.kill(stand.proxy_process.pid, signal.SIGKILL)

    with pytest.raises(ClaudeProxyError, match=r"by signal 9 \(SIGKILL\) before") as caught:
        stand.proxy_process.wait_until_ready()

    assert not any(str(stand.log.path) in line for line in caught.value.lines())  # it is empty


def test_a_stopped_proxy_is_noted_and_then_an_error_and_is_ended(stand: Stand) -> None:
    said: list[str] = []
    os.kill(stand.proxy_process.pid, signal.SIGSTOP)
    stand.proxy_process.patience = StartPatience(said.append)
    stand.proxy_process.patience.give_up_at = 0.0

    with pytest.raises(ClaudeProxyError, match="was not ready after 120 seconds") as caught:
        stand.proxy_process.wait_until_checked()

    waits = f"waits for its proxy (process {stand.proxy_process.pid}), which is not ready yet"
    assert said == [f"note: the run {waits}"]
    assert caught.value.where == f"process {stand.proxy_process.pid}, which was ended"
    assert stand.proxy_process.process.wait(60) == -signal.SIGKILL


def test_a_proxy_that_does_not_take_its_task_is_an_error_and_is_ended(directory: Path) -> None:
    waiting_process.expect(["true"], {"PATH": os.environ["PATH"]})
    assert waiting_process._Early.waiting is not None
    early = waiting_process._Early.waiting.process
    os.kill(early.pid, signal.SIGSTOP)
    log = open_log(directory, "tried")
    patience = StartPatience()
    patience.give_up_at = 0.0

    with log.file, pytest.raises(ClaudeProxyError, match="was not ready after"):
        helper_processes._process_with(bytes(64 << 20), (), "tried", log, patience)

    assert early.returncode == -signal.SIGKILL


def test_a_proxy_that_has_checked_all_is_not_ready_yet(directory: Path, engine: Engine) -> None:
    with engine.that(HOLDS), stand_at(directory) as stand:
        stand.proxy_process.wait_until_checked()
        stand.proxy_process.hear()

        assert (stand.proxy_process.report is None, stand.proxy_process.start_error) == (
            False,
            None,
        )
        with socket.socket(socket.AF_UNIX) as early:
            early.settimeout(60)
            early.connect(str(stand.run_directory.socket_path))
            early.sendall(REQUEST)
            engine.release()
            assert early.makefile("rb").readline().startswith(b"HTTP/1.1 403")
        stand.proxy_process.wait_until_ready()


def test_a_start_error_comes_before_any_engine(directory: Path, engine: Engine) -> None:
    with (
        engine.that("os._exit(9)"),
        stand_at(directory, 'allow:\n  - "*"\n') as stand,
        pytest.raises(ConfigError, match="matches every host"),
    ):
        stand.proxy_process.wait_until_checked()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os._exit(9)", r"ended \(exit code 9\) before it was ready"),
        ("raise ImportError('secret')", r"internal error \(ImportError\) in the proxy of the run"),
    ],
)
def test_an_engine_that_fails_is_the_error_of_the_start(
    directory: Path, engine: Engine, does: str, said: str
) -> None:
    with engine.that(does), stand_at(directory) as stand:
        stand.proxy_process.wait_until_checked()

        with pytest.raises(ClaudeProxyError, match=said):
            stand.proxy_process.wait_until_ready()
        assert stand.proxy_process.start_error is not None
        assert "secret" not in " ".join(stand.proxy_process.start_error.lines())


def test_it_ends_with_its_launcher_while_its_engine_is_imported(
    directory: Path, engine: Engine
) -> None:
    with engine.that(HOLDS), stand_at(directory) as stand:
        stand.proxy_process.wait_until_checked()

        stand.proxy_process.close_lifeline()

        assert stand.proxy_process.process.wait(60) == 0


@pytest.mark.parametrize(
    "said", [b"checked\nchecked\n", b"ready", b"checked\nready!\n", b"ready" * 20_000, b"\n"]
)
def test_a_report_of_another_form_is_a_failure(said: bytes, tmp_path: Path) -> None:
    heard, report = os.pipe()
    until_, lifeline = os.pipe()
    writer = "import os, sys; os.write(int(sys.argv[1]), sys.stdin.buffer.read())"
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(report)], stdin=subprocess.PIPE, pass_fds=(report,)
    )
    for descriptor in (report, until_):
        os.close(descriptor)
    assert process.stdin is not None
    process.stdin.write(said)
    process.stdin.close()
    proxy_process = ProxyProcess(process, lifeline, heard, tmp_path / "log")

    with pytest.raises(ClaudeProxyError, match=r"ended \(exit code 0\) before it was ready"):
        proxy_process.wait_until_ready()

    assert proxy_process.report is None
    process.wait()
    with suppress(FileNotFoundError):
        proxy_process.end()


def test_a_starting_proxy_is_ended_without_waiting(stand: Stand) -> None:
    stand.proxy_process.end()

    assert stand.proxy_process.process.returncode == -signal.SIGKILL


def test_a_process_that_was_started_early_becomes_the_proxy(directory: Path) -> None:
    waiting_process.expect(["true"], {"PATH": os.environ["PATH"]})
    early = waiting_process._Early.waiting

    with stand_at(directory) as stand:
        stand.proxy_process.wait_until_ready()

        assert early is not None
        assert stand.proxy_process.pid == early.process.pid
        assert ask(stand.run_directory.socket_path).startswith(b"HTTP/1.1 403")
        assert listening(stand.proxy_process.pid) == Held([str(stand.run_directory.socket_path)], 0)
    assert waiting_process.take() is None


def test_an_early_process_that_has_ended_is_replaced(directory: Path) -> None:
    waiting_process.expect(["true"], {"PATH": os.environ["PATH"]})
    assert waiting_process._Early.waiting is not None
    early = waiting_process._Early.waiting.process
    early.kill()
    early.wait()

    with stand_at(directory) as stand:
        stand.proxy_process.wait_until_ready()

        assert stand.proxy_process.pid != early.pid


def test_an_early_process_prints_to_the_log_of_its_run(directory: Path) -> None:
    waiting_process.expect(["true"], {"PATH": os.environ["PATH"]})

    with stand_at(directory) as stand:
        stand.proxy_process.wait_until_ready()
        own = Path(f"/proc/{stand.proxy_process.pid}/fd")
        streams = [str((own / str(number)).readlink()) for number in range(3)]

    assert streams == ["/dev/null", str(stand.log.path), str(stand.log.path)]


def test_old_logs_are_removed(directory: Path) -> None:
    for number in range(30):
        open_log(directory, f"run-{number}").file.close()

    assert len(list((directory / "runs").iterdir())) <= 21
