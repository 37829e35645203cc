"""Probes past a judge of paths see a socket that can be reached, in every way."""

import tempfile
from pathlib import Path

from claude_proxy.doctor.attack.canaries import Canaries
from tests.doctor.cage import got_through, lonely, run_probe


def test_every_way_to_a_socket_that_can_be_reached_is_seen(
    canaries: Canaries, tmp_path: Path
) -> None:
    tries = run_probe("unix-ways", around=lonely(tmp_path), canaries=canaries.facts())

    # For the others the kernel has no way, whoever asks.
    others = ("a second name", "a message", "/proc/1/", "a descriptor that")
    missed = {what for what, *_ in tries} - set(got_through(tries))
    assert [what for what in missed if not what.startswith(others)] == []
    assert {"its path", "a link", "memory that changes", "bind by /proc/PID/root"} <= set(
        got_through(tries)
    )
    assert canaries.seen("unix")


def test_a_canary_that_is_not_visible_is_stopped_by_the_file_system() -> None:
    with tempfile.TemporaryDirectory() as gone:
        path = f"{gone}/none/canary.sock"

    tries = run_probe("unix-ways", canaries={"unix": [path]})

    assert [tuple(row[1:3]) for row in tries] == [("stopped", "file system")]
