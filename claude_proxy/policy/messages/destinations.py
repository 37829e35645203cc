"""Decides which places the Messages API may be asked to go to.

Laws kept: default-deny (1), agreement (4). What is not plainly the URL of one host is no place at
all. Pure.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from claude_proxy.policy.patterns import HostPattern
from claude_proxy.wire.authority import Authority

_HTTPS = 443


class DestinationScopes(Protocol):
    """Tells whether the allowlist would let a client ask for this URL itself."""

    def __call__(self, url: str, method: str = ..., /) -> bool:
        """Tell whether a request with `method` for `url` would be allowed."""


@dataclass(frozen=True, slots=True)
class DestinationScope:
    """Which places the API may be asked to go to."""

    every: bool = False
    allowlisted: bool = True  # those that the allowlist allows the client itself
    hosts: tuple[HostPattern, ...] = ()  # and these, over HTTPS and its own port

    @property
    def nowhere(self) -> bool:
        """Whether there is no such place."""
        return not (self.every or self.allowlisted or self.hosts)

    def holds(self, url: str | None, method: str, reaches: DestinationScopes) -> bool:
        """Tell whether the API may send a request with `method` to `url`; None is no URL at all."""
        if self.every:
            return True
        if url is None:
            return False
        target = _https_target(url) if self.hosts else None
        if target is not None and any(pattern.covers(target) for pattern in self.hosts):
            return True
        return self.allowlisted and reaches(url, method)

    def holds_domain(self, domain: str, reaches: DestinationScopes) -> bool:
        """Tell whether the API may fetch all that lies below one of a tool's `allowed_domains`."""
        # A path narrows what is fetched, and whoever says less about it asks for more.
        host = domain.partition("/")[0]
        if _is_domain(host) is None:
            return False
        # The API counts the names below a domain in. Which these are nobody knows, nor the paths:
        # one that no rule was written for stands for them all.
        urls = (f"https://{label}{host}/{page}" for label in ("", _ANY) for page in ("", _ANY_PAGE))
        return all(self.holds(url, "GET", reaches) for url in urls)


EVERYWHERE = DestinationScope(every=True)
ALLOWLISTED = DestinationScope()

_ANY = "claude-proxy-any."
_ANY_PAGE = "claude-proxy/any"
_is_domain = re.compile(r"(?=.*\.)[a-z0-9.-]+", re.ASCII).fullmatch
_https_host = re.compile(r"https://([^/?#@\\\s:]+)(?::443)?(?:/[\x21-\x7e]*)?", re.ASCII).fullmatch


def _https_target(url: str) -> Authority | None:
    """Return where `url` leads to, if that is plainly a host's usual port for HTTPS."""
    match = _https_host(url)
    if match is None:
        return None
    try:
        return Authority.of(match[1], _HTTPS)
    except ValueError:
        return None
