"""Checked URLs: what a person wants to know about, read from what they type or paste. Pure.

A text is taken as a client would take it, or refused: nothing is corrected that a client would
send as it is.
"""

import re

from claude_proxy.config.allowlist import pasted
from claude_proxy.config.allowlist.pasted import SshAddress
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.patterns import PatternError
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme
from claude_proxy.wire.authority import Authority, normalise_host

# A WebSocket begins as a GET, and its clients open a tunnel even for ws:// (RFC 6455, 4.1).
_SCHEMES = {
    "https": (Scheme.HTTPS, 443, True),
    "wss": (Scheme.HTTPS, 443, True),
    "http": (Scheme.HTTP, 80, False),
    "ws": (Scheme.HTTP, 80, True),
}
_parts = lazy_pattern(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?.*",
    re.DOTALL,
).fullmatch
_user_info = lazy_pattern(r"^(?P<before>(?:[A-Za-z][A-Za-z0-9+.-]*://)?)[^/?#]*@").sub
_is_sent_as_written = lazy_pattern(r"[!-~]*").fullmatch


@dataclass(frozen=True, slots=True)
class Question:
    """What is checked: a request, or without a scheme only a tunnel."""

    url: str
    target: Authority
    scheme: Scheme | None
    tunnel: bool  # whether the client opens a tunnel by CONNECT first
    path: str
    query: str = ""
    note: str = ""  # what to know about it besides the decision
    raw: bool = False  # the client speaks neither TLS nor HTTP in its tunnel


def question_of(url: str) -> Question:
    """Read what the user wrote; raise ConfigError if no client could ask for it."""
    url = pasted.unquoted(url)
    if pasted.is_network(url):
        fix = "write one address of it, such as https://10.1.2.3/"
        raise _unusable(url, "it is a network, and a request goes to one host", fix=fix)
    if (scheme_alone := pasted.scheme_without_host(url)) is not None:
        raise _unknown_scheme(url, scheme_alone)
    if (other := _other_protocol(url)) is not None:
        return other
    found = _parts(url)
    if found is None:  # pragma: no cover - the pattern matches every text
        raise _unusable(url, "it cannot be read")
    name = found["scheme"]
    if name is None:
        if not (found["path"] or "?" in url or "#" in url):
            return Question(url, _target_of(url, url, 443), None, tunnel=True, path="")
        name = "https"  # as browsers take it
    if name.lower() not in _SCHEMES:
        raise _unknown_scheme(url, name)
    scheme, port, tunnel = _SCHEMES[name.lower()]
    path = found["path"] or "/"
    if _is_sent_as_written(path) is None:
        fix = "percent-encode the path as a client sends it"
        raise _unusable(url, "the path has characters that are never sent", fix=fix)
    target = _target_of(url, found["authority"], port)
    return Question(url, target, scheme, tunnel, path, found["query"] or "")


def _other_protocol(url: str) -> Question | None:
    """Return the tunnel that a client of another protocol would need; None for URLs of HTTP."""
    try:
        raw = pasted.raw_address(url)
    except PatternError as error:
        raise _unusable(url, error.what, fix=error.fix) from error
    if raw is not None:
        try:
            target = Authority.of(*raw)
        except ValueError as error:
            raise _unusable(f"tcp://{raw[0]}:{raw[1]}", str(error)) from error
        # Not as it was written: there may be a password in it.
        return Question(f"tcp://{target}", target, None, tunnel=True, path="", raw=True)
    try:
        found = pasted.parse(url)
    except PatternError:
        return None
    if not isinstance(found, SshAddress):
        return None
    try:
        target = Authority.of(found.host, found.port)
    except ValueError as error:
        raise _unusable(url, str(error)) from error
    note = f"not HTTP: only a tunnel is asked for; over HTTPS it would be {found.https_url}"
    return Question(url, target, None, tunnel=True, path="", note=note, raw=True)


def _target_of(url: str, text: str, port: int) -> Authority:
    if "@" in text:
        raise _unusable(url, "it has user info", fix="leave out what is before the @")
    try:
        # A client turns letters that are not ASCII into A-labels before it asks.
        host, _, rest = text.partition(":")
        if not host.isascii():
            text = normalise_host(host, unicode=True) + (f":{rest}" if rest else "")
        return Authority.parse(text, default_port=port)
    except ValueError as error:
        raise _unusable(url, str(error)) from error


def _unknown_scheme(url: str, name: str) -> ConfigError:
    known = ", ".join(f"{each}://" for each in (*_SCHEMES, RawScheme.TCP.value))
    return _unusable(url, f"the scheme {name} is not known", fix=f"begin it with one of {known}")


def _unusable(url: str, why: str, *, fix: str = "") -> ConfigError:
    shown = quoted(_user_info(r"\g<before>...@", url))  # it may be a password
    usual = "write a URL such as https://example.com/path, or HOST:PORT"
    return ConfigError(f"{shown} cannot be checked: {why}", where="URL", fix=fix or usual)
