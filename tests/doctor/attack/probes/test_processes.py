"""Process probes see processes, variables and descriptors of the outside."""

import os
import socket
from typing import Any

from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.sandbox.run_directory import start_time_of
from tests.doctor.cage import (
    got_through,
    outcomes,
    reports,
    run_probe,
)

AS_ROOT = os.geteuid() == 0


def test_processes_outside_that_can_be_reached_are_seen(canaries: Canaries) -> None:
    assert canaries.process is not None
    pid = canaries.process.pid
    facts = [["the canary", pid, str(start_time_of(pid))]]
    told: dict[str, Any] = {"processes": facts, "secret": canaries.token}

    traced = run_probe("ptrace", around=["env"], **told)
    signalled = run_probe("kill", **told)
    seen = run_probe("host-processes", **told)

    if AS_ROOT:
        assert outcomes(traced) == {"through"}
    assert outcomes(signalled) == {"through"}
    assert outcomes(seen) == {"through"}
    assert canaries.process.poll() is None


def test_a_process_with_the_same_id_is_not_the_process_outside() -> None:
    tries = run_probe("kill", processes=[["the proxy", os.getpid(), "1"]])

    assert [by for _, _, by, _ in tries] == ["namespace"]


def test_variables_and_open_files_that_were_passed_on_are_seen() -> None:
    [report] = reports(["environment"], environ={"X": "the secret"}, secret="the secret")
    with socket.socket() as left:
        left.set_inheritable(True)
        handed_on = run_probe("descriptors", around=["env"], pass_fds=[left.fileno()])
        assert f"descriptor {left.fileno()}" in got_through(handed_on)

    assert ["the canary in /proc/self/environ", "through", "", "found"] in report["tries"]
