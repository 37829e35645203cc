"""Four checks, and one that fails is reported."""

import pytest

from claude_proxy.sandbox.netns import NetworkProbe
from claude_proxy.sandbox.self_check import all_passed, checks

RIGHT = NetworkProbe("network is unreachable", 200, 403)


def lines(ways: NetworkProbe) -> list[str]:
    return [str(check) for check in checks(ways, 3128, "yes.test:443", "no.test:443")]


def test_a_sandbox_with_one_way_out_passes_all_four() -> None:
    assert lines(RIGHT) == [
        "ok     a connection past the proxy fails: network is unreachable",
        "ok     the proxy answers on 127.0.0.1:3128",
        "ok     yes.test:443 is allowed: 200",
        "ok     no.test:443 is denied: 403",
    ]


@pytest.mark.parametrize(
    ("ways", "wrong"),
    [
        (NetworkProbe(None, 200, 403), [0]),
        (NetworkProbe("no route", None, None), [1, 2, 3]),
        (NetworkProbe("no route", 403, 403), [2]),
        (NetworkProbe("no route", 200, 200), [3]),
        (NetworkProbe("no route", 502, None), [2, 3]),
    ],
)
def test_a_failed_check_is_reported_and_stops_the_run(ways: NetworkProbe, wrong: list[int]) -> None:
    found = list(checks(ways, 3128, "yes.test:443", "no.test:443"))

    assert [index for index, check in enumerate(found) if not check.passed] == wrong
    assert not all_passed(found)
    assert all(str(found[index]).startswith("WRONG  ") for index in wrong)
