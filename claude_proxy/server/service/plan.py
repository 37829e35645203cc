"""Service plan: the values from which the files of a service are rendered; pure."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath

from claude_proxy.config.settings import Limits, TcpListen, UnixListen
from claude_proxy.server.service.names import Names, names_of

HTTPS_PORT = 443


class ServiceKind(StrEnum):
    """Which claude-proxy command the service runs."""

    SERVE = "serve"
    GATEWAY = "gateway"


class Scope(StrEnum):
    """Which service manager runs it."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Firewall:
    """What the service's user may send to other machines."""

    ports: frozenset[int] = frozenset({HTTPS_PORT})
    name_servers: tuple[IPv4Address | IPv6Address, ...] = ()  # empty: any


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """The values from which the files of one service are rendered."""

    kind: ServiceKind
    scope: Scope
    program: tuple[str, ...]  # the program, without the command
    words: tuple[str, ...] = ()  # options of the command
    listen: tuple[TcpListen | UnixListen, ...] = ()  # empty: the command's default
    activated: bool = False  # a socket unit listens and starts the service
    shared: bool = False  # other users may connect to the Unix socket
    remote: bool = False  # other machines may connect
    key_file: str | None = None
    key_option: str | None = None  # the option that passes the key to the command
    writable: tuple[str, ...] = ()
    workers: int = 1
    connections: int = Limits().connections
    grace_s: float = Limits().grace_s
    firewall: Firewall | None = None

    @property
    def names(self) -> Names:
        """The names of this service's user, units and directories."""
        return names_of(self.kind)

    @property
    def unit(self) -> str:
        """The unit to enable and start."""
        return self.names.socket if self.activated else self.names.service


@dataclass(frozen=True, slots=True)
class Unit:
    """One file of a service, as text."""

    path: str  # for a user service relative to the unit directory
    text: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.path).name
