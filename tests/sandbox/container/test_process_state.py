"""A container whose first process has ended does not run, whatever podman says."""

import os

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container import process_state
from claude_proxy.sandbox.container.plan.model import ContainerState, ContainerStatus, EngineKind


@pytest.fixture
def state() -> ContainerState:
    return ContainerState("1d", "web", ContainerStatus.RUNNING, os.getpid(), 0, "x", {})


def ended() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_one_whose_process_is_there_runs(state: ContainerState) -> None:
    assert process_state.is_running(state, EngineKind.PODMAN)


def test_one_whose_process_has_ended_does_not(state: ContainerState) -> None:
    assert not process_state.is_running(replace(state, pid=ended()), EngineKind.PODMAN)


def test_one_that_only_nobody_has_waited_for_does_not(state: ContainerState) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert not process_state.is_running(replace(state, pid=pid), EngineKind.PODMAN)
    os.waitpid(pid, 0)


def test_a_daemon_knows_its_own_processes(state: ContainerState) -> None:
    assert process_state.is_running(replace(state, pid=ended()), EngineKind.DOCKER)


def test_one_that_is_stopped_does_not_run(state: ContainerState) -> None:
    stopped = replace(state, status=ContainerStatus.EXITED)

    assert not process_state.is_running(stopped, EngineKind.PODMAN)
