"""Settings of one proxy process, as checked values. Pure.

The command line, config.yaml and the tests build a `Settings`; `server.app` obeys it.
"""

from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Address, Network
from claude_proxy.wire.authority import Authority

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9051

_MIB = 1024 * 1024
_OWN_ALLOWLIST = "allowlist.yaml"  # in the directory of the configuration


class Verbosity(StrEnum):
    """How much is printed: errors only, one line a request, or everything."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class LogFormat(StrEnum):
    """The shape of a printed line."""

    TEXT = "text"
    JSON = "json"


class AuditFailure(StrEnum):
    """What happens to a request whose decision cannot be recorded."""

    DENY = "deny"
    ALLOW = "allow"


class Learn(StrEnum):
    """What a learning proxy writes down as a preset, and what it lets through meanwhile."""

    EVERYTHING = "everything"  # what no rule denies is let through, and recorded
    DENIALS = "denials"  # the policy holds; what it denies is recorded


@dataclass(frozen=True, slots=True)
class TcpListen:
    """A TCP address to listen on."""

    host: str
    port: int  # 0 takes a free one

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixListen:
    """A Unix socket to listen on, made at its path."""

    path: Path
    unlink_after_first: bool = False  # remove the path once a client is in

    def __str__(self) -> str:
        return f"unix:{self.path}"


IN_IMAGE = " (image "  # after the program, where a run is named


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A `claude-proxy run`, as the audit log names it."""

    name: str
    program: str  # of its COMMAND, never with arguments
    image: str = ""  # the digest of the image of its container
    goes_on: bool = False  # its start has been recorded
    project: str = ""  # the directory that it works in
    is_container: bool = False

    def __str__(self) -> str:
        return f"run {self.name}: {self.program}"

    @property
    def start_text(self) -> str:
        """What the record says of its start."""
        return f"{self}{IN_IMAGE}{self.image})" if self.image else str(self)


@dataclass(frozen=True, slots=True)
class InheritedListen:
    """A listening socket, TCP or Unix, that the parent process has made."""

    descriptor: int
    name: str  # as the audit log shows it
    run: RunIdentity | None = None  # the run that the socket was made for

    def __str__(self) -> str:
        return self.name


type Listen = TcpListen | UnixListen | InheritedListen


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a client must present to use the proxy (RFC 7617, RFC 1929)."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"ClientCredentials({self.user!r}, password=set)"


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """A corporate proxy that every connection goes through, except those to the `exceptions`."""

    authority: Authority
    credentials: str | None = None  # "user:password"; kept out of repr by __repr__
    exceptions: tuple[str, ...] = ()  # NO_PROXY entries: "host", ".domain", "10.0.0.0/8", "*"

    def __repr__(self) -> str:
        credentials = "set" if self.credentials else "none"
        return f"UpstreamProxy({self.authority}, credentials={credentials}, {self.exceptions!r})"


class GatewayMode(StrEnum):
    """What the gateway takes and gives back."""

    CLAUDE = "claude"  # what Claude Code sends, passed on and back as it is
    STRICT = "strict"  # one call, and no text of the provider's


@dataclass(frozen=True, slots=True)
class Base:
    """The URL that the calls of an API begin with."""

    scheme: Scheme
    authority: Authority
    path: str = ""  # before "/v1/messages", without a slash at its end

    def __str__(self) -> str:
        usual = ":443" if self.scheme is Scheme.HTTPS else ":80"
        return f"{self.scheme}://{str(self.authority).removesuffix(usual)}{self.path}"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How much may go through the gateway; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """An endpoint that holds the credential and forwards to one configured upstream."""

    listen: tuple[Listen, ...]
    upstream: Base
    credential: Injection
    mode: GatewayMode = GatewayMode.CLAUDE
    models: tuple[tuple[str, str], ...] = ()  # (requested model or "*", model sent instead)
    timeout_s: float = 600.0  # of silence from the upstream
    token: str | None = field(default=None, repr=False)  # what TCP callers must present
    ceilings: Ceilings = Ceilings()
    request_bytes: int = 32 * _MIB
    answer_bytes: int = 20 * _MIB  # in strict mode, where the answer is read whole
    keeps_retry_after: bool = False  # of the provider's errors, in strict mode


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
    """Everything that one proxy process is configured with."""

    allowlist: Path
    confdir: Path
    statedir: Path
    # Whether --confdir names another directory than commands use without it.
    names_confdir: bool = False
    listen: tuple[Listen, ...] = (TcpListen(DEFAULT_HOST, DEFAULT_PORT),)
    # What TCP clients must present; None: nothing.
    credentials: ClientCredentials | None = None
    # Who may connect to Unix sockets; empty: the owner of this process alone.
    uids: frozenset[int] = frozenset()
    policy: str | None = None  # by name; None: the allowlist
    # A file whose deny rules hold on top, as an agent's own project may only narrow.
    narrowing: Path | None = None
    narrowing_text: str | None = None  # what it must contain at the start; None: anything
    # Where the CA is, if not in confdir, which a system's service may only read.
    cadir: Path | None = None
    learn: tuple[Learn, Path] | None = None
    # The user's own list, where there is none yet: it takes over once it exists.
    awaited_allowlist: Path | None = None
    workers: int = 1  # processes that share the port
    allow_remote: bool = False
    # The directory above those of the user's runs, whose relays may join; None: none can.
    runs: Path | None = None
    notify: str | None = None  # where the service manager hears how we are doing (sd_notify)
    clients: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    resolve: tuple[tuple[Authority, Address], ...] = ()
    upstream_ca: Path | None = None
    upstream_proxy: UpstreamProxy | None = None
    # The variable of the environment that names a proxy, where `upstream_proxy` does not.
    unused_proxy_variable: str | None = None
    verbosity: Verbosity = Verbosity.NORMAL
    tracebacks: bool = False  # of internal errors, in the log
    log_format: LogFormat = LogFormat.TEXT
    jsonl: Path | None = None  # Path("-") is stdout
    record_query: bool = False
    warm_upstreams: bool = True
    ask: bool = False  # about every host that no rule names
    ask_timeout_s: float = 30.0
    ask_command: Path | None = None  # a program that answers
    audit_failure: AuditFailure = AuditFailure.DENY
    audit_days: int = 30
    audit_bytes: int = 256 * _MIB
    limits: Limits = Limits()
    gateway: Gateway | None = None
    # Ports of this machine's own loopback that the run of this proxy was given (--forward).
    host_ports: tuple[int, ...] = ()

    @property
    def list_options(self) -> tuple[str, ...]:
        """The options by which `claude-proxy allow` changes this policy, if it is not the usual."""
        options: tuple[str, ...] = ()
        if self.policy is not None:
            options = ("--policy", self.policy)
        elif self.awaited_allowlist is None and self.allowlist != self.confdir / _OWN_ALLOWLIST:
            options = ("--allowlist", str(self.allowlist))
        return (*options, "--confdir", str(self.confdir)) if self.names_confdir else options

    @property
    def place_of_ca(self) -> Path:
        """The directory of the CA, and of the roots that it writes beside it."""
        return self.confdir if self.cadir is None else self.cadir
