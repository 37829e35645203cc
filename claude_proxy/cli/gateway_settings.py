"""Makes the gateway's settings of what options, the environment, .env and gateway.yaml say.

The nearer one wins: an option, then its own variable, then those that the seed of this command had
(`PROXY_...`), then .env, then gateway.yaml. Law 11: what is not clear stops the start. Secrets stay
outside (9): a key is looked at here to be refused early, and is neither kept nor quoted.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from claude_proxy.config import gateway as provider_reader
from claude_proxy.config import option_values
from claude_proxy.config.gateway import ANTHROPIC, GatewayFile, Provider
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
from claude_proxy.config.strict_yaml.nodes import MAX_BYTES, decode
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.decision import (
    DotenvSource,
    EnvironmentSource,
    Form,
    Injection,
    SecretSource,
    name_of,
)
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gateway.banner import KEY_VARIABLE, default_seconds, seconds_allowed
from claude_proxy.system import file_permissions
from claude_proxy.vault import dotenv_file
from claude_proxy.vault.dotenv_file import DotenvFile

DEFAULT_GATEWAY_PORT = 9000  # the seed's

UPSTREAM_VARIABLE = "PROXY_UPSTREAM_BASE"
PROVIDER_VARIABLE = "PROXY_PROVIDER"
MODEL_VARIABLE = "PROXY_DEFAULT_MODEL"
TIMEOUT_VARIABLE = "PROXY_TIMEOUT"
HOST_VARIABLE = "PROXY_HOST"
PORT_VARIABLE = "PROXY_PORT"
VARIABLES = (
    *(UPSTREAM_VARIABLE, KEY_VARIABLE, PROVIDER_VARIABLE, MODEL_VARIABLE),
    *(TIMEOUT_VARIABLE, HOST_VARIABLE, PORT_VARIABLE),
)
ANTHROPIC_VARIABLE = "ANTHROPIC_API_KEY"
_BUILT_IN_VARIABLES = (KEY_VARIABLE, ANTHROPIC_VARIABLE)

_HIGHEST_PORT = 65535
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Found:
    """One setting as text, and where it stands."""

    text: str
    where: str
    in_file: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment and the .env file beside it; what is empty counts as not set."""

    environ: Mapping[str, str] = field(repr=False)
    dotenv: DotenvFile | None = None

    def find(self, name: str) -> Found | None:
        """Return what a variable is set to; the environment's own wins."""
        return self.of_environment(name) or self.of_file(name)

    def of_environment(self, name: str) -> Found | None:
        """Return what a variable of the environment is set to."""
        text = self.environ.get(name, "")
        return Found(text, name) if text else None

    def of_file(self, name: str) -> Found | None:
        """Return what the .env file sets a variable to."""
        text = self.dotenv.value(name) if self.dotenv is not None else None
        where = "" if self.dotenv is None else f"{name} in {self.dotenv.path}"
        return Found(text, where, in_file=True) if text else None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options of a command say of its gateway; None: nothing."""

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
    keeps_retry_after: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A gateway's settings, and what whoever starts it is to be warned of."""

    gateway: Gateway
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Way:
    """Where requests go to, and who said so."""

    provider: Provider | None
    upstream: Base
    in_file: bool  # in the .env file


def read_dotenv(directory: Path) -> DotenvFile | None:
    """Return what .env in a directory says; None if there is none."""
    return dotenv_file.read(directory / dotenv_file.NAME)


