"""Sockets and the notify address that a service manager passes to this process (sd_listen_fds)."""

import os

from claude_proxy.config import option_values
from claude_proxy.config.settings import InheritedListen
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError

GATEWAY_UNIT = "gateway"  # FileDescriptorName= of the sockets that are the gateway's

_ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_NOTIFY = "NOTIFY_SOCKET"


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """What a service manager has passed to this process."""

    sockets: tuple[InheritedListen, ...]
    gateway_descriptors: frozenset[int]  # those that its units name so
    notify: str | None

    @property
    def for_proxy(self) -> tuple[InheritedListen, ...]:
        """The sockets that are not the gateway's."""
        return tuple(one for one in self.sockets if one.descriptor not in self.gateway_descriptors)

    @property
    def for_gateway(self) -> tuple[InheritedListen, ...]:
        """The sockets that are the gateway's."""
        return tuple(one for one in self.sockets if one.descriptor in self.gateway_descriptors)


def passes_gateway_sockets() -> bool:
    """Tell whether a socket of the gateway was passed; it is not taken yet."""
    return bool(option_values.passed_for(os.environ, GATEWAY_UNIT))


def take_sockets() -> PassedSockets:
    """Return what was passed, and remove it from the environment: no child process may take it."""
    given = {name: os.environ.pop(name) for name in _ACTIVATION if name in os.environ}
    notify = os.environ.pop(_NOTIFY, None)
    try:
        sockets = option_values.parse_activation(given, os.getpid())
    except ValueError as error:
        raise ConfigError(
            str(error),
            where="LISTEN_FDS",
            fix="start it by a socket unit, or without that variable",
        ) from error
    return PassedSockets(sockets, option_values.passed_for(given, GATEWAY_UNIT), notify)
