"""Destinations: which URLs the Messages API may be asked to fetch or to connect to.

Default-deny, agreement: a text that is not plainly the URL of one host is never allowed. Pure.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from claude_proxy.policy.patterns import HostPattern
from claude_proxy.wire.authority import Authority

_HTTPS = 443


class AllowsUrl(Protocol):
    """Tells whether the allowlist would let a client request this URL itself."""

    def __call__(self, url: str, method: str = ..., /) -> bool:
        """Tell whether a request with `method` for `url` would be allowed."""


@dataclass(frozen=True, slots=True)
class DestinationScope:
    """Which URLs the API may be asked to use."""

    every: bool = False
    allowlisted: bool = True  # those that the allowlist allows to the client itself
    hosts: tuple[HostPattern, ...] = ()  # and these hosts, over HTTPS at its usual port

    @property
    def is_empty(self) -> bool:
        """Whether no URL at all is allowed."""
        return not (self.every or self.allowlisted or self.hosts)

    def allows(self, url: str | None, method: str, allows_url: AllowsUrl) -> bool:
        """Tell whether the API may send a `method` request to `url`; None: it is unreadable."""
        if self.every:
            return True
        if url is None:
            return False
        target = _https_target(url) if self.hosts else None
        if target is not None and any(pattern.covers(target) for pattern in self.hosts):
            return True
        return self.allowlisted and allows_url(url, method)

    def allows_domain(self, domain: str, allows_url: AllowsUrl) -> bool:
        """Tell whether the API may fetch everything below one of a tool's `allowed_domains`."""
        # A path limits what is fetched further; without it more is asked for.
        host = domain.partition("/")[0]
        if _is_domain(host) is None:
            return False
        # The API includes the names below a domain. Which names and paths exist is not known: one
        # that no rule was written for represents them all.
        urls = (f"https://{label}{host}/{page}" for label in ("", _ANY) for page in ("", _ANY_PAGE))
        return all(self.allows(url, "GET", allows_url) for url in urls)


EVERYWHERE = DestinationScope(every=True)
ALLOWLISTED = DestinationScope()

_ANY = "claude-proxy-any."
_ANY_PAGE = "claude-proxy/any"
_is_domain = re.compile(r"(?=.*\.)[a-z0-9.-]+", re.ASCII).fullmatch
_https_host = re.compile(r"https://([^/?#@\\\s:]+)(?::443)?(?:/[\x21-\x7e]*)?", re.ASCII).fullmatch


def _https_target(url: str) -> Authority | None:
    """Return where `url` leads to, if that is plainly the usual HTTPS port of a host."""
    match = _https_host(url)
    if match is None:
        return None
    try:
        return Authority.of(match[1], _HTTPS)
    except ValueError:
        return None