def read_file(confdir: Path) -> GatewayFile:
    """Return what gateway.yaml in the directory of the configuration says."""
    path = confdir / provider_reader.NAME
    try:
        with path.open("rb") as file:
            file_permissions.refuse_writable(path, os.fstat(file.fileno()), "where the key goes")
            raw = file.read(MAX_BYTES + 1)
        file_permissions.refuse_replaceable(path, "where the key goes")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise _unreadable(path, error) from error
        return GatewayFile(str(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    return provider_reader.load(decode(raw, str(path)), name=str(path))


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the file cannot be read: {(error.strerror or type(error).__name__).lower()}",
        where=str(path),
        fix="make it readable for the user who runs claude-proxy, or take it away",
    )


def gateway_of(
    asked: Asked, listen: tuple[Listen, ...], around: Surroundings, file: GatewayFile
) -> Made:
    """Return the settings of a gateway; ConfigError says what is missing or cannot be."""
    way, source = _way_and_key(asked, around, file)
    mode = asked.mode or file.mode or GatewayMode.CLAUDE
    form = asked.form or (way.provider.form if way.provider is not None else Form.AUTO)
    gateway = Gateway(
        listen=listen,
        upstream=way.upstream,
        credential=Injection(
            source, form=form, strips=True, plain=way.upstream.scheme is Scheme.HTTP
        ),
        mode=mode,
        models=_models(asked, around, way.provider),
        timeout_s=_timeout(asked, around, file, mode),
        token=_token(asked),
        ceilings=_ceilings(asked, file),
        keeps_retry_after=asked.keeps_retry_after,
    )
    if bound := asked.request_bytes or file.request_bytes:
        gateway = replace(gateway, request_bytes=bound)
    _refuse_strangers(gateway, asked)
    return Made(gateway, tuple(_warnings(around, way, source)))


# --- where requests go


def _way_and_key(
    asked: Asked, around: Surroundings, file: GatewayFile
) -> tuple[_Way, SecretSource]:
    try:
        way = _way(asked, around, file)
    except ConfigError as error:
        # Both are missing at the very first start, and are told at once.
        keyless = asked.source is None and around.find(KEY_VARIABLE) is None
        more = [_without_key(asked, (KEY_VARIABLE,))] if keyless else []
        raise ConfigErrors([error, *more]) from None
    return way, _source(asked, around, way)


def _way(asked: Asked, around: Surroundings, file: GatewayFile) -> _Way:
    """Return the upstream of the nearest one that names an upstream or a provider."""
    upstream, provider = f"{asked.prefix}upstream", f"{asked.prefix}provider"
    if asked.upstream is not None and asked.provider is not None:
        _refuse_both(f"{upstream}, {provider}")
    if asked.upstream is not None:
        return _Way(None, asked.upstream, in_file=False)
    if asked.provider is not None:
        return _of_provider(file, asked.provider, provider)
    for find in (around.of_environment, around.of_file):
        base, name = find(UPSTREAM_VARIABLE), find(PROVIDER_VARIABLE)
        if base is not None and name is not None:
            _refuse_both(f"{base.where}, {name.where}")
        if base is not None:
            return _Way(None, _read(option_values.parse_base, base, _MEND_OF_BASE), base.in_file)
        if name is not None:
            return _of_provider(file, name.text, name.where, in_file=name.in_file)
    if file.provider is not None:
        return _of_provider(file, file.provider, f"{file.name}, provider")
    raise ConfigError(
        "the gateway has no upstream",
        where=f"{UPSTREAM_VARIABLE}, or {upstream} or {provider}",
        fix=f"set {UPSTREAM_VARIABLE}=https://api.anthropic.com, or give {provider} anthropic",
    )


def _of_provider(file: GatewayFile, name: str, where: str, *, in_file: bool = False) -> _Way:
    provider = provider_reader.chosen(file, name, where)
    return _Way(provider, provider.endpoint, in_file)


def _refuse_both(where: str) -> NoReturn:
    _refuse("both an upstream and a provider are named", where, "drop one of them")


# --- the key


def _source(asked: Asked, around: Surroundings, way: _Way) -> SecretSource:
    """Return where the key comes from; one that is at hand is looked at, and refused early.

    The key of a provider of its own comes from nowhere else: another's key is not to be sent there.
    """
    provider = way.provider
    if asked.source is not None:
        return _looked_at(asked.source, around)
    if provider is not None and provider.source is not None:
        return _looked_at(provider.source, around)
    names = _BUILT_IN_VARIABLES if provider == ANTHROPIC else (KEY_VARIABLE,)
    for name in names:
        if (found := around.find(name)) is not None:
            return _source_of(name, found, around)
    raise _without_key(asked, names)


def _without_key(asked: Asked, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        "the gateway has no key for its upstream",
        where=" or ".join(names),
        fix=f"set {names[0]}, or name a file that holds the key with {asked.prefix}key-file",
    )


def _looked_at(source: SecretSource, around: Surroundings) -> SecretSource:
    if not isinstance(source, EnvironmentSource):
        return source  # it is opened when the proxy starts
    found = around.find(source.name)
    if found is None:
        _refuse("the variable of the key is not set", source.name, f"set {source.name}")
    return _source_of(source.name, found, around)


def _source_of(name: str, found: Found, around: Surroundings) -> SecretSource:
    if fault := option_values.fault_of_key(found.text):
        _refuse(f"the key {fault}", found.where, "put the key that the provider gave you there")
    if found.in_file and around.dotenv is not None:
        return DotenvSource(around.dotenv.path, name)
    return EnvironmentSource(name)


# --- the rest


def _models(
    asked: Asked, around: Surroundings, provider: Provider | None
) -> tuple[tuple[str, str], ...]:
    models = asked.models
    if len({one for one, _ in models}) < len(models):
        where = f"{asked.prefix}model"
        _refuse("a model is given two others", where, "name each asked model once")
    if not models and (found := around.find(MODEL_VARIABLE)) is not None:
        fix = "write the name of one model, or leave it empty"
        models = (_read(lambda text: option_values.parse_model(f"*={text}"), found, fix),)
    return models or (provider.models if provider is not None else ())


def _timeout(asked: Asked, around: Surroundings, file: GatewayFile, mode: GatewayMode) -> float:
    if asked.timeout_s is not None:
        seconds, where = asked.timeout_s, f"{asked.prefix}timeout"
    elif (found := around.find(TIMEOUT_VARIABLE)) is not None:
        seconds, where = _whole_number(found), found.where
    elif file.timeout_s is not None:
        seconds, where = file.timeout_s, f"{file.name}, timeout"
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


def _ceilings(asked: Asked, file: GatewayFile) -> Ceilings:
    return Ceilings(
        asked.requests_per_minute or file.ceilings.requests_per_minute,
        asked.tokens_per_day or file.ceilings.tokens_per_day,
    )


def _token(asked: Asked) -> str | None:
    if asked.token_file is not None and asked.new_token:
        where = f"{asked.prefix}token-file, {asked.prefix}new-token"
        _refuse("a token is given, and a new one asked for", where, "drop one of them")
    if asked.token_file is not None:
        return read_token(asked.token_file)
    return secrets.token_urlsafe(_TOKEN_BYTES) if asked.new_token else None


def _refuse_strangers(gateway: Gateway, asked: Asked) -> None:
    """Refuse to let other machines use the key, unless that is wanted and a token is asked for."""
    for listen in gateway.listen:
        if not isinstance(listen, TcpListen) or option_values.is_loopback(listen.host):
            continue
        reach = option_values.meaning_of_remote(listen.host)
        if not asked.allow_remote:
            _refuse(
                f"on {listen.host} anyone {reach} could try to use the key",
                str(listen),
                f"listen on {DEFAULT_HOST}, or add --allow-remote, a token and --client CIDR",
            )
        if gateway.token is None:
            _refuse(
                f"on {listen.host} anyone {reach} could use the key, as no token is asked for",
                str(listen),
                f"add {asked.prefix}token-file",
            )


def _warnings(around: Surroundings, way: _Way, source: SecretSource) -> list[str]:
    file = around.dotenv
    if file is None:
        return []
    found = []
    holds_key = isinstance(source, DotenvSource)
    if file.shared and holds_key:
        found.append(
            f"OTHER USERS CAN READ THE KEY in {file.path}; fix: chmod 600 {file.path}, and have "
            "the provider replace the key"
        )
    if way.in_file and not holds_key:
        found.append(
            f"{file.path} says which upstream gets the key, and the key is from "
            f"{name_of(source)}: whoever can write there, an agent too, can have it sent "
            "elsewhere"
        )
    return found


# --- where it listens


def address_of(around: Surroundings, host: str | None, port: int | None) -> TcpListen:
    """Return the TCP address to listen on, of options and else of the seed's variables."""
    if host is None:
        found = around.find(HOST_VARIABLE)
        fix = "give the address of an interface, such as 127.0.0.1"
        host = DEFAULT_HOST if found is None else _read(option_values.parse_listen_host, found, fix)
    if port is None:
        found = around.find(PORT_VARIABLE)
        port = DEFAULT_GATEWAY_PORT if found is None else _port_of(found)
    return TcpListen(host, port)


def _port_of(found: Found) -> int:
    port = _whole_number(found)
    if not 1 <= port <= _HIGHEST_PORT:
        _refuse(f"{port} is not a port", found.where, f"choose 1 to {_HIGHEST_PORT}")
    return port


def _whole_number(found: Found) -> int:
    text = found.text.strip()
    if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 12):  # noqa: PLR2004 - more than any
        _refuse("it is not a whole number", found.where, "write digits alone")
    return int(text)


def _read[T](read: Callable[[str], T], found: Found, fix: str) -> T:
    try:
        return read(found.text)
    except ValueError as error:
        raise ConfigError(str(error), where=found.where, fix=fix) from None


_MEND_OF_BASE = "write the URL before /v1/messages, such as https://api.anthropic.com"


def _refuse(what: str, where: str, fix: str) -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
