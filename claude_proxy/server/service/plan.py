"""Says what a service is to be, checked once."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath

from claude_proxy.config.settings import Limits, TcpListen, UnixListen
from claude_proxy.server.service.names import Names, names_of

HTTPS_PORT = 443


class Kind(StrEnum):
    """The command that the service runs."""

    SERVE = "serve"
    GATEWAY = "gateway"


class Scope(StrEnum):
    """Whose service manager runs it."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Firewall:
    """What the service's user may send beyond this machine."""

    ports: frozenset[int] = frozenset({HTTPS_PORT})
    name_servers: tuple[IPv4Address | IPv6Address, ...] = ()  # none: any


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the files of one service are made of."""

    kind: Kind
    scope: Scope
    program: tuple[str, ...]  # what is run, up to the command
    words: tuple[str, ...] = ()  # the command's options
    listen: tuple[TcpListen | UnixListen, ...] = ()  # none: the command's default
    activated: bool = False  # by a socket unit, which then listens
    shared: bool = False  # a Unix socket is for other users too
    remote: bool = False  # other machines connect
    key_file: str | None = None
    key_option: str | None = None  # by which the command is told of the key
    writable: tuple[str, ...] = ()
    workers: int = 1
    connections: int = Limits().connections
    grace_s: float = Limits().grace_s
    firewall: Firewall | None = None

    @property
    def names(self) -> Names:
        """What this service calls its user, units and directories."""
        return names_of(self.kind)

    @property
    def unit(self) -> str:
        """The unit that is enabled and started."""
        return self.names.socket if self.activated else self.names.service


@dataclass(frozen=True, slots=True)
class Unit:
    """One file of a service, as text."""

    path: str  # of a user's service below the directory of units
    text: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.path).name
