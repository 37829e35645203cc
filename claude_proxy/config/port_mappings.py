"""Port mappings of a run: what `--forward` and `--publish` name, parsed. Pure.

Each parser returns the value or raises ValueError, whose message says what is wrong. A mapping
names one port on each side: there are no ranges, and no address but the one that is written.
"""

from enum import Enum
from ipaddress import ip_address

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.authority import MAX_PORT, Authority, quoted

# On the right side of --forward: a service of this machine's own loopback.
HOST = "host"
# The name by which the proxy reaches such a service; RFC 6761, section 6.3: it is of loopback.
LOCALHOST = "localhost"

FORWARD_FIX = "write it like 5432=db.corp.example:5432, or 11434=host:11434 for a service of this "
FORWARD_FIX += "machine"
PUBLISH_FIX = "write it like 3000:3000 or 127.0.0.1:8080:3000 (port of this machine, then the "
PUBLISH_FIX += "port inside), or auto"

_LOOPBACK = "127.0.0.1"
_is_port = lazy_pattern(r"[0-9]{1,5}").fullmatch


class Automatic(Enum):
    """What `--publish auto` stands for: the ports that programs inside begin to listen on."""

    AUTO = "auto"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Forward:
    """A listener inside, each of whose connections leads to one host and port outside."""

    address: str  # of the sandbox's loopback
    port: int
    target: Authority
    to_host: bool = False  # the target is a service of this machine's own loopback

    @property
    def listens_at(self) -> str:
        """Where clients inside connect to."""
        return _joined(self.address, self.port)

    @property
    def leads_to(self) -> str:
        """What it leads to, in words."""
        if self.to_host:
            return f"port {self.target.port} of this machine's loopback"
        return str(self.target)

    def __str__(self) -> str:
        """Return it as --forward takes it."""
        usual = str(self.port) if self.address == _LOOPBACK else self.listens_at
        return f"{usual}={HOST}:{self.target.port}" if self.to_host else f"{usual}={self.target}"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the sandbox's loopback that programs of this machine can reach."""

    address: str  # of this machine
    host_port: int  # 0: any free one
    port: int  # inside

    @property
    def is_remote(self) -> bool:
        """Whether other machines could reach it."""
        return not ip_address(self.address).is_loopback

    @property
    def listens_at(self) -> str:
        """Where programs of this machine connect to."""
        return _joined(self.address, self.host_port)

    def __str__(self) -> str:
        """Return it as --publish takes it."""
        return f"{self.listens_at}:{self.port}"


def parse_forward(text: str) -> Forward:
    """Return what `[ADDRESS:]PORT=HOST:PORT` names."""
    place, equals, target = text.partition("=")
    if not equals:
        raise ValueError(f'{quoted(text)} has no "=" between the port inside and HOST:PORT')
    host, _, port = place.rpartition(":")
    address = _address(host) if host or ":" in place else _LOOPBACK
    if not ip_address(address).is_loopback:
        raise ValueError(f"{quoted(host)} is no address of the sandbox's loopback, all it has")
    return _to(target, address, _port(port))


def _to(text: str, address: str, port: int) -> Forward:
    host, colon, number = text.rpartition(":")
    if host.lower() == HOST:
        return Forward(address, port, Authority.of(LOCALHOST, _port(number)), to_host=True)
    if not colon or not number:
        raise ValueError(f"{quoted(text)} names no port")
    from claude_proxy.policy.advice import is_this_machine  # noqa: PLC0415 - few runs forward

    target = Authority.parse(text)
    if is_this_machine(target):
        raise ValueError(
            f"{quoted(host)} is the sandbox itself where a program inside says so; a service of "
            f"this machine is {HOST}:{target.port}"
        )
    return Forward(address, port, target)


def parse_publish(text: str) -> Published | Automatic:
    """Return what `[ADDRESS:]HOSTPORT:PORT` or `auto` names."""
    if text.lower() == Automatic.AUTO.value:
        return Automatic.AUTO
    rest, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{quoted(text)} names one port, and two are needed")
    host, _, host_port = rest.rpartition(":")
    address = _address(host) if host or ":" in rest else _LOOPBACK
    return Published(address, _port(host_port, least=0), _port(port))


def _address(text: str) -> str:
    """Return an address in its canonical spelling; of names only `localhost` is one."""
    if text.lower() == LOCALHOST:
        return _LOOPBACK
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if (":" in bare) != (bare is not text):
        raise ValueError(f"{quoted(text)} is not an address; write IPv6 as [::1]")
    try:
        address = ip_address(bare)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an IP address") from None
    if getattr(address, "scope_id", None) is not None:
        raise ValueError(f"{quoted(text)} has a zone, which is not supported")
    return str(address)


def _port(text: str, least: int = 1) -> int:
    if not text.isascii() or _is_port(text) is None or not least <= int(text) <= MAX_PORT:
        raise ValueError(f"{quoted(text)} is not a port from {least} to {MAX_PORT}")
    return int(text)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
