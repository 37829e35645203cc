"""The number of worker processes where the owner names none (`--workers auto`); pure.

One process serves what the agents of one machine ask for with a fraction of a core, and keeps in
one place what makes a next request quick: warm upstreams, TLS sessions, remembered names. So there
are several only where other machines are let in, whose number nobody here knows.
"""

from collections.abc import Iterable
from typing import Final, Literal

from claude_proxy.config.option_values import is_loopback
from claude_proxy.config.settings import Listen, TcpListen

type WorkerCount = int | Literal["auto"]

AUTOMATIC: Final = "auto"
MOST = 64
# Each worker more costs a request more CPU: all write into one audit log.
_MOST_AUTOMATIC = 4
# The limit of connections is divided: with few each, one would be full while another has room.
_LEAST_CONNECTIONS = 256


def parse_worker_count(text: str) -> WorkerCount:
    """Return the number of workers, or that it is to be chosen; raise ValueError."""
    word = text.strip().lower()
    if word == AUTOMATIC:
        return AUTOMATIC
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= MOST):
        raise ValueError(f'"{text}" is not a number from 1 to {MOST}, and not "auto"')
    return int(word)


def lets_others_in(listen: Iterable[Listen]) -> bool:
    """Tell whether other machines can reach one of the listeners that the proxy makes itself."""
    return any(isinstance(one, TcpListen) and not is_loopback(one.host) for one in listen)


def automatic(listen: Iterable[Listen], *, processors: int, connections: int) -> int:
    """Return how many workers serve at these listeners, up to `connections` in all."""
    if not lets_others_in(listen):
        return 1
    return max(1, min(processors, _MOST_AUTOMATIC, connections // _LEAST_CONNECTIONS))
