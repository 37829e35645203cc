"""Parsers of option values: addresses, listeners, networks, sizes, durations, URLs. Pure.

Each function takes the text as it was given and returns the value or raises ValueError, whose
message says what is wrong. Secrets stay outside: no message quotes a URL, as that may hold a
password.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

from claude_proxy.config.settings import (
    DEFAULT_HOST,
    Base,
    ClientCredentials,
    InheritedListen,
    TcpListen,
    UnixListen,
    UpstreamProxy,
)
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Address, Network
from claude_proxy.wire.authority import Authority, normalise_host, quoted

_SIZE = lazy_pattern(r"([0-9]{1,12})([KMG]?)(?:I?B)?", re.ASCII)
_SIZE_UNITS: Mapping[str, int] = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

_DURATION = lazy_pattern(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|)", re.ASCII)
_DURATION_UNITS: Mapping[str, float] = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_RESOLVE = lazy_pattern(r"(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5}):(\[[^\[\]]+\]|.+)", re.ASCII)

_PORT = lazy_pattern(r"[0-9]{1,5}", re.ASCII)
_HIGHEST_PORT = 65535
_LONGEST_CREDENTIAL = 255  # RFC 1929 has one byte for the length

_COUNT = lazy_pattern(r"[0-9]{1,3}", re.ASCII)
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_UNNAMED = "unknown"  # what systemd calls a socket without a name

_DEFAULT_PORTS: Mapping[str, int] = {"https": 443, "http": 80}
_BASE_PATH = lazy_pattern(r"(?:/[A-Za-z0-9._~@:+=,-]+)*", re.ASCII)
_CALL = "/v1/messages"
_MODEL = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,199}", re.ASCII)
_EACH = "*"
_LONGEST_KEY = 8192
_LEAST_BODY = 1024
# What people write where a key belongs, and forget.
_STAND_INS = frozenset({"dummy", "placeholder", "changeme"})
_OWN_PLACEHOLDERS = ("sk-ant-claude-proxy-placeholder-", "claude-proxy-placeholder-")
_SHORTEST_TOKEN = 16

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not listened on


def parse_listen_host(text: str) -> str:
    """Return the address to listen on, in canonical spelling.

    A name would have to be resolved, and may mean another interface tomorrow; only `localhost`
    cannot.
    """
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(_unbracketed(text)))
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None


def parse_listen(text: str) -> TcpListen | UnixListen:
    """Return what ADDRESS:PORT, PORT or unix:PATH names; the path is as it was given."""
    scheme, colon, path = text.partition(":")
    if colon and scheme.lower() == "unix":
        return UnixListen(_socket_path(path))
    if "/" in text:
        raise ValueError(f'"{text}" is not an address; write a Unix socket as unix:PATH')
    host, colon, port = text.rpartition(":")
    if ":" in host and not host.startswith("["):
        raise ValueError(f'"{text}" is ambiguous; write IPv6 as [::1]:9051')
    if _PORT.fullmatch(port) is None or int(port) > _HIGHEST_PORT:
        raise ValueError(f'"{text}" does not end in a port')
    return TcpListen(parse_listen_host(host) if colon else DEFAULT_HOST, int(port))


def _socket_path(text: str) -> Path:
    if text.startswith("//"):  # as in a URL, whose host is this machine
        text = text.removeprefix("//")
        if not text.startswith("/"):
            raise ValueError(f'"unix://{text}" names a host; write unix:PATH')
    if not text or text.endswith("/") or "\0" in text:
        raise ValueError("the path of the Unix socket does not name a file")
    return Path(text)


def parse_client_credentials(text: str) -> ClientCredentials:
    """Return the two halves of USER:PASSWORD; no message quotes either."""
    user, colon, password = text.partition(":")  # RFC 7617: the first colon ends the user
    if not (user and colon and password):
        raise ValueError("it is not USER:PASSWORD")
    if not text.isprintable():
        raise ValueError("the user or password has a character that HTTP cannot carry")
    if max(len(user.encode()), len(password.encode())) > _LONGEST_CREDENTIAL:
        raise ValueError("the user or password is longer than 255 bytes")
    return ClientCredentials(user, password)


def parse_activation(variables: Mapping[str, str], pid: int) -> tuple[InheritedListen, ...]:
    """Return the sockets that a service manager has passed, as in sd_listen_fds(3).

    LISTEN_PID names the process that they are meant for; those of another one are left alone.
    """
    if variables.get("LISTEN_PID", "") != str(pid):
        return ()
    count = variables.get("LISTEN_FDS", "")
    if _COUNT.fullmatch(count) is None:
        raise ValueError(f'LISTEN_FDS is "{count}", which is not a number of sockets')
    given = variables.get("LISTEN_FDNAMES", "").split(":")
    # Sockets of one unit share its name; then their addresses distinguish them.
    names = [name if name != _UNNAMED and given.count(name) == 1 else "" for name in given]
    names += [""] * int(count)
    return tuple(InheritedListen(_FIRST_PASSED + at, names[at]) for at in range(int(count)))


def passed_for(variables: Mapping[str, str], name: str) -> frozenset[int]:
    """Return the descriptors of the passed sockets whose unit has that FileDescriptorName=."""
    given = variables.get("LISTEN_FDNAMES", "").split(":")
    return frozenset(_FIRST_PASSED + at for at, one in enumerate(given) if one == name)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a listener on `host`."""
    return ip_address(host).is_loopback


