"""The number of workers where none is named: one, or more where other machines are let in."""

from pathlib import Path

import pytest

from claude_proxy.config.settings import InheritedListen, Listen, TcpListen, UnixListen
from claude_proxy.config.worker_count import (
    AUTOMATIC,
    automatic,
    lets_others_in,
    parse_worker_count,
)

HERE: tuple[Listen, ...] = (
    TcpListen("127.0.0.1", 9051),
    TcpListen("::1", 9051),
    UnixListen(Path("/run/p.sock")),
)
EVERYWHERE = TcpListen("0.0.0.0", 9051)


@pytest.mark.parametrize("listen", [*HERE, InheritedListen(3, "tcp")], ids=str)
def test_one_process_serves_a_machine_that_lets_nobody_else_in(listen: Listen) -> None:
    assert not lets_others_in([listen])
    assert automatic([listen], processors=64, connections=100_000) == 1


@pytest.mark.parametrize(
    ("processors", "connections", "workers"),
    [
        pytest.param(1, 4096, 1, id="one processor"),
        pytest.param(2, 4096, 2, id="two processors"),
        pytest.param(64, 4096, 4, id="many processors, of which each more brings less"),
        pytest.param(64, 512, 2, id="few connections, so that none has too small a share"),
        pytest.param(64, 1, 1, id="one connection"),
        pytest.param(0, 0, 1, id="nothing known"),
    ],
)
def test_a_proxy_for_other_machines_uses_the_processors(
    processors: int, connections: int, workers: int
) -> None:
    listen = [*HERE, EVERYWHERE]

    assert automatic(listen, processors=processors, connections=connections) == workers


@pytest.mark.parametrize(
    ("text", "count"), [("auto", AUTOMATIC), (" Auto ", AUTOMATIC), ("1", 1), ("64", 64)]
)
def test_a_count_is_a_number_or_auto(text: str, count: int) -> None:
    assert parse_worker_count(text) == count


@pytest.mark.parametrize("text", ["0", "65", "-1", "two", "", "1.5", "٣", "1 2"])
def test_any_other_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number from 1 to 64"):
        parse_worker_count(text)
