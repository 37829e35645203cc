"""Pasted targets: a host, an address or a URL as people copy it, taken apart.

A text is read in one way or refused with what to write instead; nothing is guessed about what it
would allow. Pure.
"""

import re

from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.patterns import PatternError
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, RuleScheme
from claude_proxy.wire.authority import MAX_PORT, quoted

DEFAULT_PORTS: dict[RuleScheme, int] = {Scheme.HTTPS: 443, Scheme.HTTP: 80}
# A WebSocket begins as a request, by the same rules.
_SCHEMES = {
    "https": Scheme.HTTPS,
    "wss": Scheme.HTTPS,
    "http": Scheme.HTTP,
    "ws": Scheme.HTTP,
}
# Schemes of clients that speak neither TLS nor HTTP first, and their usual ports.
_RAW_SCHEMES = {
    "amqp": 5672,
    "ldap": 389,
    "mariadb": 3306,
    "mongodb": 27017,
    "mqtt": 1883,
    "mysql": 3306,
    "nats": 4222,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rsync": 873,
    "smtp": 25,
    "sqlserver": 1433,
    "svn": 3690,
    "telnet": 23,
    "vnc": 5900,
}
_USER_INFO = "the URL has user info, which may be a password"
_SSH_PORT = 22
_GIT_PORT = 9418

_url = lazy_pattern(
    r"""(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?
        (?:(?P<user>[^/?\#@]*)@)?
        (?P<host>\[[^\[\]]*\]|[^:/?\#\[\]@]*) (?::(?P<port>[0-9]*))?
        (?P<path>/[^?\#]*)? (?P<rest>[?\#].*)?""",
    re.VERBOSE | re.DOTALL,
).fullmatch
# "git@github.com:owner/repository.git", as `git clone` and ssh take it (git-clone(1), GIT URLS).
_scp = lazy_pattern(r"(?:[\w.+-]+@)(?P<host>[^:/@\[\]]+):(?!/?/)(?P<path>[^\s]+)").fullmatch
# Schemes without a host; a container may be called data, so a port after these is read as one.
_without_host = lazy_pattern(
    r"(?P<script>javascript|vbscript):.*"
    r"|(?P<other>about|blob|data|file|mailto|tel|urn|view-source):(?!//|[0-9]+(?:[/?\#]|\Z)).*",
    re.IGNORECASE | re.DOTALL,
).fullmatch
_QUOTES = (
    ("<", ">"),
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
)
_is_network = lazy_pattern(r"[0-9.]+/[0-9.]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*/[0-9]+").fullmatch
_is_bare_ipv6 = lazy_pattern(r"[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*").fullmatch


@dataclass(frozen=True, slots=True)
class Pasted:
    """A text taken apart, as far as rules can speak about it."""

    host: str  # as in the text, without brackets
    scheme: RuleScheme = Scheme.HTTPS
    port: int = 443
    path: str | None = None  # None: none, or the root of the host
    has_scheme: bool = False
    websocket: bool = False
    has_more: bool = False  # a query or a fragment, about which no rule speaks


@dataclass(frozen=True, slots=True)
class SshAddress:
    """A repository or machine that is reached by a protocol of its own, not by HTTP."""

    host: str
    port: int
    path: str  # begins with a slash

    @property
    def https_url(self) -> str:
        """The address by which forges serve the same repository over HTTPS."""
        return f"https://{self.host}{self.path}"


def unquoted(text: str) -> str:
    """Return a text without the quotes and angle brackets that were copied with it.

    None of them is in a host, nor sent as it is at the end of a URL (RFC 3986, appendix C).
    """
    text = text.strip()
    while (inner := _inside_quotes(text)) is not None:
        text = inner.strip()
    return text


def _inside_quotes(text: str) -> str | None:
    return next(
        (
            text[1:-1]
            for begin, end in _QUOTES
            if len(text) > 1 and text.startswith(begin) and text.endswith(end)
        ),
        None,
    )


def is_network(text: str) -> bool:
    """Return whether a text is written as a network, such as 10.0.0.0/8."""
    return _is_network(text) is not None


def scheme_without_host(text: str) -> str | None:
    """Return the scheme of a URL such as javascript:1 or mailto:me@a.test, which names no host."""
    found = _without_host(text)
    return None if found is None else (found["script"] or found["other"]).lower()


