"""Reads what options and environment variables say into values that cannot be wrong; pure.

Each function takes the text as it was given and returns the value or raises ValueError, whose
message says what is wrong. No message quotes a URL, as that may hold a password (ninth law).
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit

from claude_proxy.authority import Authority, normalise_host
from claude_proxy.settings import Address, Network, UpstreamProxy

_SIZE = re.compile(r"([0-9]{1,12})([KMG]?)(?:I?B)?", re.ASCII)
_SIZE_UNITS: Mapping[str, int] = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|)", re.ASCII)
_DURATION_UNITS: Mapping[str, float] = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_RESOLVE = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5}):(\[[^\[\]]+\]|.+)", re.ASCII)

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not listened on


def parse_listen_host(text: str) -> str:
    """Return the address to listen on, in canonical spelling.

    A name would have to be looked up, and may mean another interface tomorrow; only `localhost`
    cannot.
    """
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(_unbracketed(text)))
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a listener on `host`."""
    return ip_address(host).is_loopback


def meaning_of_remote(host: str) -> str:
    """Return in one clause who reaches a listener on `host`."""
    if host in _EVERY_ADDRESS:
        return "on every network this machine is in"
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
        raise ValueError("a size of 0 would leave no room for anything")
    return size


def parse_duration(text: str) -> float:
    """Return a number of seconds from "30", "1.5", "500ms", "30s", "15m" or "1h"."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f'"{text}" is not a duration such as 30s or 15m')
    number, unit = match.groups()
    return float(number) * _DURATION_UNITS[unit]


def parse_timeout(text: str) -> float:
    """Return a duration that is not nothing."""
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("a timeout of 0 would end everything at once")
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
        raise ValueError("the address of the upstream proxy lacks a host or a port")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("the address of the upstream proxy goes on after its port")
    try:
        authority = Authority.of(url.hostname, port)
    except ValueError:
        raise ValueError("the host or port of the upstream proxy is not one") from None
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
