"""Unix socket probes see sockets that can be reached."""

import socket
from pathlib import Path

from claude_proxy.doctor.attack.canaries import Canaries
from tests.doctor.cage import (
    got_through,
    lonely,
    run_probe,
)


def test_unix_sockets_that_can_be_reached_are_seen(canaries: Canaries, tmp_path: Path) -> None:
    around, facts = lonely(tmp_path), canaries.facts()

    abstract = run_probe("unix-abstract", around=around, canaries=facts)
    paths = run_probe("unix-paths", around=around, canaries=facts)

    assert {"canary 1", "canary 2"} <= set(got_through(abstract))
    assert got_through(paths) == [str(tmp_path / "canary.sock")]
    assert len(canaries.seen("unix")) > 1


def test_a_socket_that_only_a_walk_finds_is_seen(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "found.sock"))
        listener.listen()

        tries = run_probe("unix-paths", around=lonely(tmp_path), sockets=["/nonexistent"])

    assert got_through(tries) == [str(tmp_path / "found.sock")]
