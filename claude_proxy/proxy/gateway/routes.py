"""Says what a caller of the gateway asks for, by method and path alone.

Law kept: default-deny (1). There is a table of what is served; everything else is not found, or not
in that way. A path has one spelling here: a slash more is another path.
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
    HELLO = "hello"  # what Claude Code asks first, to see whether anybody is there
    HEALTH = "health"

    @property
    def forwarded(self) -> bool:
        """Whether the upstream answers it, and not the gateway itself."""
        return self not in {Route.HELLO, Route.HEALTH}


@dataclass(frozen=True, slots=True)
class NotServed:
    """A request that nothing is served for; with methods, the path is known by others."""

    methods: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The status to answer with."""
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
# One model by its name: one segment, and none that a server could take for another path.
_ONE_MODEL = re.compile(r"/v1/models/(?!\.{1,2}\Z)[A-Za-z0-9._:@~-]+").fullmatch


def route_of(mode: GatewayMode, method: str, path: str) -> Route | NotServed:
    """Return what is asked for; `path` is as sent, without the query."""
    served = _TABLES[mode].get(path)
    if served is None and mode is GatewayMode.CLAUDE and _ONE_MODEL(path):
        served = {"GET": Route.MODELS}
    if served is None:
        return NotServed()
    return served.get(method) or NotServed(tuple(served))
