"""Reads the options of `serve` into `Settings` and starts the proxy.

It keeps the eleventh law at the edge: a value that cannot be understood stops the start, and
listening beyond loopback must be asked for by name.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import click

from claude_proxy.cli import completers, gateway_settings, param_types, paths
from claude_proxy.config import option_values
from claude_proxy.config.proxy_auth import read_credentials
from claude_proxy.config.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Address,
    AuditFailure,
    Base,
    ClientCredentials,
    Gateway,
    GatewayMode,
    InheritedListen,
    Learn,
    Limits,
    Listen,
    LogFormat,
    Network,
    Settings,
    TcpListen,
    UnixListen,
    UpstreamProxy,
    Verbosity,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.decision import (
    EnvironmentSource,
    FileSource,
    SecretSource,
    SystemdSource,
)

LIMITS = Limits()
CLIENTS = Settings(Path(), Path(), Path()).clients

EPILOG = """\b
Examples:
  claude-proxy serve --port 9052 --allowlist my.yaml
  claude-proxy serve --host 10.0.0.1 --allow-remote --client 10.0.0.0/24
  claude-proxy serve --listen 127.0.0.1:9051 --listen unix:~/.cache/claude-proxy/proxy.sock
  claude-proxy serve --gateway 127.0.0.1:9053 --gateway-provider anthropic
  claude-proxy serve --resolve git.corp.example:443:10.1.2.3 --upstream-ca corp.pem

Sizes: 65536, 64K, 256M, 1G. Durations: 30, 30s, 500ms, 15m, 1h.
"""


# Read by themselves: a password is not to be an argument, as every user can read arguments.
AUTH_VARIABLE = "CLAUDE_PROXY_AUTH"
_ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_NOTIFY = "NOTIFY_SOCKET"
GATEWAY_UNIT = "gateway"  # FileDescriptorName= of the sockets that are the gateway's
_DROP_ONE = "drop one of them"
_LISTEN_SPELLING = "--listen or CLAUDE_PROXY_LISTEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What click hands over: one field for each option of `serve`, read already.

    Those with a default are about where it listens, which other commands see to by themselves.
    """

    listen: tuple[TcpListen | UnixListen, ...] = ()
    host: str | None = None
    port: int | None = None
    gateway: tuple[TcpListen | UnixListen, ...] = ()
    gateway_upstream: Base | None = None
    gateway_provider: str | None = None
    gateway_mode: str | None = None
    gateway_model: tuple[tuple[str, str], ...] = ()
    gateway_key_file: Path | None = None
    gateway_key_env: str | None = None
    gateway_key_systemd: str | None = None
    gateway_token_file: Path | None = None
    socket_uid: tuple[int, ...] = ()
    unlink_socket: bool = False
    proxy_auth_file: Path | None = None
    workers: int = 1
    allowlist: Path | None
    policy: str | None
    groups: Path | None
    learn: Path | None = None
    learn_deny: Path | None = None
    confdir: Path | None
    cadir: Path | None = None
    statedir: Path | None
    quiet: bool
    verbose: bool
    log_format: str
    jsonl: Path | None
    record_query: bool
    audit_failure: str
    audit_days: int
    audit_size: int
    allow_remote: bool
    client: tuple[Network, ...]
    resolve: tuple[tuple[Any, Address], ...]
    upstream_ca: Path | None
    upstream_proxy: UpstreamProxy | None
    no_upstream_proxy: tuple[str, ...]
    max_connections: int
    max_head: int
    head_timeout: float
    handshake_timeout: float
    idle_timeout: float
    connect_timeout: float
    grace: float


