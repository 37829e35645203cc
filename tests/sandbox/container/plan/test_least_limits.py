"""Limits within which no container starts are refused before any engine is asked."""

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan import least_limits
from claude_proxy.sandbox.plan.model import ResourceLimits


@pytest.mark.parametrize(
    ("limits", "cpus", "option"),
    [
        (ResourceLimits(memory=1), None, "--max-memory"),
        (ResourceLimits(memory=8 * 1024 * 1024 - 1), None, "--max-memory"),
        (ResourceLimits(processes=1), None, "--max-processes"),
        (ResourceLimits(), 0.001, "--cpus"),
    ],
)
def test_a_limit_that_is_too_low_is_refused_by_its_option(
    limits: ResourceLimits, cpus: float | None, option: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        least_limits.check(limits, cpus)

    assert refused.value.where == option
    assert refused.value.fix


def test_the_least_limits_and_none_at_all_are_taken() -> None:
    least_limits.check(ResourceLimits(memory=8 * 1024 * 1024, processes=16), 0.01)
    least_limits.check(ResourceLimits(), None)
