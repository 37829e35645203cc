"""State of one gateway: what all its connections share, and the quotas that they keep together."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from claude_proxy.config.settings import Gateway
from claude_proxy.events import Usage
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.gateway.policy import CREDENTIAL
from claude_proxy.proxy.gateway.quotas import MINUTE_S, Quota, day_began
from claude_proxy.proxy.gateway.reservation import most_usage


class UsageCounter(Protocol):
    """Counts what went through all processes: the audit log."""

    def requests_since(self, moment_ns: int, credential: str) -> int:
        """Return how many requests went with a credential."""

    def used_since(self, moment_ns: int, credential: str) -> int:
        """Return the tokens that were used up or are reserved with a credential."""

    def reserved_since(self, moment_ns: int, credential: str) -> int:
        """Return how many of these are only reserved."""

    def reserve(self, decision: int, usage: Usage, moment_ns: int, most: int) -> bool:
        """Reserve tokens for an allowed request; False if `most` are used up or reserved."""


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
        requests = tokens = reserved = 0
        if ceilings.requests_per_minute is not None:
            requests = self.counter.requests_since(_ns(now - MINUTE_S), CREDENTIAL)
        if ceilings.tokens_per_day is not None:
            tokens, reserved = self._tokens(now)
        return self.quota.begin(now, requests=requests, tokens=tokens, reserved=reserved)

    def reserve(self, attempt: Attempt, body: bytes) -> int | None:
        """Reserve the tokens that a call may use; if none is left, return the wait in seconds.

        Calls that begin at the same time must not all find the same tokens unused. A call that
        finds any may go, so that the ceiling is exceeded by one call at most.
        """
        most, now = self.gateway.ceilings.tokens_per_day, self.clock()
        if most is None:
            return None
        usage = most_usage(body)
        if self.counter.reserve(attempt.id, usage, _ns(day_began(now)), most):
            attempt.reserved = usage
            return None
        tokens, reserved = self._tokens(now)
        return max(1, math.ceil(self.quota.tokens_wait_s(now, tokens=tokens, reserved=reserved)))

    def _tokens(self, now: float) -> tuple[int, int]:
        """Return today's tokens, and how many are only reserved if there are too many."""
        today, most = _ns(day_began(now)), self.gateway.ceilings.tokens_per_day
        used = self.counter.used_since(today, CREDENTIAL)
        if most is None or used < most:
            return used, 0
        return used, self.counter.reserved_since(today, CREDENTIAL)


def gateway_state(gateway: Gateway, counter: UsageCounter) -> GatewayState:
    """Return the state of a gateway in one process."""
    return GatewayState(gateway, Quota(gateway.ceilings), counter)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
