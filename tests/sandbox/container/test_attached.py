"""What the engine says of itself is an error with a fix; what CMD says is left as it is."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import enter
from claude_proxy.sandbox.container.attached import Attached
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.keeper_link import KeeperChannel, LauncherLink
from claude_proxy.sandbox.container.missing_programs import NoProgramError
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.waiting import until

type Ends = tuple[KeeperChannel, LauncherLink]

ENGINE = Engine(EngineKind.PODMAN, Path("/bin/sh"), {"PATH": "/usr/bin:/bin"})


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, link = KeeperChannel(1, ours), LauncherLink(theirs)
    yield channel, link
    channel.close()
    link.drop()


def attached(
    script: str, channel: KeeperChannel, directory: Path, *, quiet: bool = False
) -> Attached:
    words = ["/bin/sh", "-c", script]
    return Attached(ENGINE, words, channel, enter.place_pipes(directory), quiet=quiet)


def test_the_exit_code_is_that_of_the_engines_process(tmp_path: Path, ends: Ends) -> None:
    channel, link = ends
    link.tell("started")
    with closing(attached("exit 42", channel, tmp_path)) as process:
        process.wait_until_started(print)

        assert process.wait(lambda: True) == 42


def test_a_process_that_a_signal_ends_has_the_code_of_a_shell(tmp_path: Path, ends: Ends) -> None:
    channel, link = ends
    link.tell("started")
    with closing(attached("kill -KILL $$", channel, tmp_path)) as process:
        process.wait_until_started(print)

        assert process.wait(lambda: True) == 128 + signal.SIGKILL


def test_an_engine_that_fails_before_the_start_says_why(tmp_path: Path, ends: Ends) -> None:
    channel, _ = ends
    script = "echo 'Error: no subuid ranges found' >&2; exit 125"

    with (
        closing(attached(script, channel, tmp_path, quiet=True)) as process,
        pytest.raises(EngineError, match="range of user ids"),
    ):
        process.wait_until_started(print)


def test_a_command_that_was_never_started_is_an_error_of_the_engine(
    tmp_path: Path, ends: Ends
) -> None:
    channel, link = ends
    link.tell("started")
    script = "echo 'Error: runc: no such file' >&2; exit 127"
    with closing(attached(script, channel, tmp_path, quiet=True)) as process:
        process.wait_until_started(print)

        with pytest.raises(EngineError, match="no such file"):
            process.wait(lambda: False)


def test_a_command_that_fails_like_an_engine_keeps_its_code(
    tmp_path: Path, ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    channel, link = ends
    link.tell("started")
    with closing(attached("echo 'Error: mine' >&2; exit 127", channel, tmp_path)) as process:
        process.wait_until_started(print)

        assert process.wait(lambda: True) == 127
    assert capfd.readouterr().err == "Error: mine\n"


def test_an_error_of_the_keeper_ends_the_engine(tmp_path: Path, ends: Ends) -> None:
    channel, link = ends
    link.fail(ClaudeProxyError("no proxy"))
    script = f'read -r answer < "{tmp_path}/hook.answer"; test "$answer" = go'

    with (
        closing(attached(script, channel, tmp_path)) as process,
        pytest.raises(ClaudeProxyError, match="no proxy"),
    ):
        process.wait_until_started(print)


def threads_blocking(number: int) -> dict[int, bool]:
    """Tell of each thread of this process whether a signal is blocked in it."""
    found = {}
    for path in Path("/proc/self/task").glob("*/status"):
        mask = int(path.read_text("ascii").partition("SigBlk:")[2].split()[0], 16)
        found[int(path.parent.name)] = bool(mask >> (number - 1) & 1)
    return found


def test_no_thread_takes_a_signal_before_it_is_waited_for(tmp_path: Path, ends: Ends) -> None:
    channel, link = ends
    link.tell("started")
    before = threads_blocking(signal.SIGTERM)  # other tests may have left some
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with closing(attached(f"read line < '{gate}'", channel, tmp_path)) as process:
        found = threads_blocking(signal.SIGTERM)
        gate.write_text("go\n", "ascii")

        assert process.wait(lambda: True) == 0

    own = {thread: blocks for thread, blocks in found.items() if thread not in before}
    assert list(own.values()) == [True]  # the one that copies errors
    assert found[threading.get_native_id()]


def test_a_signal_to_the_launcher_is_passed_on(tmp_path: Path, ends: Ends) -> None:
    channel, link = ends
    link.tell("started")
    script = "trap 'exit 7' TERM; echo > ready; while true; do sleep 0.01; done"
    with closing(attached(f"cd {tmp_path}; {script}", channel, tmp_path)) as process:
        process.wait_until_started(print)
        main = threading.main_thread().ident
        assert main is not None

        def send() -> None:
            while not (tmp_path / "ready").exists():
                pass
            signal.pthread_kill(main, signal.SIGTERM)

        thread = threading.Thread(target=send)
        thread.start()

        assert process.wait(lambda: True) == 7
        thread.join()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('runc: exec: "nosuch": executable file not found in $PATH: OCI runtime attempted', 127),
        ('unable to start container process: exec: "nosuch": permission denied', 126),
        ("crun: executable file `nosuch` not found in $PATH: No such file or directory", 127),
    ],
)
def test_a_program_that_cannot_be_started_is_named_as_exec_names_it(
    tmp_path: Path, ends: Ends, said: str, code: int
) -> None:
    channel, _ = ends
    (tmp_path / "said").write_text(f"Error: {said}\n")
    script = f"cat {tmp_path}/said >&2; exit {code}"

    with (
        closing(attached(script, channel, tmp_path)) as process,
        pytest.raises(NoProgramError, match='"nosuch"') as raised,
    ):
        process.wait_until_started(print)
    assert raised.value.exit_code == code


def test_of_a_container_that_is_gone_only_what_names_a_program_is_an_error(
    tmp_path: Path, ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    channel, link = ends
    link.tell("started")
    with closing(attached("echo 'Error: mine' >&2; exit 127", channel, tmp_path)) as process:
        process.wait_until_started(print)

        assert process.wait(lambda: None) == 127
    assert capfd.readouterr().err == "Error: mine\n"


def test_a_signal_that_does_nothing_to_the_command_ends_it_with_its_own_code(
    tmp_path: Path, ends: Ends
) -> None:
    channel, link = ends
    link.tell("started")
    (tmp_path / "pid").write_text("")
    script = f"cd {tmp_path}; trap '' INT; echo $$ > pid; exec sleep 1000"
    asked: list[int] = []

    def end(number: int) -> bool:
        asked.append(number)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        return True

    with closing(attached(script, channel, tmp_path)) as process:
        process.wait_until_started(print)
        until(lambda: (tmp_path / "pid").read_text().endswith("\n"), "the command")
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)  # it is blocked until it is waited for

        assert process.wait(lambda: True, end) == 128 + signal.SIGINT
    assert asked == [signal.SIGINT]
