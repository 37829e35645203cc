"""State of one gateway: what all its connections share, and the quotas that they keep together."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from claude_proxy.config.settings import Gateway
from claude_proxy.proxy.gateway.policy import CREDENTIAL
from claude_proxy.proxy.gateway.quotas import MINUTE_S, Quota, day_began


class UsageCounter(Protocol):
    """Counts what went through all processes: the audit log."""

    def requests_since(self, moment_ns: int, credential: str) -> int:
        """Return how many requests went with a credential."""

    def used_since(self, moment_ns: int, credential: str) -> int:
        """Return the tokens that were used up with a credential."""


@dataclass(frozen=True, slots=True, eq=False)
class GatewayState:
    """What all connections to one gateway share."""

    gateway: Gateway
    quota: Quota
    counter: UsageCounter
    clock: Callable[[], float] = time.time

    def begin(self) -> int | None:
        """Let a request begin; if it may not, return after how many seconds one may."""
        ceilings, now = self.gateway.ceilings, self.clock()
        requests = tokens = 0
        if ceilings.requests_per_minute is not None:
            requests = self.counter.requests_since(_ns(now - MINUTE_S), CREDENTIAL)
        if ceilings.tokens_per_day is not None:
            tokens = self.counter.used_since(_ns(day_began(now)), CREDENTIAL)
        return self.quota.begin(now, requests=requests, tokens=tokens)


def gateway_state(gateway: Gateway, counter: UsageCounter) -> GatewayState:
    """Return the state of a gateway in one process."""
    return GatewayState(gateway, Quota(gateway.ceilings), counter)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
