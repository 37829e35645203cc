"""The plan of a service, from the options of `claude-proxy service` and of the command it runs.

Keeps "no quiet downgrade": what would not work (an unknown option, a file the service cannot see, a
socket nobody may use) is an error now, not a unit that fails at the next boot. Keeps "secrets stay
outside": every user can read a unit, so a value that may hold a password is refused.
"""

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NoReturn

import click

import claude_proxy
from claude_proxy.cli import paths
from claude_proxy.cli.options import voided_keys
from claude_proxy.cli.workers import worker_count
from claude_proxy.config import config_file, config_yaml, option_values
from claude_proxy.config.option_table import Subcommand, fields_of
from claude_proxy.config.providers import find_provider
from claude_proxy.config.settings import DEFAULT_HOST, Limits, TcpListen, UnixListen, UpstreamProxy
from claude_proxy.config.worker_count import AUTOMATIC
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.server.service.names import names_of
from claude_proxy.server.service.plan import HTTPS_PORT, Firewall, Scope, ServiceKind, ServicePlan
from claude_proxy.server.service.systemd import default_listener, listening_words
from claude_proxy.system import file_permissions

# Directories that are hidden from a unit with private home and temporary directories.
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - named, not used
_UNSEEN = {
    Scope.SYSTEM: ("/home", pwd.getpwuid(0).pw_dir, "/run/user", *_TEMPORARY),
    Scope.USER: _TEMPORARY,
}
NOT_GIVEN = frozenset({"cadir", "confdir", "statedir", "new_token"})  # to the command of a service
_WRITES = ("jsonl", "learn", "learn_deny")
_LISTENING = ("listen", "host", "port", "uds")
_UNIX = "unix:"
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as systemd looks
_OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The options of `claude-proxy service` that describe a service."""

    scope: Scope
    kind: ServiceKind
    socket_activated: bool = False
    key_file: Path | None = None
    nftables: bool = False
    upstream_port: tuple[int, ...] = ()
    dns_server: tuple[IPv4Address | IPv6Address, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """The options of the command that the service runs, parsed but not applied."""

    values: Mapping[str, Any]
    words: tuple[str, ...]  # normalised arguments, without the listening options
    written: Mapping[str, Any] = field(default_factory=dict)  # in config.yaml, and not overridden

    def get(self, name: str, default: Any) -> Any:
        """Return the value of an option, else config.yaml's, else the default."""
        return self.values.get(name, self.written.get(name, default))

    @property
    def names(self) -> frozenset[str]:
        """The options that are set, by the arguments or by config.yaml."""
        return frozenset({*self.values, *self.written})


@dataclass(frozen=True, slots=True)
class PlannedService:
    """The plan of a service, and what would keep it from working on this machine."""

    plan: ServicePlan
    problems: tuple[ConfigError, ...]
    own_allowlist: bool  # the allowlist is in the service's own directory
    exposes_key: bool  # every user of this machine can use the gateway's key
    spelled: tuple[str, ...]  # the complete arguments that describe it


def default_scope() -> Scope:
    """Return the scope that the current user may install in."""
    return Scope.SYSTEM if os.geteuid() == 0 else Scope.USER


def describe(options: ServiceOptions) -> PlannedService:
    """Return the plan of a service; ConfigError if the options contradict each other."""
    typed = understand(options.kind, options.words)
    _refuse_secrets(typed)
    given = replace(typed, written=_written(options, typed))
    _refuse_second_key(options, given)
    listen = tuple(_listeners(options.kind, given))
    listeners = (*listen, *_gateway_places(given))
    _check_listeners(options, given, listeners)
    made = (
        listeners[len(listen) :] if options.socket_activated else listeners
    )  # systemd creates the rest
    writable = tuple(dict.fromkeys(_writable(options, given, made)))
    own, places = _places(options, given)
    plan = ServicePlan(
        kind=options.kind,
        scope=options.scope,
        program=program(),
        words=(*places, *given.words),
        listen=listen,
        activated=options.socket_activated,
        shared=bool(given.get("socket_uid", ())),
        remote=any(_is_remote(one) for one in listeners),
        key_file=None if options.key_file is None else str(options.key_file),
        key_option=_key_option(options),
        writable=writable,
        workers=_workers(options.kind, given, made),
        connections=given.get("max_connections", Limits().connections),
        grace_s=given.get("grace", Limits().grace_s),
        firewall=_firewall(options, given),
    )
    problems = (*_problems(options, given), *_lost_places(options, made, writable))
    exposes = _exposes_key(options.kind, given, listen)
    return PlannedService(plan, problems, own, exposes, _spelled(options, typed))


