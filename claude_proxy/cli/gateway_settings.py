"""Settings of the gateway, from options, variables, .env and config.yaml.

Precedence: option, CLAUDE_PROXY_GATEWAY_* variable, PROXY_* variable, .env, config.yaml, default.
Fail closed: what is not clear stops the start. A key is looked at here only to be refused early; it
is neither kept nor quoted.
"""

import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn

from claude_proxy.config import option_values
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import DEFAULT_GATEWAY_PORT, FIELDS, Subcommand
from claude_proxy.config.providers import ANTHROPIC, Provider, find_provider
from claude_proxy.config.proxy_auth import read_token
from claude_proxy.config.settings import (
    DEFAULT_HOST,
    Base,
    Ceilings,
    Gateway,
    GatewayMode,
    Listen,
    TcpListen,
)
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Form, Injection
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
    source_name,
)
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gateway.banner import KEY_VARIABLE, default_seconds, seconds_allowed
from claude_proxy.vault import dotenv_file
from claude_proxy.vault.dotenv_file import DotenvFile

UPSTREAM_VARIABLE = "PROXY_UPSTREAM_BASE"
PROVIDER_VARIABLE = "PROXY_PROVIDER"
MODEL_VARIABLE = "PROXY_DEFAULT_MODEL"
TIMEOUT_VARIABLE = "PROXY_TIMEOUT"
HOST_VARIABLE = "PROXY_HOST"
PORT_VARIABLE = "PROXY_PORT"
VARIABLES = (
    KEY_VARIABLE,
    *(field.older_variable for field in FIELDS if field.older_variable is not None),
)
ANTHROPIC_VARIABLE = "ANTHROPIC_API_KEY"
KEY_OPTIONS = ("key_file", "key_env", "key_command", "key_keyring", "key_systemd")

_BUILT_IN_VARIABLES = (KEY_VARIABLE, ANTHROPIC_VARIABLE)
_SECTION = Subcommand.GATEWAY.value

_HIGHEST_PORT = 65535
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class VariableText:
    """What a variable is set to, and where."""

    text: str
    where: str
    in_dotenv: bool = False


