"""How many workers a command starts."""

import pytest

from claude_proxy.cli.workers import worker_count
from claude_proxy.config.settings import TcpListen
from claude_proxy.config.worker_count import AUTOMATIC
from claude_proxy.server import workers
from claude_proxy.system import processors

LOOPBACK, EVERYWHERE = TcpListen("127.0.0.1", 9051), TcpListen("::", 9051)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a Linux machine with three processors."""
    monkeypatch.setattr(workers, "CAN_SPREAD", True)
    monkeypatch.setattr(processors, "usable", lambda: 3)


@pytest.mark.parametrize("listen", [LOOPBACK, EVERYWHERE], ids=str)
def test_a_number_that_was_given_is_kept(listen: TcpListen) -> None:
    assert worker_count(7, [listen], 4096) == 7


def test_there_are_no_more_workers_than_connections() -> None:
    assert worker_count(7, [LOOPBACK], 3) == 3


def test_a_proxy_for_other_machines_has_a_worker_for_each_processor() -> None:
    assert worker_count(AUTOMATIC, [LOOPBACK, EVERYWHERE], 4096) == 3


def test_a_proxy_for_this_machine_is_one_process() -> None:
    assert worker_count(AUTOMATIC, [LOOPBACK], 4096) == 1


def test_where_a_port_cannot_be_shared_there_is_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "CAN_SPREAD", False)

    assert worker_count(AUTOMATIC, [EVERYWHERE], 4096) == 1
