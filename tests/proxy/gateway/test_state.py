"""Ceilings hold for all connections to a gateway together."""

import pytest

from claude_proxy.config.settings import Ceilings, GatewayMode
from tests.proxy.gateway.calls import (
    Counts,
    a_gateway,
    api_error,
    ask,
    fields_of,
    play,
)


@pytest.mark.parametrize(
    ("ceilings", "counts"),
    [
        (Ceilings(requests_per_minute=2), Counts(requests=2)),
        (Ceilings(tokens_per_day=100), Counts(tokens=100)),
    ],
)
@pytest.mark.parametrize(
    ("mode", "kind"),
    [(GatewayMode.CLAUDE, "rate_limit_error"), (GatewayMode.STRICT, "rate_limited")],
)
def test_what_is_above_a_ceiling_is_put_off(
    mode: GatewayMode, kind: str, ceilings: Ceilings, counts: Counts
) -> None:
    there = play(a_gateway(mode=mode, ceilings=ceilings), counts=counts)

    answer = there.stage.says(ask())

    assert api_error(answer) == (429, kind)
    assert int(fields_of(answer)["retry-after"]) > 0
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["ceiling-reached"]


def test_what_is_below_a_ceiling_goes_through() -> None:
    ceilings = Ceilings(requests_per_minute=2, tokens_per_day=100)
    there = play(a_gateway(ceilings=ceilings), counts=Counts(requests=1, tokens=99))

    assert there.stage.says(ask()) == b""
    assert there.stage.upstreams != []