@dataclass(frozen=True, slots=True)
class Variables:
    """The environment and the .env file; an empty variable counts as not set."""

    environ: Mapping[str, str] = field(repr=False)
    dotenv: DotenvFile | None = None

    def find(self, name: str) -> VariableText | None:
        """Return what a variable is set to, in the environment first."""
        return self.of_environment(name) or self.of_file(name)

    def of_environment(self, name: str) -> VariableText | None:
        """Return what a variable of the environment is set to."""
        text = self.environ.get(name, "")
        return VariableText(text, name) if text else None

    def of_file(self, name: str) -> VariableText | None:
        """Return what the .env file sets a variable to."""
        text = self.dotenv.value(name) if self.dotenv is not None else None
        where = "" if self.dotenv is None else f"{name} in {self.dotenv.path}"
        return VariableText(text, where, in_dotenv=True) if text else None


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What options, or config.yaml, say about a gateway; None: nothing."""

    prefix: str = "--"  # of the options' names, for messages
    upstream: Base | None = None
    provider: str | None = None
    mode: GatewayMode | None = None
    models: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    source: SecretSource | None = None
    form: Form | None = None
    token_file: Path | None = None
    new_token: bool = False
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    request_bytes: int | None = None
    allow_remote: bool = False
    keeps_retry_after: bool | None = None


@dataclass(frozen=True, slots=True)
class GatewayWithWarnings:
    """A gateway's settings, and what to warn the user about."""

    gateway: Gateway
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where requests go, and what said so."""

    provider: Provider | None
    upstream: Base
    from_dotenv: bool = False
    from_config: bool = False


def read_dotenv(directory: Path) -> DotenvFile | None:
    """Return what .env in a directory says; None if there is none."""
    return dotenv_file.read(directory / dotenv_file.NAME)


def options_in(config: ConfigFile) -> GatewayOptions:
    """Return what config.yaml says about a gateway."""

    def value(name: str) -> Any:
        return config.value(f"{_SECTION}.{name}")

    mode, form = value("mode"), value("form")
    return GatewayOptions(
        upstream=value("upstream"),
        provider=value("provider"),
        mode=None if mode is None else GatewayMode(mode),
        models=value("model") or (),
        timeout_s=value("timeout"),
        source=_source_in(config),
        form=None if form is None else Form(form),
        token_file=value("token_file"),
        requests_per_minute=value("max_requests_per_minute"),
        tokens_per_day=value("max_tokens_per_day"),
        request_bytes=value("max_body"),
        keeps_retry_after=value("keep_retry_after"),
    )


def _source_in(config: ConfigFile) -> SecretSource | None:
    keys = [key for name in KEY_OPTIONS if (key := f"{_SECTION}.{name}") in config.entries]
    if len(keys) > 1:
        _refuse("the key is given twice", ", ".join(map(config.where, keys)), "drop one of them")
    if not keys:
        return None
    return key_source(keys[0].rpartition(".")[2], config.value(keys[0]), config.where(keys[0]))


def key_source(name: str, value: Any, where: str) -> SecretSource:
    """Return the source that one of the key options names; `where` is for messages."""
    match name:
        case "key_file":
            return FileSource(value)
        case "key_env":
            return EnvironmentSource(value)
        case "key_systemd":
            return SystemdSource(value)
        case "key_command":
            return _command_source(value, where)
        case _:
            return _keyring_source(value, where)


def _command_source(text: str, where: str) -> SecretSource:
    try:
        argv = tuple(shlex.split(text))
    except ValueError:
        argv = ()
    if not argv:
        _refuse("it is not a command", where, "close its quotes, and name a program")
    return CommandSource(argv)


def _keyring_source(text: str, where: str) -> SecretSource:
    service, _, user = text.rpartition(":")
    if not (service and user):
        _refuse("it is not SERVICE:USER", where, "write both, with a colon between")
    return KeyringSource(service, user)


def gateway_of(
    given: GatewayOptions, listen: tuple[Listen, ...], variables: Variables, config: ConfigFile
) -> GatewayWithWarnings:
    """Return the settings of a gateway; ConfigError says what is missing or impossible."""
    written = options_in(config)
    destination, source = _destination_and_key(given, variables, config, written)
    mode = given.mode or written.mode or GatewayMode.CLAUDE
    provider = destination.provider
    form = given.form or written.form or (provider.form if provider is not None else Form.AUTO)
    keeps = given.keeps_retry_after
    gateway = Gateway(
        listen=listen,
        upstream=destination.upstream,
        credential=Injection(
            source, form=form, strips=True, plain=destination.upstream.scheme is Scheme.HTTP
        ),
        mode=mode,
        models=_models(given, variables, written, provider, config),
        timeout_s=_timeout(given, variables, config, written, mode),
        token=_token(given, written),
        ceilings=_ceilings(given, written),
        keeps_retry_after=bool(written.keeps_retry_after if keeps is None else keeps),
    )
    if bound := given.request_bytes or written.request_bytes:
        gateway = replace(gateway, request_bytes=bound)
    _refuse_unbound_reach(gateway, given)
    return GatewayWithWarnings(gateway, tuple(_warnings(variables, destination, source)))


# --- where requests go


def _destination_and_key(
    given: GatewayOptions, variables: Variables, config: ConfigFile, written: GatewayOptions
) -> tuple[_Destination, SecretSource]:
    try:
        destination = _destination(given, variables, config, written)
    except ConfigError as error:
        # Both are missing at the very first start, and are reported at once.
        sources = (given.source, written.source, variables.find(KEY_VARIABLE))
        keyless = all(source is None for source in sources)
        more = [_without_key(given, (KEY_VARIABLE,))] if keyless else []
        raise ConfigErrors([error, *more]) from None
    return destination, _source(given, variables, config, written, destination)


def _destination(
    given: GatewayOptions, variables: Variables, config: ConfigFile, written: GatewayOptions
) -> _Destination:
    """Return the upstream of the nearest one that names an upstream or a provider."""
    upstream, provider = f"{given.prefix}upstream", f"{given.prefix}provider"
    if given.upstream is not None and given.provider is not None:
        _refuse_both(f"{upstream}, {provider}")
    if given.upstream is not None:
        return _Destination(None, given.upstream)
    if given.provider is not None:
        return _at_provider(config, given.provider, provider)
    named = _destination_in_variables(variables, config)
    if named is not None:
        return named
    if written.upstream is not None and written.provider is not None:
        where = (config.where(f"{_SECTION}.{name}") for name in ("upstream", "provider"))
        _refuse_both(", ".join(where))
    if written.upstream is not None:
        return _Destination(None, written.upstream, from_config=True)
    if written.provider is not None:
        where_provider = config.where(f"{_SECTION}.provider")
        return replace(_at_provider(config, written.provider, where_provider), from_config=True)
    raise ConfigError(
        "the gateway has no upstream",
        where=f"{upstream} or {provider}, or {UPSTREAM_VARIABLE}",
        fix=f"give {provider} anthropic, or set {UPSTREAM_VARIABLE}=https://api.anthropic.com",
    )


def _destination_in_variables(variables: Variables, config: ConfigFile) -> _Destination | None:
    for find in (variables.of_environment, variables.of_file):
        base, name = find(UPSTREAM_VARIABLE), find(PROVIDER_VARIABLE)
        if base is not None and name is not None:
            _refuse_both(f"{base.where}, {name.where}")
        if base is not None:
            upstream = _read(option_values.parse_base, base, _FIX_OF_BASE)
            return _Destination(None, upstream, from_dotenv=base.in_dotenv)
        if name is not None:
            found = _at_provider(config, name.text, name.where)
            return replace(found, from_dotenv=name.in_dotenv)
    return None


def _at_provider(config: ConfigFile, name: str, where: str) -> _Destination:
    provider = find_provider(config.providers, name, where)
    return _Destination(provider, provider.endpoint)


def _refuse_both(where: str) -> NoReturn:
    _refuse("both an upstream and a provider are named", where, "drop one of them")


# --- the key


def _source(
    given: GatewayOptions,
    variables: Variables,
    config: ConfigFile,
    written: GatewayOptions,
    destination: _Destination,
) -> SecretSource:
    """Return where the key comes from; one that is at hand is looked at, and refused early.

    A provider of the owner's has its own key: that of another one must not be sent there. Nor is
    the key that config.yaml names sent where a .env says, as an agent may have written that.
    """
    provider = destination.provider
    if given.source is not None:
        return _checked_source(given.source, variables)
    if provider is not None and provider.source is not None:
        if written.source is not None and destination.from_config:
            key = next(key for key in KEY_OPTIONS if f"{_SECTION}.{key}" in config.entries)
            where = f"{config.where(f'{_SECTION}.{key}')}; providers.{provider.name}.from"
            _refuse("the key is given twice", where, "drop one of them")
        return _checked_source(provider.source, variables)
    names = _BUILT_IN_VARIABLES if provider == ANTHROPIC else (KEY_VARIABLE,)
    for name in names:
        if (found := variables.find(name)) is not None:
            return _source_of(name, found, variables)
    if written.source is not None and not destination.from_dotenv:
        return _checked_source(written.source, variables)
    raise _without_key(given, names)


def _without_key(given: GatewayOptions, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        "the gateway has no key for its upstream",
        where=" or ".join(names),
        fix=f"set {names[-1]}, or name a file that holds the key with {given.prefix}key-file",
    )


def _checked_source(source: SecretSource, variables: Variables) -> SecretSource:
    if not isinstance(source, EnvironmentSource):
        return source  # it is opened when the proxy starts
    found = variables.find(source.name)
    if found is None:
        _refuse("the variable of the key is not set", source.name, f"set {source.name}")
    return _source_of(source.name, found, variables)


def _source_of(name: str, found: VariableText, variables: Variables) -> SecretSource:
    if fault := option_values.fault_of_key(found.text):
        _refuse(
            f"the key {fault}", found.where, "set it to the key exactly as the provider shows it"
        )
    if found.in_dotenv and variables.dotenv is not None:
        return DotenvSource(variables.dotenv.path, name)
    return EnvironmentSource(name)


# --- the rest


def _models(
    given: GatewayOptions,
    variables: Variables,
    written: GatewayOptions,
    provider: Provider | None,
    config: ConfigFile,
) -> tuple[tuple[str, str], ...]:
    for models, where in (
        (given.models, f"{given.prefix}model"),
        (written.models, config.where(f"{_SECTION}.model")),
    ):
        if len({asked for asked, _ in models}) < len(models):
            _refuse("a model is replaced by two others", where, "name each requested model once")
    if given.models:
        return given.models
    if (found := variables.find(MODEL_VARIABLE)) is not None:
        fix = "write the name of one model, or leave it empty"
        return (_read(lambda text: option_values.parse_model(f"*={text}"), found, fix),)
    return written.models or (provider.models if provider is not None else ())


def _timeout(
    given: GatewayOptions,
    variables: Variables,
    config: ConfigFile,
    written: GatewayOptions,
    mode: GatewayMode,
) -> float:
    if given.timeout_s is not None:
        seconds, where = given.timeout_s, f"{given.prefix}timeout"
    elif (found := variables.find(TIMEOUT_VARIABLE)) is not None:
        seconds, where = _whole_number(found), found.where
    elif written.timeout_s is not None:
        seconds, where = written.timeout_s, config.where(f"{_SECTION}.timeout")
    else:
        return default_seconds(mode)
    least, most = seconds_allowed(mode)
    if not least <= seconds <= most:
        _refuse(
            f"a timeout of {seconds:g} seconds is out of bounds in {mode} mode",
            where,
            f"choose {least} to {most} seconds",
        )
    return seconds


def _ceilings(given: GatewayOptions, written: GatewayOptions) -> Ceilings:
    return Ceilings(
        given.requests_per_minute or written.requests_per_minute,
        given.tokens_per_day or written.tokens_per_day,
    )


def _token(given: GatewayOptions, written: GatewayOptions) -> str | None:
    file = given.token_file
    if file is None and not given.new_token:
        file = written.token_file
    if file is not None and given.new_token:
        where = f"{given.prefix}token-file, {given.prefix}new-token"
        _refuse("a token file and a new token exclude each other", where, "drop one of them")
    if file is not None:
        return read_token(file)
    return secrets.token_urlsafe(_TOKEN_BYTES) if given.new_token else None


def _refuse_unbound_reach(gateway: Gateway, given: GatewayOptions) -> None:
    """Refuse to let other machines use the key without permission and a token."""
    for listen in gateway.listen:
        if not isinstance(listen, TcpListen) or option_values.is_loopback(listen.host):
            continue
        reach = option_values.meaning_of_remote(listen.host)
        if not given.allow_remote:
            _refuse(
                f"listening on {listen.host} lets anyone {reach} try to use the key",
                str(listen),
                f"listen on {DEFAULT_HOST}, or add --allow-remote, a token and --client CIDR",
            )
        if gateway.token is None:
            _refuse(
                f"listening on {listen.host} without a token lets anyone {reach} use the key",
                str(listen),
                f"add {given.prefix}token-file",
            )


def _warnings(variables: Variables, destination: _Destination, source: SecretSource) -> list[str]:
    file = variables.dotenv
    if file is None:
        return []
    found = []
    holds_key = isinstance(source, DotenvSource)
    if file.shared and holds_key:
        found.append(
            f"OTHER USERS CAN READ THE KEY in {file.path}; fix: chmod 600 {file.path}, and have "
            "the provider replace the key"
        )
    if destination.from_dotenv and not holds_key:
        found.append(
            f"{file.path} says which upstream gets the key, and the key is from "
            f"{source_name(source)}: anyone who can write there, an agent too, can have it sent "
            "elsewhere"
        )
    return found


# --- where it listens


def address_of(
    variables: Variables, config: ConfigFile, host: str | None, port: int | None
) -> TcpListen:
    """Return the TCP address to listen on: of options, variables, config.yaml or the default."""
    if host is None:
        host = _host(variables, config)
    if port is None:
        port = _port(variables, config)
    return TcpListen(host, port)


def _host(variables: Variables, config: ConfigFile) -> str:
    found = variables.find(HOST_VARIABLE)
    if found is not None:
        fix = "give the address of an interface, such as 127.0.0.1"
        return _read(option_values.parse_listen_host, found, fix)
    written: str | None = config.value(f"{_SECTION}.host")
    return written or DEFAULT_HOST


def _port(variables: Variables, config: ConfigFile) -> int:
    found = variables.find(PORT_VARIABLE)
    if found is None:
        written: int | None = config.value(f"{_SECTION}.port")
        return DEFAULT_GATEWAY_PORT if written is None else written
    port = _whole_number(found)
    if not 1 <= port <= _HIGHEST_PORT:
        _refuse(f"{port} is not a port", found.where, f"choose 1 to {_HIGHEST_PORT}")
    return port


def _whole_number(found: VariableText) -> int:
    text = found.text.strip()
    if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 12):  # noqa: PLR2004 - more than any
        _refuse("it is not a whole number", found.where, "write digits only")
    return int(text)


def _read[T](read: Callable[[str], T], found: VariableText, fix: str) -> T:
    try:
        return read(found.text)
    except ValueError as error:
        raise ConfigError(str(error), where=found.where, fix=fix) from None


_FIX_OF_BASE = "write the URL before /v1/messages, such as https://api.anthropic.com"


def _refuse(what: str, where: str, fix: str) -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
