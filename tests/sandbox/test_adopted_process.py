"""A process that another one has started is seen to end, and can be ended."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from claude_proxy.sandbox.adopted_process import UNKNOWN_CODE, AdoptedProcess


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_process_that_runs_has_no_code(process: "subprocess.Popen[bytes]") -> None:
    adopted = AdoptedProcess(process.pid)

    assert adopted.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        adopted.wait(0)


def test_a_process_that_is_killed_has_ended(process: "subprocess.Popen[bytes]") -> None:
    adopted = AdoptedProcess(process.pid)

    adopted.kill()

    assert (adopted.wait(), adopted.poll(), adopted.returncode) == (UNKNOWN_CODE,) * 3


def test_a_signal_to_one_that_has_ended_reaches_nobody(process: "subprocess.Popen[bytes]") -> None:
    adopted = AdoptedProcess(process.pid)
    process.kill()
    process.wait()

    adopted.send_signal(signal.SIGTERM)
    adopted.wait()
    adopted.kill()

    assert adopted.poll() == UNKNOWN_CODE
