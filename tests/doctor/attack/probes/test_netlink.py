"""Netlink probes see a network namespace that can be changed."""

from tests.doctor.cage import (
    got_through,
    routed,
    run_probe,
)


def test_a_network_that_can_be_changed_is_seen() -> None:
    assert "an address" in got_through(run_probe("netlink", around=routed()))