def _workers(
    kind: ServiceKind, given: CommandOptions, listen: Sequence[TcpListen | UnixListen]
) -> int:
    if kind is ServiceKind.GATEWAY:
        return 1
    connections = given.get("max_connections", Limits().connections)
    return worker_count(given.get("workers", AUTOMATIC), listen, connections)


def program() -> tuple[str, ...]:
    """Return the command line of this installation."""
    script = Path(sys.executable).absolute().with_name(paths.PROGRAM)
    if os.access(script, os.X_OK):
        return (str(script),)
    return (str(Path(sys.executable).absolute()), "-I", "-m", "claude_proxy")


# --- the command's own options


def understand(kind: ServiceKind, words: Sequence[str]) -> CommandOptions:
    """Parse the options of a command without applying them, and without variables."""
    command: click.Command = import_module(f"claude_proxy.cli.{kind}").command
    context = click.Context(command, info_name=f"{paths.PROGRAM} {kind}")
    given, rest, order = command.make_parser(context).parse_args(list(words))
    if rest:
        _refuse(f'"{rest[0]}" is not an option of `{paths.PROGRAM} {kind}`', rest[0], "drop it")
    values: dict[str, Any] = {}
    spelled: list[str] = []
    for param in dict.fromkeys(order):
        name = str(param.name)
        if name == "new_token":
            _refuse(
                "the new token would be printed into the journal",
                param.opts[-1],
                "write one into a file, and name it with --token-file",
            )
        if param.is_eager or name in NOT_GIVEN:
            _refuse("a service cannot be given this", param.opts[-1], "leave it out")
        values[name] = param.type_cast_value(context, given[name])
        if name not in _LISTENING:
            spelled += _respelled(param, given[name])
    return CommandOptions(values, tuple(spelled))


def _written(options: ServiceOptions, typed: CommandOptions) -> dict[str, Any]:
    """Return what config.yaml sets and the arguments leave open, by parameter."""
    command = Subcommand(str(options.kind))
    config = config_file.read(_configuration(options))
    parameters = {row.key: row.parameter(command) for row in fields_of(command)}
    given = {key for key, name in parameters.items() if name in typed.values}
    open_keys = config.entries.keys() - given - voided_keys(given)
    return {parameters[key]: config.value(key) for key in open_keys & parameters.keys()}


def _respelled(param: click.Parameter, given: Any) -> Iterator[str]:
    option = param.opts[-1]
    if isinstance(param, click.Option) and param.is_flag:
        yield option if given else param.secondary_opts[-1]
        return
    for text in given if param.multiple or isinstance(given, list) else [given]:
        yield f"{option}={_whole(param, text)}"


def _whole(param: click.Parameter, text: str) -> str:
    """Return a path that leads there from everywhere, and anything else as it is."""
    if param.name == "gateway" and text.startswith(_UNIX):
        return f"{_UNIX}{Path(text.removeprefix(_UNIX)).expanduser().absolute()}"
    if not isinstance(param.type, click.Path) or text == "-":
        return text
    return str(Path(text).expanduser().absolute())


def _listeners(kind: ServiceKind, given: CommandOptions) -> Iterator[TcpListen | UnixListen]:
    host, port = given.get("host", None), given.get("port", None)
    if host is not None or port is not None:
        usual = default_listener(kind).port
        yield TcpListen(host or DEFAULT_HOST, usual if port is None else port)
    uds = given.get("uds", None)
    for listen in (*given.get("listen", ()), *([] if uds is None else [UnixListen(uds)])):
        if isinstance(listen, UnixListen):
            yield UnixListen(listen.path.expanduser().absolute())
        else:
            yield listen


