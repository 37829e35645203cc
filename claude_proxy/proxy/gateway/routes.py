"""Routes of a gateway: what a caller requests, by method and path alone.

Default-deny: there is a table of what is served; everything else is a 404 or a 405. A path has one
spelling: with one more slash it is a different path. Pure.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from claude_proxy.config.settings import GatewayMode


class Route(StrEnum):
    """What the gateway serves."""

    MESSAGES = "messages"
    COUNT_TOKENS = "count-tokens"
    MODELS = "models"
    HELLO = "hello"  # what Claude Code requests first, to see whether the API answers
    HEALTH = "health"

    @property
    def forwarded(self) -> bool:
        """Whether the upstream answers it, not the gateway itself."""
        return self not in {Route.HELLO, Route.HEALTH}


@dataclass(frozen=True, slots=True)
class NotServed:
    """A request for what is not served; `methods` are those by which its path is."""

    methods: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The status of the response."""
        return 405 if self.methods else 404


type _Table = dict[str, dict[str, Route]]

MESSAGES_PATH = "/v1/messages"
_HEALTH = {"GET": Route.HEALTH, "HEAD": Route.HEALTH}
_TABLES: dict[GatewayMode, _Table] = {
    GatewayMode.STRICT: {
        MESSAGES_PATH: {"POST": Route.MESSAGES},
        "/health": _HEALTH,
    },
    GatewayMode.CLAUDE: {
        MESSAGES_PATH: {"POST": Route.MESSAGES},
        "/v1/messages/count_tokens": {"POST": Route.COUNT_TOKENS},
        "/v1/models": {"GET": Route.MODELS},
        "/": {"HEAD": Route.HELLO},
        "/health": _HEALTH,
    },
}
# One model by its name: one segment, which no server can take for a different path.
_ONE_MODEL = re.compile(r"/v1/models/(?!\.{1,2}\Z)[A-Za-z0-9._:@~-]+").fullmatch


def route_of(mode: GatewayMode, method: str, path: str) -> Route | NotServed:
    """Return what is requested; `path` is as sent, without the query."""
    served = _TABLES[mode].get(path)
    if served is None and mode is GatewayMode.CLAUDE and _ONE_MODEL(path):
        served = {"GET": Route.MODELS}
    if served is None:
        return NotServed()
    return served.get(method) or NotServed(tuple(served))
