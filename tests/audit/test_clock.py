"""A clock that jumps is not believed until it has kept step for a while."""

import pytest

from claude_proxy.audit.clock import GAP_NS, PATIENCE_NS, STEP_NS, ClockWatch

DAY = 86_400 * 1_000_000_000
NOW = 20_000 * DAY


class Clocks:
    """A wall clock and the time since boot, which a test moves."""

    def __init__(self) -> None:
        self.wall_ns = NOW
        self.boot_ns = 5 * DAY

    def watch(self, *newest_rows: int) -> ClockWatch:
        return ClockWatch(newest_rows, wall=lambda: self.wall_ns, boot=lambda: self.boot_ns)

    def advance(self, duration_ns: int) -> None:
        self.wall_ns += duration_ns
        self.boot_ns += duration_ns


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.mark.parametrize("newest_rows", [(), (NOW,), (NOW - 2, NOW - GAP_NS // 2, NOW - 1)])
def test_a_clock_that_the_newest_rows_agree_with_is_trusted(
    clocks: Clocks, newest_rows: tuple[int, ...]
) -> None:
    assert clocks.watch(*newest_rows).trusted_now() == NOW


@pytest.mark.parametrize(
    "newest_rows",
    [(NOW - 40 * DAY,), (NOW + 1,), (NOW - 40 * DAY, NOW - 40 * DAY + 1, NOW - 1)],
    ids=["before-now", "after-now", "a-jump-among-them"],
)
def test_a_clock_that_the_newest_rows_do_not_agree_with_has_to_keep_step_first(
    clocks: Clocks, newest_rows: tuple[int, ...]
) -> None:
    watch = clocks.watch(*newest_rows)

    assert watch.trusted_now() is None
    clocks.advance(PATIENCE_NS)
    assert watch.trusted_now() == clocks.wall_ns


@pytest.mark.parametrize("jump", [40 * DAY, -40 * DAY, STEP_NS + 1])
def test_a_clock_that_jumps_is_not_trusted_for_a_while(clocks: Clocks, jump: int) -> None:
    watch = clocks.watch()
    clocks.wall_ns += jump
    assert watch.trusted_now() is None

    clocks.advance(1_000_000_000)
    clocks.wall_ns -= jump
    assert watch.trusted_now() is None

    clocks.advance(PATIENCE_NS - 1)
    assert watch.trusted_now() is None
    clocks.advance(1)
    assert watch.trusted_now() == clocks.wall_ns


def test_a_clock_that_is_corrected_a_little_stays_trusted(clocks: Clocks) -> None:
    watch = clocks.watch()
    clocks.wall_ns += STEP_NS

    assert watch.trusted_now() == clocks.wall_ns


def test_a_sleeping_machine_is_no_jump(clocks: Clocks) -> None:
    watch = clocks.watch()
    clocks.advance(60 * DAY)

    assert watch.trusted_now() == clocks.wall_ns