def _gateway_places(given: CommandOptions) -> Iterator[TcpListen | UnixListen]:
    """Yield where `serve` listens as a gateway too, apart from the listeners of its clients."""
    for one in given.get("gateway", ()):
        is_path = isinstance(one, UnixListen)
        yield UnixListen(one.path.expanduser().absolute()) if is_path else one


def _exposes_key(
    kind: ServiceKind, given: CommandOptions, listen: Sequence[TcpListen | UnixListen]
) -> bool:
    gateway = kind is ServiceKind.GATEWAY
    places = (listen or [default_listener(kind)]) if gateway else tuple(_gateway_places(given))
    token = "token_file" if gateway else "gateway_token_file"
    return token not in given.names and any(isinstance(one, TcpListen) for one in places)


def _is_remote(listen: TcpListen | UnixListen) -> bool:
    return isinstance(listen, TcpListen) and not option_values.is_loopback(listen.host)


def _check_listeners(
    options: ServiceOptions, given: CommandOptions, listen: Sequence[TcpListen | UnixListen]
) -> None:
    for one in listen:
        if _is_remote(one) and not given.get("allow_remote", default=False):
            _refuse(
                f"{one} can be reached from other machines",
                str(one),
                "listen on 127.0.0.1, or add --allow-remote and name its clients with --client",
            )
        if isinstance(one, TcpListen) and one.port == 0:
            _refuse("clients would not know the port", str(one), "choose a port")
    by_socket = any(isinstance(one, UnixListen) for one in listen)
    uids = given.get("socket_uid", ())
    if options.scope is Scope.SYSTEM and by_socket and not uids:
        _refuse(
            f"only {names_of(options.kind).user} could use the Unix socket",
            "--socket-uid",
            "name the users who may connect: --socket-uid USER",
        )
    if options.scope is Scope.USER and set(uids) - {os.geteuid()}:
        _refuse(
            "a user service cannot identify other users, so it does not serve them",
            "--socket-uid",
            "install a system service (--system), or drop the option",
        )


# --- files


def _places(options: ServiceOptions, given: CommandOptions) -> tuple[bool, tuple[str, ...]]:
    """Return whether the service has its own allowlist, and the options for its directories."""
    if options.scope is Scope.USER:
        own = (f"--confdir={paths.default_confdir()}", f"--statedir={paths.default_statedir()}")
        return False, own
    names = names_of(options.kind)
    # What it writes is kept apart from its configuration.
    places = [f"--confdir={names.configuration}", f"--cadir={names.state}"]
    places.append(f"--statedir={names.state}")
    named = {"allowlist", "policy"} & given.names
    if not named:
        places.append(f"--allowlist={names.allowlist}")
    return not named, tuple(places)


def _writable(
    options: ServiceOptions, given: CommandOptions, listen: Sequence[TcpListen | UnixListen]
) -> Iterator[str]:
    if options.scope is Scope.USER:
        yield str(paths.default_confdir())
        yield str(paths.default_statedir())
    for name in _WRITES:
        path = given.get(name, None)
        if path is not None and str(path) != "-":
            yield str(Path(path).expanduser().absolute().parent)
    for one in listen:
        if isinstance(one, UnixListen) and not one.path.is_relative_to(_runtime(options)):
            yield str(one.path.parent)


def _runtime(options: ServiceOptions) -> Path:
    """Return the directory for sockets that systemd creates for the service."""
    names = names_of(options.kind)
    if options.scope is Scope.SYSTEM:
        return Path(names.runtime)
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") / names.name


def _fix_of_install(scope: Scope) -> str:
    """Return how to install the program where the service sees it.

    From the wheel: on the public index the name claude-proxy belongs to another project.
    """
    wheel = f"dist/claude_proxy-{claude_proxy.__version__}-py3-none-any.whl"
    if scope is Scope.SYSTEM:
        return (
            "install the wheel (`make wheel`) for all users: sudo PIPX_HOME=/opt/pipx "
            f"PIPX_BIN_DIR=/usr/local/bin pipx install {wheel}"
        )
    return f"install the wheel (`make wheel`) in your home directory: pipx install {wheel}"


