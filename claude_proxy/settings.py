"""Holds everything `serve` can be told, checked once; pure.

The command line, the environment and the tests build a `Settings`; `proxy.py` obeys it.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from claude_proxy.authority import Authority

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9051

_MIB = 1024 * 1024


class Verbosity(StrEnum):
    """How much is printed: errors alone, one line a request, or everything."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class LogFormat(StrEnum):
    """The shape of a printed line."""

    TEXT = "text"
    JSON = "json"


class AuditFailure(StrEnum):
    """What becomes of a decision that cannot be recorded."""

    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """A corporate proxy that every connection goes through, but for the `exceptions`."""

    authority: Authority
    credentials: str | None = None  # "user:password"; kept out of repr by __repr__
    exceptions: tuple[str, ...] = ()  # NO_PROXY entries: "host", ".domain", "10.0.0.0/8", "*"

    def __repr__(self) -> str:
        held = "set" if self.credentials else "none"
        return f"UpstreamProxy({self.authority}, credentials={held}, {self.exceptions!r})"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one client from starving the rest. Times in seconds, sizes in bytes."""

    connections: int = 4096
    head_bytes: int = 64 * 1024
    head_timeout_s: float = 30.0
    handshake_timeout_s: float = 30.0
    # Claude Code waits up to 600 s for an answer; an idle limit below that would end it.
    idle_timeout_s: float = 900.0
    connect_timeout_s: float = 20.0
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What one proxy process is told to do."""

    allowlist: Path
    confdir: Path
    statedir: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    # The user's own list, where there is none yet: it takes over once it exists.
    awaited_allowlist: Path | None = None
    workers: int = 1  # processes that share the port
    allow_remote: bool = False
    clients: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    resolve: tuple[tuple[Authority, Address], ...] = ()
    upstream_ca: Path | None = None
    upstream_proxy: UpstreamProxy | None = None
    verbosity: Verbosity = Verbosity.NORMAL
    log_format: LogFormat = LogFormat.TEXT
    jsonl: Path | None = None  # Path("-") is stdout
    record_query: bool = False
    audit_failure: AuditFailure = AuditFailure.DENY
    audit_days: int = 30
    audit_bytes: int = 256 * _MIB
    limits: Limits = Limits()