def meaning_of_remote(host: str) -> str:
    """Return a phrase that says who reaches a listener on `host`."""
    if host in _EVERY_ADDRESS:
        return "on any network of this machine"
    return f"on the network of {host}"


def parse_network(text: str) -> Network:
    """Return a CIDR, or one address as a network of its own."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as 10.0.0.0/8') from None
    raise ValueError(f'"{text}" has bits beyond its prefix; the network is {loose}')


def parse_resolve(text: str) -> tuple[Authority, Address]:
    """Return the two sides of HOST:PORT:ADDRESS, as curl's option of that name spells it."""
    match = _RESOLVE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not HOST:PORT:ADDRESS')
    host, port, address = match.groups()
    try:
        target = Authority.of(_unbracketed(host), int(port))
    except ValueError as error:
        raise ValueError(f'"{host}:{port}" names no host and port: {error}') from None
    try:
        return target, ip_address(_unbracketed(address))
    except ValueError:
        raise ValueError(f'"{address}" is not an IP address') from None


def parse_size(text: str) -> int:
    """Return a number of bytes from "65536", "64K", "256MiB" or "1G"; units are of 1024."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None:
        raise ValueError(f'"{text}" is not a size such as 64K or 256M')
    number, unit = match.groups()
    size = int(number) * _SIZE_UNITS[unit]
    if size == 0:
        raise ValueError("a size of 0 leaves no room")
    return size


def parse_body_size(text: str) -> int:
    """Return a number of bytes that the body of a request can be limited to."""
    size = parse_size(text)
    if size < _LEAST_BODY:
        raise ValueError(f"{quoted(text)} is less than {_LEAST_BODY} bytes")
    return size


def parse_duration(text: str) -> float:
    """Return a number of seconds from "30", "1.5", "500ms", "30s", "15m" or "1h"."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f'"{text}" is not a duration such as 30s or 15m')
    number, unit = match.groups()
    return float(number) * _DURATION_UNITS[unit]


def parse_timeout(text: str) -> float:
    """Return a duration of more than zero."""
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("a timeout of 0 would end everything immediately")
    return seconds


