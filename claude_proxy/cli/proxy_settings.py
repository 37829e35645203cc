"""Settings of a proxy, from the values of its options.

Fail closed: a value that contradicts another stops the start, and listening beyond loopback needs
an option of its own.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from claude_proxy.cli import gateway_settings, paths
from claude_proxy.cli.workers import worker_count
from claude_proxy.config import option_values
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import AUTH_VARIABLE
from claude_proxy.config.proxy_auth import read_credentials
from claude_proxy.config.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    AuditFailure,
    ClientCredentials,
    Gateway,
    GatewayMode,
    Learn,
    Limits,
    Listen,
    LogFormat,
    Settings,
    TcpListen,
    UnixListen,
    UpstreamProxy,
    Verbosity,
)
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.sources import (
    EnvironmentSource,
    FileSource,
    SecretSource,
    SystemdSource,
)
from claude_proxy.system.file_permissions import (
    refuse_replaceable,
    refuse_writable,
    resolution_steps,
)
from claude_proxy.system.runs import base_of

type Values = Mapping[str, Any]  # of the options, by parameter

_DEFAULT_CLIENTS = Settings(Path(), Path(), Path()).clients
_ANSWERS = "the program that answers for you"
_DROP_ONE = "drop one of them"
_LISTEN_OPTION = "--listen or CLAUDE_PROXY_LISTEN"


def settings_of(values: Values, config: ConfigFile) -> Settings:
    """Return the settings that the options make together; raise ConfigError where they clash."""
    if values["quiet"] and values["verbose"]:
        _clash("--quiet and --verbose exclude each other", _where(config, "quiet", "verbose"))
    if values["policy"] is not None and values["allowlist"] is not None:
        what = "a policy is used instead of an allowlist, so only one can be named"
        _clash(what, _where(config, "policy", "allowlist"))
    confdir = values["confdir"] or paths.default_confdir()
    allowlist, own = values["allowlist"], confdir / paths.ALLOWLIST
    if allowlist is None:
        allowlist = paths.allowlist_path(confdir)
    listen = listeners_of(values, config) or (TcpListen(DEFAULT_HOST, DEFAULT_PORT),)
    of_gateway = gateway_listeners(values, config)
    return Settings(
        allowlist=allowlist,
        awaited_allowlist=own if values["allowlist"] is None and allowlist != own else None,
        confdir=confdir,
        names_confdir=values["confdir"] is not None and _is_unusual(confdir),
        cadir=values["cadir"],
        statedir=values["statedir"] or paths.default_statedir(),
        listen=listen,
        credentials=_credentials(values, config),
        uids=frozenset(values["socket_uid"]),
        policy=values["policy"],
        runs=base_of(os.environ),
        learn=_learn(values, config),
        workers=worker_count(values["workers"], (*listen, *of_gateway), values["max_connections"]),
        allow_remote=values["allow_remote"],
        clients=values["client"] or _DEFAULT_CLIENTS,
        resolve=values["resolve"],
        upstream_ca=values["upstream_ca"],
        upstream_proxy=_upstream_proxy(values, config),
        unused_proxy_variable=None if values["upstream_proxy"] else _proxy_variable(values, config),
        verbosity=_verbosity(values),
        tracebacks=bool(os.environ.get("CLAUDE_PROXY_DEBUG")),
        log_format=LogFormat(values["log_format"]),
        jsonl=values["jsonl"],
        record_query=values["record_query"],
        warm_upstreams=values["warm_upstreams"],
        ask=values["ask"],
        ask_timeout_s=values["ask_timeout"],
        ask_command=_ask_command(values, config),
        audit_failure=AuditFailure(values["audit_failure"]),
        audit_days=values["audit_days"],
        audit_bytes=values["audit_size"],
        limits=_limits(values),
        gateway=gateway_of(values, config, of_gateway),
    )


def _is_unusual(confdir: Path) -> bool:
    """Tell whether commands without --confdir use another directory."""
    usual = os.environ.get(paths.CONFDIR_VARIABLE) or paths.default_confdir()
    return confdir.absolute() != Path(usual).absolute()


def _verbosity(values: Values) -> Verbosity:
    if values["quiet"]:
        return Verbosity.QUIET
    return Verbosity.VERBOSE if values["verbose"] else Verbosity.NORMAL


def _limits(values: Values) -> Limits:
    return Limits(
        connections=values["max_connections"],
        head_bytes=values["max_head"],
        head_timeout_s=values["head_timeout"],
        handshake_timeout_s=values["handshake_timeout"],
        idle_timeout_s=values["idle_timeout"],
        connect_timeout_s=values["connect_timeout"],
        grace_s=values["grace"],
    )


def _learn(values: Values, config: ConfigFile) -> tuple[Learn, Path] | None:
    everything, denials = values["learn"], values["learn_deny"]
    if everything is not None and denials is not None:
        what = "what is allowed and what is denied cannot be learned at once"
        _clash(what, _where(config, "learn", "learn_deny"))
    if everything is not None:
        return (Learn.EVERYTHING, everything)
    return None if denials is None else (Learn.DENIALS, denials)


def _ask_command(values: Values, config: ConfigFile) -> Path | None:
    """Return the program that answers, by its full path; it must be there."""
    given = values["ask_command"]
    if given is None:
        return None
    path = Path(shutil.which(given) or given).absolute()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise ConfigError(
            f"{given} is not a program that can be run",
            where=_where(config, "ask_command"),
            fix="give the path of an executable file, such as ~/bin/answer",
        )
    _refuse_replaceable(path)
    return path


def _refuse_replaceable(path: Path) -> None:
    """Raise ConfigError if others could have a program of theirs answer."""
    for step in resolution_steps(path):
        refuse_writable(step, step.stat(), _ANSWERS)
        refuse_replaceable(step, _ANSWERS)


def _proxy_variable(values: Values, config: ConfigFile) -> str | None:
    """Return the variable by which the shell names another proxy than the one to be started."""
    ours = {str(one) for one in listeners_of(values, config)}
    ours.add(f"{DEFAULT_HOST}:{DEFAULT_PORT}")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        url = os.environ.get(name, "")
        place = url.rpartition("://")[2].rpartition("@")[2].rstrip("/")
        if place and place.replace("localhost", DEFAULT_HOST) not in ours:
            return name
    return None


def _upstream_proxy(values: Values, config: ConfigFile) -> UpstreamProxy | None:
    proxy: UpstreamProxy | None = values["upstream_proxy"]
    exceptions: tuple[str, ...] = values["no_upstream_proxy"]
    if proxy is not None:
        return replace(proxy, exceptions=exceptions)
    if exceptions:
        _clash(
            "exceptions from an upstream proxy are given, but no upstream proxy",
            _where(config, "no_upstream_proxy", variables=True),
            "give --upstream-proxy as well, or drop the exceptions",
        )
    return None


def _credentials(values: Values, config: ConfigFile) -> ClientCredentials | None:
    given, file = os.environ.get(AUTH_VARIABLE), values["proxy_auth_file"]
    if given and file is not None:
        where = f"{_where(config, 'serve.proxy_auth_file')}, {AUTH_VARIABLE}"
        _clash("the password of the clients is given twice", where)
    if file is not None:
        return read_credentials(file)
    if not given:
        return None
    try:
        return option_values.parse_client_credentials(given)
    except ValueError as error:
        _clash(f"the password of the clients: {error}", AUTH_VARIABLE, "write USER:PASSWORD")


# --- where it listens


def listeners_of(values: Values, config: ConfigFile) -> tuple[Listen, ...]:
    """Return the listeners that the options name; empty if they name none."""
    listens: list[Listen] = []
    if values["host"] is not None or values["port"] is not None:
        host = values["host"] or DEFAULT_HOST
        port = DEFAULT_PORT if values["port"] is None else values["port"]
        where = _where(config, "serve.host", variables=True)
        _check_reach(host, where, allow_remote=values["allow_remote"])
        listens.append(TcpListen(host, port))
    for listen in values["listen"]:
        if isinstance(listen, TcpListen):
            where = _where(config, "serve.listen", variables=True)
            _check_reach(listen.host, where, allow_remote=values["allow_remote"])
            listens.append(listen)
        else:
            unlinks = values["unlink_socket"]
            listens.append(UnixListen(absolute(listen.path), unlink_after_first=unlinks))
    if values["unlink_socket"] and not any(isinstance(one, UnixListen) for one in listens):
        _clash(
            "there is no Unix socket whose file could be removed",
            _where(config, "serve.unlink_socket", variables=True),
            "add --listen unix:PATH, or drop the option",
        )
    _check_unique(listens)
    return tuple(listens)


def absolute(path: Path) -> Path:
    """Return a path as it is from everywhere, with ~ replaced by the home directory."""
    try:
        return path.expanduser().absolute()
    except (RuntimeError, OSError):
        _clash("there is no home directory to find it in", str(path), "write the whole path")


def _check_unique(listens: Sequence[Listen]) -> None:
    seen: set[object] = set()
    for listen in listens:
        if isinstance(listen, TcpListen) and listen.port == 0:
            continue  # each gets a port of its own
        place = listen.path.resolve() if isinstance(listen, UnixListen) else listen
        if place in seen:
            _clash(f"{listen} would be listened on twice", f"{_LISTEN_OPTION}, --gateway")
        seen.add(place)


def _check_reach(host: str, where: str, *, allow_remote: bool) -> None:
    if allow_remote or option_values.is_loopback(host):
        return
    _clash(
        f"listening on {host} lets anyone {option_values.meaning_of_remote(host)} try this proxy",
        where,
        f"listen on {DEFAULT_HOST}, or add --allow-remote and name the clients with --client CIDR",
    )


# --- the gateway beside it


def gateway_listeners(values: Values, config: ConfigFile) -> tuple[Listen, ...]:
    """Return where the gateway is to listen; none: there is no gateway."""
    listens = [
        listen if isinstance(listen, TcpListen) else UnixListen(absolute(listen.path))
        for listen in values["gateway"]
    ]
    own = listeners_of(values, config) or (TcpListen(DEFAULT_HOST, DEFAULT_PORT),)
    _check_unique([*own, *listens])
    return tuple(listens)


def gateway_of(values: Values, config: ConfigFile, listen: tuple[Listen, ...]) -> Gateway | None:
    """Return the gateway that listens there; None where it listens nowhere."""
    if not listen:
        return None
    mode = values["gateway_mode"]
    given = gateway_settings.GatewayOptions(
        prefix="--gateway-",
        upstream=values["gateway_upstream"],
        provider=values["gateway_provider"],
        mode=None if mode is None else GatewayMode(mode),
        models=values["gateway_model"],
        source=_key_of_gateway(values),
        token_file=values["gateway_token_file"],
        allow_remote=values["allow_remote"],
    )
    # Not .env: this proxy may well be started in a directory that an agent works in.
    variables = gateway_settings.Variables(os.environ)
    return gateway_settings.gateway_of(given, listen, variables, config).gateway


def _key_of_gateway(values: Values) -> SecretSource | None:
    """Return where the options say the gateway's key is; a second place is a clash."""
    sources: dict[str, SecretSource] = {}
    if values["gateway_key_file"] is not None:
        sources["--gateway-key-file"] = FileSource(absolute(values["gateway_key_file"]))
    if values["gateway_key_env"] is not None:
        sources["--gateway-key-env"] = EnvironmentSource(values["gateway_key_env"])
    if values["gateway_key_systemd"] is not None:
        sources["--gateway-key-systemd"] = SystemdSource(values["gateway_key_systemd"])
    if len(sources) > 1:
        _clash("the key is given twice", ", ".join(sources))
    return next(iter(sources.values()), None)


def _where(config: ConfigFile, *keys: str, variables: bool = False) -> str:
    """Return the options of some keys as messages name them, and their lines in config.yaml."""
    names = [key.rpartition(".")[2] for key in keys]
    spelled = [f"--{name.replace('_', '-')}" for name in names]
    if variables:
        spelled = [
            f"{one} or CLAUDE_PROXY_{name.upper()}"
            for one, name in zip(spelled, names, strict=True)
        ]
    lines = [config.where(key) for key in keys if key in config.entries]
    return ", ".join([*spelled, *lines])


def _clash(what: str, where: str, fix: str = _DROP_ONE) -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
