"""Rules of the network that an image is built or updated in: an allowlist's text; pure.

Law kept: default-deny. They are the presets of the package managers, which read only, and the hosts
that the command line names: a mirror, a registry. No credential is among them.
"""

import json
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.wire.authority import Authority

_READING = ("GET", "HEAD")
_USUAL_PORTS = {"http": 80, "https": 443}
_SPECIAL = frozenset(" '\"\\$`;|<>")


@dataclass(frozen=True, slots=True)
class Source:
    """A server that is read from, by the URL that an option gives."""

    url: str
    scheme: str
    authority: Authority

    @classmethod
    def parse(cls, url: str, option: str) -> "Source":
        """Return the server of a URL; ConfigError if it is none that a build can read from."""
        try:
            parts = urlsplit(url if url.isprintable() else "")
            authority = _authority_of(url, parts)
        except ValueError as error:
            raise ConfigError(
                f"this is not the URL of a server to read from: {error}",
                where=f"{option} {url!r}",
                fix="write it like https://mirror.example.com/debian, without a password",
            ) from error
        return cls(url, parts.scheme, authority)


def _authority_of(url: str, parts: SplitResult) -> Authority:
    """Return the server of a URL that means nothing else; raise ValueError."""
    if parts.scheme not in _USUAL_PORTS or parts.username is not None:
        raise ValueError("it is not one of https or http, without a password")
    if set(url) & _SPECIAL or parts.query or parts.fragment:
        raise ValueError("it has characters that mean something to programs that read it")
    port = _USUAL_PORTS[parts.scheme] if parts.port is None else parts.port
    return Authority.of(parts.hostname or "", port)


def registry_of(image: str) -> str | None:
    """Return the registry that an image's name begins with ("HOST/…", "HOST:PORT/…"); None: none.

    The rule is that of Docker's reference parser: the first part is a host if it has a dot or a
    colon, or is "localhost".
    """
    first, slash, _ = image.partition("/")
    if not slash or first == "localhost":
        return None
    return first if set(first) & set(".:") else None


def rules_text(
    presets: Sequence[str],
    sources: Sequence[Source] = (),
    *,
    registry: str | None = None,
    addresses: Sequence[str] = (),
) -> str:
    """Return the allowlist of a build.

    `addresses` are those that are not public but that the named servers may have.
    """
    entries: list[dict[str, object]] = [{"preset": name} for name in dict.fromkeys(presets)]
    entries += [_reading(source.authority, source.scheme, addresses) for source in sources]
    if registry is not None:
        entries.append(_reading(_registry(registry), "https", addresses))
    lines = [f"  - {json.dumps(entry)}" for entry in entries]
    return "\n".join(["# What this build may read.", "allow:", *lines, ""])


def _reading(authority: Authority, scheme: str, addresses: Sequence[str]) -> dict[str, object]:
    entry: dict[str, object] = {"host": authority.host, "methods": list(_READING)}
    if scheme == "http":
        entry["scheme"] = "http"
    if authority.port != _USUAL_PORTS[scheme]:
        entry["ports"] = [authority.port]
    if addresses:
        entry["addresses"] = list(addresses)
    return entry


def _registry(name: str) -> Authority:
    try:
        parts = urlsplit(f"https://{name}")
        port = _USUAL_PORTS["https"] if parts.port is None else parts.port
        return Authority.of(parts.hostname or "", port)
    except ValueError as error:
        raise ConfigError(
            f"the image's registry is not a host: {error}",
            where=f"--base {name}/…",
            fix="write it like registry.example.com/debian:stable-slim",
        ) from error