def _problems(options: ServiceOptions, given: CommandOptions) -> Iterator[ConfigError]:
    package = str(Path(claude_proxy.__file__).resolve().parent)
    seen = (program()[0], os.path.realpath(program()[0]), sys.prefix, sys.base_prefix, package)
    for path in dict.fromkeys(seen):
        if _unseen(options.scope, path):
            yield ConfigError(
                "the service could not see the program: this path is hidden from it",
                where=path,
                fix=_fix_of_install(options.scope),
            )
            break
    if options.scope is Scope.SYSTEM:
        try:
            file_permissions.refuse_replaceable(Path(program()[0]), "what the service runs")
        except ConfigError as error:
            yield error
    for path in _given_files(given):
        if _unseen(options.scope, path):
            yield ConfigError(
                "the service could not see the file: this path is hidden from it",
                where=path,
                fix=f"put it into {_configuration(options)}",
            )
    if options.nftables and shutil.which("nft", path=_PROGRAMS) is None:
        yield ConfigError(
            "nft is not installed, and the service does not start without its rules",
            where="--nftables",
            fix="install nftables with the system's package manager",
        )
    if options.kind is ServiceKind.GATEWAY or given.get("gateway", ()):
        yield from _unfinished(options, given)


def _lost_places(
    options: ServiceOptions, made: Sequence[TcpListen | UnixListen], writable: Sequence[str]
) -> Iterator[ConfigError]:
    """Yield an error for each socket or directory that the service could not create."""
    for one in made:
        if isinstance(one, UnixListen) and _unseen(options.scope, str(one.path)):
            yield ConfigError(
                "no client could see the socket: the service has a private directory there",
                where=str(one.path),
                fix=f"put it into {_runtime(options)}",
            )
    user = options.scope is Scope.USER
    state = str(paths.default_statedir()) if user else names_of(options.kind).state
    own = (str(paths.default_confdir()), state)  # created if missing
    for path in writable:
        if path not in own and not Path(path).is_dir():
            yield ConfigError(
                "there is no such directory, and the service does not start without it",
                where=path,
                fix=f"create it, or choose a path in {state}",
            )


def _unfinished(options: ServiceOptions, given: CommandOptions) -> Iterator[ConfigError]:
    """Yield what a gateway cannot start without, unless config.yaml may set it."""
    path = _configuration(options) / config_yaml.NAME
    prefix = "" if options.kind is ServiceKind.GATEWAY else "gateway_"
    try:
        config = config_file.read(path.parent)
    except ConfigError as error:
        yield error
        return
    if (name := given.get(f"{prefix}provider", None)) is not None:
        try:
            find_provider(config.providers, name, f"{_option(prefix)}provider")
        except ConfigError as error:
            yield error
    if config.configures_gateway:
        return
    if not {f"{prefix}provider", f"{prefix}upstream"} & set(given.values):
        yield ConfigError(
            "the gateway would have no upstream",
            where=f"{options.kind}, {path}",
            fix=f"give it after --, as in `-- {_option(prefix)}provider anthropic`, or write "
            "gateway: {provider: anthropic} into that file",
        )
    keys = (name for name in given.values if name.startswith(f"{prefix}key_"))
    handed = options.key_file is not None and not prefix
    credential = names_of(options.kind).credential
    if not handed and not any(not name.endswith("key_env") for name in keys):
        yield ConfigError(
            "the gateway would have no key for its upstream: a service inherits no variables",
            where=f"{options.kind}, {path}",
            fix="name the file that holds the key with --key-file"
            + (f", and add {_option(prefix)}key-systemd {credential} after --" if prefix else ""),
        )


def _configuration(options: ServiceOptions) -> Path:
    if options.scope is Scope.USER:
        return paths.default_confdir()
    return Path(names_of(options.kind).configuration)


def _option(prefix: str) -> str:
    return f"--{prefix.replace('_', '-')}"


def _given_files(given: CommandOptions) -> Iterator[str]:
    for name in sorted(given.names):
        value = given.get(name, None)
        if isinstance(value, Path) and str(value) != "-" and name != "uds":
            yield str(value.expanduser().absolute())


