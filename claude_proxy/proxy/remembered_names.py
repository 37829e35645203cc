"""Short-lived memory of resolved names: what a name meant to the last dial, for a few seconds.

Laws kept: judged is dialled: addresses are remembered, never a verdict on them, so that each dial
has the policy judge them again. Fail closed: only the answer of a dial that succeeded is kept, and
a dial that fails in any way has it forgotten.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from claude_proxy.wire.address import Address

# Counted from when the name server was asked. getaddrinfo(3) does not tell for how long an answer
# is valid; this is what the shortest times to live in use come to.
MOST_AGE_S = 5.0
MOST_NAMES = 256
# A name server can give thousands. A name with more than these is asked for each time.
MOST_ADDRESSES = 16

# Linux stops CLOCK_MONOTONIC while the machine sleeps; macOS does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock_s() -> float:
    """Return seconds that also pass while the machine sleeps: it may wake up in another network."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The addresses of a name, and when they were asked for."""

    addresses: tuple[Address, ...]
    asked_s: float


class RememberedNames:
    """Addresses by name; the oldest makes room for the newest."""

    def __init__(self, clock: Callable[[], float] = clock_s) -> None:
        self.clock = clock
        self._answers: dict[str, _Answer] = {}

    def find(self, host: str) -> list[Address] | None:
        """Return the addresses of `host` if they were asked for a few seconds ago."""
        answer = self._answers.get(host)
        if answer is None:
            return None
        if not 0 <= self.clock() - answer.asked_s < MOST_AGE_S:
            del self._answers[host]
            return None
        return list(answer.addresses)

    def keep(self, host: str, addresses: list[Address], asked_s: float) -> None:
        """Remember what `host` resolved to when it was asked for at `asked_s`."""
        self.forget(host)
        if len(addresses) > MOST_ADDRESSES:
            return
        if len(self._answers) >= MOST_NAMES:
            del self._answers[next(iter(self._answers))]
        self._answers[host] = _Answer(tuple(addresses), asked_s)

    @contextmanager
    def kept_if_good(self, host: str) -> Iterator[None]:
        """Forget `host` if what is done with its addresses fails."""
        try:
            yield
        except BaseException:
            self.forget(host)
            raise

    def forget(self, host: str) -> None:
        """Have `host` be asked for again."""
        self._answers.pop(host, None)