def parse_upstream_proxy(text: str) -> UpstreamProxy:
    """Return the corporate proxy that http://[USER:PASSWORD@]HOST:PORT names."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError("the address of the upstream proxy is not a URL") from None
    if url.scheme != "http":
        raise ValueError("the address of the upstream proxy does not begin with http://")
    if not url.hostname or port is None:
        raise ValueError("the address of the upstream proxy has no host or no port")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("the address of the upstream proxy has something after its port")
    try:
        authority = Authority.of(url.hostname, port)
    except ValueError:
        raise ValueError("the host or port of the upstream proxy is not valid") from None
    return UpstreamProxy(authority, _credentials_of(url.netloc))


def _credentials_of(netloc: str) -> str | None:
    userinfo, at, _ = netloc.rpartition("@")
    if not at:
        return None
    user, colon, password = userinfo.partition(":")
    if not colon:
        raise ValueError(
            "the user of the upstream proxy has no password; USER:@HOST has an empty one"
        )
    credentials = f"{unquote(user)}:{unquote(password)}"
    if ":" in unquote(user) or not credentials.isprintable():
        # RFC 7617 section 2: the first colon ends the user, and control characters are invalid.
        raise ValueError("the user or password has a character that HTTP cannot carry")
    return credentials


def parse_base(text: str) -> Base:
    """Return the URL that the calls of an API begin with; a slash at its end is left out.

    Without TLS anybody on the network path could read a key, so http:// is only for this machine.
    """
    base = text.rstrip("/")
    try:
        url = urlsplit(base)
        port = url.port
    except ValueError:
        raise ValueError("the upstream is not a URL") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError("the upstream does not begin with https:// (or http://, for this machine)")
    # `urlsplit` silently drops some control characters.
    if not base.isascii() or not base.isprintable() or " " in base or not url.hostname:
        raise ValueError("the upstream is not a URL of ASCII characters that names a host")
    if "@" in url.netloc:
        raise ValueError("the upstream has a user or a password in it")
    if url.query or url.fragment or "?" in base or "#" in base:
        raise ValueError("the upstream has a query or a fragment")
    try:
        authority = Authority.of(url.hostname, _DEFAULT_PORTS[url.scheme] if port is None else port)
    except ValueError:
        raise ValueError("the host or port of the upstream is not valid") from None
    if url.scheme == "http" and not _is_this_machine(authority.host):
        raise ValueError("an upstream on another machine must begin with https://")
    return Base(Scheme(url.scheme), authority, _base_path_of(url.path))


def _base_path_of(path: str) -> str:
    if _BASE_PATH.fullmatch(path) is None or {".", ".."} & set(path.split("/")):
        raise ValueError("the path of the upstream is not plain")
    if path.endswith(_CALL):
        raise ValueError(f"the upstream ends in {_CALL}, which claude-proxy adds itself")
    return path


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_model(text: str) -> tuple[str, str]:
    """Return the two sides of REQUESTED=SENT: the requested model ("*": any) and the one sent."""
    asked, equals, given = text.rpartition("=")
    asked = asked.strip() if equals else _EACH
    given = given.strip()
    if asked != _EACH and _MODEL.fullmatch(asked) is None:
        raise ValueError(f"{quoted(asked)} is not the name of a model")
    if _MODEL.fullmatch(given) is None:
        raise ValueError(f"{quoted(given)} is not the name of a model")
    return asked, given


def fault_of_key(text: str) -> str | None:
    """Return why a text cannot be the key of an API, without quoting it; None: it can."""
    if not text:
        return "is empty"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "contains a space, or a character that no key contains"
    if len(text) > _LONGEST_KEY:
        return f"is longer than {_LONGEST_KEY} characters"
    if text.lower() in _STAND_INS or text.startswith(_OWN_PLACEHOLDERS):
        return "is a placeholder"
    return None


def parse_token(text: str) -> str:
    """Return a token that callers must present; no message quotes it."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it has a blank, or a character that HTTP cannot carry")
    if len(text) < _SHORTEST_TOKEN:
        raise ValueError(f"it is shorter than {_SHORTEST_TOKEN} characters, and could be guessed")
    if len(text) > _LONGEST_KEY:
        raise ValueError(f"it is longer than {_LONGEST_KEY} characters")
    return text


def parse_exceptions(text: str) -> tuple[str, ...]:
    """Return the entries of a NO_PROXY-style list: names, .domains, networks or "*"."""
    return tuple(_exception_of(entry) for entry in re.split(r"[,\s]+", text) if entry)


def _exception_of(entry: str) -> str:
    if entry == "*":
        return entry
    try:
        return str(ip_network(_unbracketed(entry)))
    except ValueError:
        pass
    domain = entry.removeprefix("*")
    dot = "." if domain.startswith(".") else ""
    try:
        return dot + normalise_host(domain.removeprefix("."))
    except ValueError:
        raise ValueError(f'"{entry}" is not a host, a .domain, a network or "*"') from None


def _unbracketed(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text