def raw_address(text: str) -> tuple[str, int] | None:
    """Return the host and port of a URL such as tcp://db:5432 or redis://cache; None for others.

    PatternError if it has no port, or none that is one.
    """
    found = _url(unquoted(text))
    if found is None or not found["host"]:
        return None
    name = (found["scheme"] or "").lower()
    if name == RawScheme.TCP.value:
        address = _of_tcp(found)
        return address.host, address.port
    if name not in _RAW_SCHEMES:
        return None
    return found["host"].strip("[]"), _port(found, _RAW_SCHEMES[name])


def parse(text: str) -> Pasted | SshAddress:
    """Take a text apart; PatternError says what is wrong and how to fix it."""
    text = unquoted(text)
    if (scheme := scheme_without_host(text)) is not None:
        raise _not_http(scheme)
    if _is_network(text) or _is_bare_ipv6(text):
        return Pasted(text)
    found = _url(text)
    if (copied := _scp(text)) is not None:
        return SshAddress(copied["host"].lower(), _SSH_PORT, f"/{copied['path'].lstrip('/')}")
    if found is None or not found["host"]:
        if "@" in text:
            raise PatternError(_USER_INFO, "write the host")
        pattern_of(text)  # the one parser explains best what is neither
        raise PatternError(f"{quoted(text)} is not a host or a URL", "write the host")
    name = (found["scheme"] or "").lower()
    if name in {"ssh", "git", "git+ssh", "ssh+git"}:
        usual = _GIT_PORT if name == "git" else _SSH_PORT
        return SshAddress(found["host"].lower(), _port(found, usual), found["path"] or "/")
    if name in _RAW_SCHEMES:
        raise _other_scheme(name, found)
    if found["user"] is not None:
        fix = f"write {_without_user(found)}"
        raise PatternError(_USER_INFO, fix)
    return _of_url(found)


def _of_url(found: "re.Match[str]") -> Pasted:
    name = (found["scheme"] or "https").lower()
    if name == RawScheme.TCP.value:
        return _of_tcp(found)
    if name not in _SCHEMES:
        raise _not_http(name)
    scheme = _SCHEMES[name]
    path = found["path"]
    return Pasted(
        host=found["host"].strip("[]"),
        scheme=scheme,
        port=_port(found, DEFAULT_PORTS[scheme]),
        path=None if path in {None, "/"} else path,
        has_scheme=found["scheme"] is not None,
        websocket=name in {"ws", "wss"},
        has_more=found["rest"] is not None,
    )


def _of_tcp(found: "re.Match[str]") -> Pasted:
    if found["path"] not in {None, "/"} or found["rest"] is not None:
        fix = f"write tcp://{found['host']}:{found['port'] or 'PORT'}"
        raise PatternError("tcp:// names a host and a port, and nothing behind them", fix)
    if not found["port"]:
        fix = f"write the port, such as tcp://{found['host']}:5432"
        raise PatternError("tcp:// needs a port, as any protocol could be spoken there", fix)
    host, port = found["host"].strip("[]"), _port(found, 0)
    return Pasted(host=host, scheme=RawScheme.TCP, port=port, has_scheme=True)


def _other_scheme(name: str, found: "re.Match[str]") -> PatternError:
    """Return the error for the URL of a protocol that only a rule for tcp lets through."""
    port = _port(found, _RAW_SCHEMES[name])
    return PatternError(
        f"{name} is a protocol of its own, which only scheme tcp lets through",
        f"write tcp://{found['host']}:{port}",
    )


def _not_http(scheme: str) -> PatternError:
    known = ", ".join(f"{each}://" for each in (*_SCHEMES, RawScheme.TCP.value))
    return PatternError(f"the scheme {quoted(scheme)} is not HTTP", f"use one of {known}")


def _port(found: "re.Match[str]", usual: int) -> int:
    if not found["port"]:
        if found["port"] is not None:
            place = quoted(f"{found['host']}:")
            raise PatternError(f"{place} ends in a colon", "write the port, or no colon")
        return usual
    port = int(found["port"][:6])
    if not 1 <= port <= MAX_PORT:
        fix = f"write a port from 1 to {MAX_PORT}"
        raise PatternError(f"{found['port'][:6]} is not a port", fix)
    return port


def _without_user(found: "re.Match[str]") -> str:
    scheme = f"{found['scheme']}://" if found["scheme"] else ""
    port = f":{found['port']}" if found["port"] else ""
    return f"{scheme}{found['host']}{port}{found['path'] or ''}"
