"""The service manager and the launching process get each state, and never block the proxy."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.system.sd_notify import Lifeline, StateNotifier, WorkerNotifier, WorkerReports


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.bind(str(tmp_path / "notify"))
        yield sock


def heard(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


def test_a_service_manager_is_notified_of_each_change(manager: socket.socket) -> None:
    announcer = StateNotifier(manager.getsockname(), None)

    announcer.ready()
    announcer.reloading()
    announcer.reloaded()
    announcer.stopping()

    assert heard(manager) == "READY=1"
    reloading, _, moment = heard(manager).partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert moment.isdecimal()
    assert heard(manager) == "READY=1"
    assert heard(manager) == "STOPPING=1"


def test_an_abstract_socket_is_supported() -> None:
    name = f"claude-proxy-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind("\0" + name)

        StateNotifier("@" + name, None).ready()

        assert heard(manager) == "READY=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:9999", "/no/such/socket", "/" + "n" * 300])
def test_an_unreachable_manager_is_ignored(address: str | None) -> None:
    StateNotifier(address, None).ready()


def test_a_manager_that_does_not_read_does_not_block_the_proxy(manager: socket.socket) -> None:
    announcer = StateNotifier(manager.getsockname(), None)

    for _ in range(10_000):
        announcer.stopping()


def test_the_launching_process_is_notified_when_all_is_checked_and_when_the_proxy_is_ready() -> (
    None
):
    reported: list[str] = []
    lifeline = Lifeline(
        lambda: reported.append("checked"), lambda: reported.append("ready"), until=0
    )
    announcer = StateNotifier(None, lifeline)

    announcer.reloading()
    announcer.reloaded()
    announcer.stopping()
    assert reported == []

    announcer.checked()
    assert reported == ["checked"]

    announcer.ready()
    assert reported == ["checked", "ready"]


class Noted:
    """Records the reports."""

    def __init__(self) -> None:
        self.reported: list[str] = []

    def ready(self) -> None:
        self.reported.append("ready")

    def reloading(self) -> None:
        self.reported.append("reloading")

    def reloaded(self) -> None:
        self.reported.append("reloaded")

    def stopping(self) -> None:
        self.reported.append("stopping")


def test_workers_are_ready_with_the_last_one_and_one_reports_reloads_for_all() -> None:
    reading, writing = os.pipe()
    workers = [WorkerNotifier(writing, speaks=number == 0) for number in range(3)]
    noted = Noted()
    all_heard = WorkerReports(3, noted)

    for worker in workers[:2]:
        worker.ready()
    all_heard.receive(os.read(reading, 100))
    assert noted.reported == []

    workers[2].ready()
    for worker in workers:
        worker.reloading()
        worker.reloaded()
        worker.stopping()
    all_heard.receive(os.read(reading, 100) + b"?")

    assert noted.reported == ["ready", "reloading", "reloaded"]
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_a_worker_ignores_that_its_parent_is_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert threading.current_thread() is threading.main_thread()

    WorkerNotifier(writing, speaks=True).ready()

    os.close(writing)
