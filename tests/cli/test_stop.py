"""`claude-proxy stop` ends what is meant, and nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from claude_proxy.cli import main
from tests.support.control import Running, facts, says

# A process that has a control socket, or is the launcher of a run, and ends by SIGTERM.
PROXY = """
import os, signal, sys, time
from pathlib import Path
from claude_proxy.control import places, protocol
from claude_proxy.control.protocol import ProxyFacts
place = places.claim(Path(sys.argv[1]), sys.argv[2])
place.write(protocol.encode_facts(ProxyFacts(place.name, "serve", os.getpid(), time.time())))
sock = place.listen(0)
if len(sys.argv) > 3:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
LAUNCHER = """
import sys, time
from pathlib import Path
from claude_proxy.sandbox.run_directory import RunDirectory
made = RunDirectory.make(["sleep"], name=sys.argv[2], above=Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""


class Programs:
    """Programs that run until they are stopped."""

    def __init__(self, machine: Running) -> None:
        self._machine = machine
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *words: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", program, str(self._machine.base), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process


@pytest.fixture
def programs(machine: Running) -> Iterator[Programs]:
    made = Programs(machine)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.main(["stop", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("program", [PROXY, LAUNCHER], ids=["a proxy", "a run without one"])
def test_what_is_named_ends_by_sigterm(
    programs: Programs, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    process = programs.start(program, "web")

    code, out, _ = told(capsys, "web")

    assert (code, out) == (0, "web: stopped\n")
    assert process.wait() == -15


@pytest.mark.parametrize("program", [PROXY, LAUNCHER], ids=["a proxy", "a run without one"])
def test_one_that_is_suspended_ends_too(
    programs: Programs, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    process = programs.start(program, "web")
    process.send_signal(19)  # SIGSTOP

    code, out, _ = told(capsys, "web", "--json")

    assert code == 0
    assert json.loads(out)["stopped"] is True
    assert process.wait() == -15


def test_the_launcher_of_a_run_is_told_and_not_its_proxy(
    programs: Programs, machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = programs.start(LAUNCHER, "web")
    machine.starts(facts("web", project="/code", pid=os.getpid()), says())

    code, _, _ = told(capsys, "web")

    assert code == 0
    assert launcher.wait() == -15


def test_one_that_does_not_end_in_time_is_an_error(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    process = programs.start(PROXY, "web", "deaf")

    code, out, err = told(capsys, "web", "--time", "0")

    assert (code, out) == (1, "")
    assert "has not ended within 0 s" in err
    assert process.poll() is None


def test_the_others_go_on(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    meant, other = programs.start(PROXY, "web"), programs.start(PROXY, "api")

    told(capsys, "web")

    assert meant.wait() == -15
    assert other.poll() is None


def test_all_are_stopped(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    started = [programs.start(PROXY, "web"), programs.start(LAUNCHER, "lone")]

    code, out, _ = told(capsys, "--all")

    assert code == 0
    assert sorted(out.splitlines()) == ["lone: stopped", "web: stopped"]
    assert [one.wait() for one in started] == [-15, -15]


def test_a_process_that_has_the_number_of_a_dead_proxy_is_left_alone(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        machine.starts(facts("web", pid=stranger.pid), says())

        code, _, err = told(capsys, "web")

        assert code == 1
        assert "cannot be identified" in err
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_several_and_no_name_stop_nothing(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    started = [programs.start(PROXY, "web"), programs.start(LAUNCHER, "lone")]

    code, _, err = told(capsys)

    assert code == 2
    assert "lone" in err
    assert [one.poll() for one in started] == [None, None]


@pytest.mark.parametrize("words", [("other",), ("web", "other"), ("--all", "web")])
def test_a_name_too_many_stops_nothing(
    programs: Programs, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    process = programs.start(PROXY, "web")

    code, _, _ = told(capsys, *words)

    assert code != 0
    assert process.poll() is None
