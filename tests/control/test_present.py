"""The present is read from two clocks of one boot."""

from claude_proxy.control import present


def test_the_present_goes_on_by_both_clocks() -> None:
    first, second = present.now(), present.now()

    assert second.boot_ns >= first.boot_ns > 0
    assert first.wall_ns > 0
    assert first.boot == second.boot