@click.command(epilog=EPILOG)
@param_types.option(
    "--listen",
    "Listen here: ADDRESS:PORT or unix:PATH; repeatable.  [default: --host and --port]",
    type=param_types.LISTEN,
    multiple=True,
    metavar="WHERE",
)
@param_types.option(
    "--host",
    f"The address to listen on; beside --listen only if it is given.  [default: {DEFAULT_HOST}]",
    type=param_types.HOST,
)
@param_types.option(
    "--port",
    "The port to listen on, 0 takes a free one; beside --listen only if it is given.  "
    f"[default: {DEFAULT_PORT}]",
    type=click.IntRange(0, 65535),
)
@param_types.option(
    "--gateway",
    "Listen here as the API itself, for ANTHROPIC_BASE_URL, and put the key into what comes: "
    "ADDRESS:PORT or unix:PATH; repeatable. See `claude-proxy gateway --help`.",
    type=param_types.LISTEN,
    multiple=True,
    metavar="WHERE",
)
@param_types.option(
    "--gateway-upstream",
    "The URL before /v1/messages that the gateway forwards to.",
    type=param_types.BASE,
    metavar="URL",
)
@param_types.option(
    "--gateway-provider",
    "The provider that the gateway forwards to, of gateway.yaml in --confdir, or anthropic.",
    metavar="NAME",
    shell_complete=completers.providers,
)
@param_types.option(
    "--gateway-mode",
    "What the gateway takes and gives back: all that Claude Code needs, or one plain call.  "
    "[default: claude]",
    type=param_types.GATEWAY_MODE,
)
@param_types.option(
    "--gateway-model",
    "Ask the upstream for this model, whichever was asked for; or ASKED=GIVEN, repeatable.",
    type=param_types.MODEL,
    multiple=True,
    metavar="NAME",
)
@param_types.option(
    "--gateway-key-file",
    "The file that holds the gateway's key; it must be yours alone (mode 0600).",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--gateway-key-env",
    "The variable that holds the gateway's key.",
    metavar="NAME",
)
@param_types.option(
    "--gateway-key-systemd",
    "The credential of the service manager that holds the gateway's key (LoadCredential=).",
    metavar="NAME",
)
@param_types.option(
    "--gateway-token-file",
    "Demand the token in this file of the gateway's TCP callers; it must be yours alone.",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--socket-uid",
    "Serve clients of this user alone, by number or name, on Unix sockets; repeatable. Where it "
    "is another one, the socket's mode is 0666 and the proxy itself asks who connects.  "
    "[default: the user who runs the proxy]",
    type=param_types.UID,
    multiple=True,
    metavar="USER",
)
@param_types.option(
    "--unlink-socket",
    "Remove the file of a Unix socket as soon as one client has used it, where it was mounted.",
    is_flag=True,
)
@param_types.option(
    "--proxy-auth-file",
    "Demand the USER:PASSWORD in this file of TCP clients; it must be yours alone (mode 0600). "
    f"They may be in {AUTH_VARIABLE} instead.",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--workers",
    "How many processes share the port; one serves one core (more than 1: Linux alone).",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="COUNT",
)
@param_types.option(
    "--allowlist",
    "The allowlist file.  [default: allowlist.yaml in --confdir, else the shipped one]",
    type=click.Path(path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--policy",
    "Take a policy of the groups files in the place of the allowlist; `claude-proxy policies` "
    "lists them.",
    metavar="NAME",
    shell_complete=completers.policies,
)
@param_types.option(
    "--groups",
    "A groups file for --policy, on top of groups.toml in --confdir.",
    type=click.Path(path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--learn",
    "Let everything through that no deny rule covers, and add the hosts to this groups file.",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--learn-deny",
    "Add the hosts that are denied to this groups file.",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--confdir",
    "Where the CA and the allowlist are kept.  [default: ~/.config/claude-proxy]",
    # A system's service has its CA where others may not look around, but read what they know of.
    type=click.Path(file_okay=False, readable=False, path_type=Path),
    metavar="DIR",
)
# Without a variable: `env`, `ca` and `run` would not hear of it.
@click.option(
    "--cadir",
    help="Where the CA is kept, if not in --confdir.",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
)
@param_types.option(
    "--statedir",
    "Where the audit log is kept.  [default: ~/.local/state/claude-proxy]",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
)
@param_types.option("--quiet", "Print errors alone.", is_flag=True)
@param_types.option("--verbose", "Print connections and reasons too.", is_flag=True)
@param_types.option(
    "--log-format",
    "The shape of what is printed.",
    type=click.Choice([form.value for form in LogFormat]),
    default=LogFormat.TEXT.value,
    show_default=True,
)
@param_types.option(
    "--jsonl",
    "Write each audit event to this file as well, a JSON object a line; - is standard output.",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="PATH",
)
@param_types.option("--record-query", "Keep the query of each URL in the audit log.", is_flag=True)
@param_types.option(
    "--audit-failure",
    "What becomes of a decision that cannot be recorded.",
    type=click.Choice([choice.value for choice in AuditFailure]),
    default=AuditFailure.DENY.value,
    show_default=True,
)
@param_types.option(
    "--audit-days",
    "How many days the audit log is kept.",
    type=param_types.count(1),
    default=30,
    show_default=True,
    metavar="DAYS",
)
@param_types.option(
    "--audit-size",
    "How large the audit log may grow before its oldest events go.",
    type=param_types.SIZE,
    default="256M",
    show_default=True,
    metavar="SIZE",
)
@param_types.option(
    "--allow-remote",
    "Permit listening beyond loopback: whoever reaches it and is in --client uses this proxy.",
    is_flag=True,
)
@param_types.option(
    "--client",
    "Serve clients of this network alone; repeatable.  [default: loopback]",
    type=param_types.NETWORK,
    multiple=True,
    metavar="CIDR",
)
@param_types.option(
    "--resolve",
    "Take ADDRESS for HOST:PORT and ask no resolver, as curl does; repeatable.",
    type=param_types.RESOLVE,
    multiple=True,
    metavar="HOST:PORT:ADDRESS",
)
@param_types.option(
    "--upstream-ca",
    "Trust the CAs in this PEM file too when upstream certificates are verified.",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    metavar="FILE",
)
@param_types.option(
    "--upstream-proxy",
    "Connect through this proxy. Set one with a password by the variable, as every user of the "
    "machine can read the arguments of a process.",
    type=param_types.PROXY,
    metavar="URL",
)
@param_types.option(
    "--no-upstream-proxy",
    "Connect to these directly, spelled as in NO_PROXY.",
    type=param_types.EXCEPTIONS,
    default=(),
    metavar="HOSTS",
)
@param_types.option(
    "--max-connections",
    "How many client connections may be open at once.",
    type=param_types.count(1),
    default=LIMITS.connections,
    show_default=True,
    metavar="COUNT",
)
@param_types.option(
    "--max-head",
    "How large the head of a request or an answer may be.",
    type=param_types.SIZE,
    default="64K",
    show_default=True,
    metavar="SIZE",
)
@param_types.option(
    "--head-timeout",
    "How long the head of a request may take.",
    type=param_types.duration(),
    default="30s",
    show_default=True,
    metavar="DURATION",
)
@param_types.option(
    "--handshake-timeout",
    "How long a TLS handshake may take.",
    type=param_types.duration(),
    default="30s",
    show_default=True,
    metavar="DURATION",
)
@param_types.option(
    "--idle-timeout",
    "How long a connection may be silent; Claude Code waits 600 seconds.",
    type=param_types.duration(),
    default="15m",
    show_default=True,
    metavar="DURATION",
)
@param_types.option(
    "--connect-timeout",
    "How long connecting upstream may take.",
    type=param_types.duration(),
    default="20s",
    show_default=True,
    metavar="DURATION",
)
@param_types.option(
    "--grace",
    "How long running exchanges may go on after SIGTERM or Ctrl-C.",
    type=param_types.duration(zero=True),
    default="10s",
    show_default=True,
    metavar="DURATION",
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run the proxy (the default command)."""
    _refuse_gateway_without_place(context, given)
    given |= param_types.nearest_of_gateway(context, given)
    arguments = Arguments(**given)
    settings = _with_service_manager(settings_of(arguments), arguments)
    if _password_in_argv(context, settings):
        click.echo(
            "claude-proxy: warning: every user of this machine can read the password in the "
            "arguments of this process; put the URL into CLAUDE_PROXY_UPSTREAM_PROXY",
            err=True,
        )
    start: Callable[[Settings], int] = context.obj
    return start(settings)


def settings_of(arguments: Arguments) -> Settings:
    """Return the settings that the options make together; raise ConfigError where they clash."""
    if arguments.quiet and arguments.verbose:
        _clash("--quiet and --verbose ask for opposites", "--quiet, --verbose", "drop one of them")
    learn = _learn(arguments)
    if arguments.policy is not None and arguments.allowlist is not None:
        _clash("a policy stands in the place of an allowlist", "--policy, --allowlist", _DROP_ONE)
    confdir = arguments.confdir or paths.default_confdir()
    allowlist, own = arguments.allowlist, confdir / paths.ALLOWLIST
    if allowlist is None:
        allowlist = paths.allowlist_path(confdir)
    return Settings(
        allowlist=allowlist,
        awaited_allowlist=own if arguments.allowlist is None and allowlist != own else None,
        confdir=confdir,
        cadir=arguments.cadir,
        statedir=arguments.statedir or paths.default_statedir(),
        listen=_listeners(arguments) or (TcpListen(DEFAULT_HOST, DEFAULT_PORT),),
        credentials=_credentials(arguments),
        uids=frozenset(arguments.socket_uid),
        policy=arguments.policy,
        groups=arguments.groups or paths.seeds_groups(),
        learn=learn,
        workers=arguments.workers,
        allow_remote=arguments.allow_remote,
        clients=arguments.client or CLIENTS,
        resolve=arguments.resolve,
        upstream_ca=arguments.upstream_ca,
        upstream_proxy=_upstream_proxy(arguments),
        verbosity=_verbosity(arguments),
        log_format=LogFormat(arguments.log_format),
        jsonl=arguments.jsonl,
        record_query=arguments.record_query,
        audit_failure=AuditFailure(arguments.audit_failure),
        audit_days=arguments.audit_days,
        audit_bytes=arguments.audit_size,
        limits=_limits(arguments),
        gateway=_gateway(arguments, _places_of_gateway(arguments)),
    )


def _refuse_gateway_without_place(context: click.Context, given: Mapping[str, Any]) -> None:
    if not (given["gateway"] or option_values.handed_for(os.environ, GATEWAY_UNIT)):
        param_types.refuse_options_of_gateway(context, fix="add --gateway WHERE")


def _places_of_gateway(arguments: Arguments) -> tuple[Listen, ...]:
    listens = [
        listen if isinstance(listen, TcpListen) else UnixListen(whole(listen.path))
        for listen in arguments.gateway
    ]
    own = _listeners(arguments) or (TcpListen(DEFAULT_HOST, DEFAULT_PORT),)
    _check_once_each([*own, *listens])
    return tuple(listens)


def _gateway(arguments: Arguments, listen: tuple[Listen, ...]) -> Gateway | None:
    if not listen:
        return None
    asked = gateway_settings.Asked(
        prefix="--gateway-",
        upstream=arguments.gateway_upstream,
        provider=arguments.gateway_provider,
        mode=None if arguments.gateway_mode is None else GatewayMode(arguments.gateway_mode),
        models=arguments.gateway_model,
        source=_key_of_gateway(arguments),
        token_file=arguments.gateway_token_file,
        allow_remote=arguments.allow_remote,
    )
    confdir = arguments.confdir or paths.default_confdir()
    # Not .env: this proxy may well be started in a directory that an agent works in.
    around = gateway_settings.Surroundings(os.environ)
    made = gateway_settings.gateway_of(asked, listen, around, gateway_settings.read_file(confdir))
    return made.gateway


def _key_of_gateway(arguments: Arguments) -> SecretSource | None:
    """Return where the gateway's key is said to be; a second place is a clash."""
    sources: dict[str, SecretSource] = {}
    if arguments.gateway_key_file is not None:
        sources["--gateway-key-file"] = FileSource(whole(arguments.gateway_key_file))
    if arguments.gateway_key_env is not None:
        sources["--gateway-key-env"] = EnvironmentSource(arguments.gateway_key_env)
    if arguments.gateway_key_systemd is not None:
        sources["--gateway-key-systemd"] = SystemdSource(arguments.gateway_key_systemd)
    if len(sources) > 1:
        _clash("the key is given twice", ", ".join(sources), _DROP_ONE)
    return next(iter(sources.values()), None)


def _learn(arguments: Arguments) -> tuple[Learn, Path] | None:
    if arguments.learn is not None and arguments.learn_deny is not None:
        _clash(
            "what is allowed cannot be learned with what is denied",
            "--learn, --learn-deny",
            _DROP_ONE,
        )
    if arguments.learn is not None:
        return (Learn.EVERYTHING, arguments.learn)
    return None if arguments.learn_deny is None else (Learn.DENIALS, arguments.learn_deny)


def _limits(arguments: Arguments) -> Limits:
    return Limits(
        connections=arguments.max_connections,
        head_bytes=arguments.max_head,
        head_timeout_s=arguments.head_timeout,
        handshake_timeout_s=arguments.handshake_timeout,
        idle_timeout_s=arguments.idle_timeout,
        connect_timeout_s=arguments.connect_timeout,
        grace_s=arguments.grace,
    )


def _verbosity(arguments: Arguments) -> Verbosity:
    if arguments.quiet:
        return Verbosity.QUIET
    return Verbosity.VERBOSE if arguments.verbose else Verbosity.NORMAL


def _upstream_proxy(arguments: Arguments) -> UpstreamProxy | None:
    if arguments.upstream_proxy is not None:
        return replace(arguments.upstream_proxy, exceptions=arguments.no_upstream_proxy)
    if arguments.no_upstream_proxy:
        _clash(
            "exceptions from an upstream proxy are given, but no upstream proxy",
            "--no-upstream-proxy or CLAUDE_PROXY_NO_UPSTREAM_PROXY",
            "give --upstream-proxy as well, or drop the exceptions",
        )
    return None


def _listeners(arguments: Arguments) -> tuple[Listen, ...]:
    """Return the listeners that were asked for; none: no word was said about them."""
    listens: list[Listen] = []
    if arguments.host is not None or arguments.port is not None:
        host = arguments.host or DEFAULT_HOST
        port = DEFAULT_PORT if arguments.port is None else arguments.port
        _check_reach(host, "--host or CLAUDE_PROXY_HOST", allow_remote=arguments.allow_remote)
        listens.append(TcpListen(host, port))
    for listen in arguments.listen:
        if isinstance(listen, TcpListen):
            _check_reach(listen.host, _LISTEN_SPELLING, allow_remote=arguments.allow_remote)
            listens.append(listen)
        else:
            listens.append(
                UnixListen(whole(listen.path), unlink_after_first=arguments.unlink_socket)
            )
    _check_unlinking(listens, asked=arguments.unlink_socket)
    _check_once_each(listens)
    return tuple(listens)


def whole(path: Path) -> Path:
    """Return a path as it is from anywhere, with the home directory in the place of ~."""
    try:
        return path.expanduser().absolute()
    except (RuntimeError, OSError):
        _clash("there is no home directory to find it in", str(path), "write the whole path")


def _check_unlinking(listens: Sequence[Listen], *, asked: bool) -> None:
    if asked and not any(isinstance(listen, UnixListen) for listen in listens):
        _clash(
            "there is no Unix socket whose file could be removed",
            "--unlink-socket or CLAUDE_PROXY_UNLINK_SOCKET",
            "add --listen unix:PATH, or drop the option",
        )


def _check_once_each(listens: Sequence[Listen]) -> None:
    seen: set[object] = set()
    for listen in listens:
        if isinstance(listen, TcpListen) and listen.port == 0:
            continue  # each gets a port of its own
        one = listen.path.resolve() if isinstance(listen, UnixListen) else listen
        if one in seen:
            _clash(
                f"{listen} is to be listened on twice", f"{_LISTEN_SPELLING}, --gateway", _DROP_ONE
            )
        seen.add(one)


def _credentials(arguments: Arguments) -> ClientCredentials | None:
    given, file = os.environ.get(AUTH_VARIABLE), arguments.proxy_auth_file
    if given and file is not None:
        _clash(
            "the password of the clients is given twice",
            f"--proxy-auth-file, {AUTH_VARIABLE}",
            "drop one of them",
        )
    if file is not None:
        return read_credentials(file)
    if not given:
        return None
    try:
        return option_values.parse_client_credentials(given)
    except ValueError as error:
        _clash(f"the password of the clients: {error}", AUTH_VARIABLE, "write USER:PASSWORD")


@dataclass(frozen=True, slots=True)
class Handed:
    """What a service manager has handed over."""

    sockets: tuple[InheritedListen, ...]
    for_gateway: frozenset[int]  # the descriptors that its units call so
    notify: str | None


def take_from_service_manager() -> Handed:
    """Return what was handed over; taken away, as no process started from here is to take it."""
    given = {name: os.environ.pop(name) for name in _ACTIVATION if name in os.environ}
    notify = os.environ.pop(_NOTIFY, None)
    try:
        handed = option_values.parse_activation(given, os.getpid())
    except ValueError as error:
        _clash(str(error), "LISTEN_FDS", "start it by a socket unit, or without that variable")
    return Handed(handed, option_values.handed_for(given, GATEWAY_UNIT), notify)


def _with_service_manager(settings: Settings, arguments: Arguments) -> Settings:
    """Add what a service manager has handed over; it takes the place of the default listener."""
    handed = take_from_service_manager()
    own = [one for one in handed.sockets if one.descriptor not in handed.for_gateway]
    listen = (*own, *_listeners(arguments)) if own else settings.listen
    gateway = settings.gateway
    if len(own) < len(handed.sockets):
        theirs = [one for one in handed.sockets if one.descriptor in handed.for_gateway]
        gateway = _gateway(arguments, (*theirs, *_places_of_gateway(arguments)))
    return replace(settings, notify=handed.notify, listen=listen, gateway=gateway)


def _check_reach(host: str, where: str, *, allow_remote: bool) -> None:
    if allow_remote or option_values.is_loopback(host):
        return
    _clash(
        f"on {host} anyone {option_values.meaning_of_remote(host)} could try to use this proxy",
        where,
        f"listen on {DEFAULT_HOST}, or add --allow-remote and name the clients with --client CIDR",
    )


def _clash(what: str, where: str, fix: str) -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)


def _password_in_argv(context: click.Context, settings: Settings) -> bool:
    proxy = settings.upstream_proxy
    source = context.get_parameter_source("upstream_proxy")
    typed = source is click.core.ParameterSource.COMMANDLINE
    return typed and proxy is not None and proxy.credentials is not None