def _unseen(scope: Scope, path: str) -> bool:
    return any(Path(path).is_relative_to(place) for place in _UNSEEN[scope])


def check_key_file(path: Path, scope: Scope) -> None:
    """Raise ConfigError if others could read, or replace, the file that holds the key."""
    try:
        found = path.lstat()
    except OSError as error:
        raise ConfigError(
            f"the key file cannot be checked: {(error.strerror or '').lower()}",
            where=str(path),
            fix="name the file that holds the key with --key-file",
        ) from error
    if not stat.S_ISREG(found.st_mode):
        _refuse("the key file is not a regular file", str(path), "name the file itself")
    if found.st_mode & _OTHERS_ANY:
        _refuse(
            "users other than the owner can read the key file",
            f"{path} (mode {stat.S_IMODE(found.st_mode):04o})",
            f"chmod 600 {path}",
        )
    if found.st_size == 0:
        _refuse("the key file is empty", str(path), "put the key into it")
    if scope is Scope.SYSTEM or os.geteuid() != 0:
        file_permissions.refuse_writable(path, found, "the key")
    file_permissions.refuse_replaceable(path, "the key")


# --- the key and the packet filter


def key_file_word(options: ServiceOptions) -> str:
    """Return the option to read the key file, as launchd cannot pass credentials."""
    if options.kind is ServiceKind.SERVE:
        _refuse(
            "the allowlist of `serve` names its keys",
            "--key-file",
            "drop it, and write the path under `credentials`: from: {file: PATH}",
        )
    return f"--key-file={options.key_file}"


def _key_option(options: ServiceOptions) -> str | None:
    if options.key_file is None or options.kind is ServiceKind.SERVE:
        return None  # an allowlist names it: {from: {systemd: NAME}}
    return "--key-systemd"


def _refuse_second_key(options: ServiceOptions, given: CommandOptions) -> None:
    if options.key_file is None or options.kind is ServiceKind.SERVE:
        return
    second = next((name for name in given.values if name.startswith("key_")), None)
    if second is not None:
        option = f"--{second.replace('_', '-')}"
        _refuse("the key is given twice", f"--key-file, {option} after --", "drop one of them")


def _firewall(options: ServiceOptions, given: CommandOptions) -> Firewall | None:
    if not options.nftables:
        if options.upstream_port or options.dns_server:
            _refuse(
                "ports and name servers apply only to the packet filter",
                "--upstream-port, --dns-server",
                "add --nftables",
            )
        return None
    if options.scope is Scope.USER:
        _refuse(
            "a user service runs as that user, so the rules would apply to all programs",
            "--nftables",
            "install a system service: --system",
        )
    proxy: UpstreamProxy | None = given.get("upstream_proxy", None)
    base = given.get("upstream", None) or given.get("gateway_upstream", None)
    ports = {HTTPS_PORT, *options.upstream_port}
    named = [one.authority for one in (proxy, base) if one is not None]
    # Addresses of this machine are allowed without a rule of their own.
    ports |= {one.port for one in named if one.address is None or not one.address.is_loopback}
    return Firewall(frozenset(ports), options.dns_server)


# --- spelled again


def _spelled(options: ServiceOptions, given: CommandOptions) -> tuple[str, ...]:
    words = [f"--{options.scope}", "--kind", str(options.kind)]
    if options.socket_activated:
        words.append("--socket-activated")
    if options.key_file is not None:
        words += ["--key-file", str(options.key_file)]
    if options.nftables:
        words.append("--nftables")
    for port in options.upstream_port:
        words += ["--upstream-port", str(port)]
    for server in options.dns_server:
        words += ["--dns-server", str(server)]
    listen = tuple(_listeners(options.kind, given))
    inner = [*listening_words(options.kind, listen), *given.words]
    return (*words, "--", *inner) if inner else tuple(words)


def _refuse_secrets(given: CommandOptions) -> None:
    proxy: UpstreamProxy | None = given.get("upstream_proxy", None)
    if proxy is not None and proxy.credentials is not None:
        _refuse(
            "every user could read the password in the unit file",
            "--upstream-proxy",
            "give the proxy's address without the password",
        )


def _refuse(what: str, where: str, fix: str) -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
