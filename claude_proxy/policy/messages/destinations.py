"""Destinations: the URLs that the Messages API may be asked to fetch or connect to.

Default-deny, agreement: a text that is not unambiguously the URL of one host is denied. Pure.
"""

import re
from typing import Protocol

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.wire.authority import Authority

_HTTPS = 443


class AllowsUrl(Protocol):
    """A function that says whether the allowlist would allow a client's own request."""

    def __call__(self, url: str, method: str = ..., /) -> bool:
        """Return whether a request with `method` for `url` would be allowed."""


@dataclass(frozen=True, slots=True)
class DestinationScope:
    """The URLs that the API may be asked to use."""

    every: bool = False
    allowlisted: bool = True  # URLs that the allowlist allows the client itself
    hosts: tuple[HostPattern, ...] = ()  # also these hosts, by HTTPS on port 443

    @property
    def is_empty(self) -> bool:
        """Whether no URL at all is allowed."""
        return not (self.every or self.allowlisted or self.hosts)

    def allows(self, url: str | None, method: str, allows_url: AllowsUrl) -> bool:
        """Return whether the API may send a `method` request to `url`; None means unreadable."""
        if self.every:
            return True
        if url is None:
            return False
        target = _https_target(url) if self.hosts else None
        if target is not None and any(pattern.covers(target) for pattern in self.hosts):
            return True
        return self.allowlisted and allows_url(url, method)

    def allows_domain(self, domain: str, allows_url: AllowsUrl) -> bool:
        """Return whether the API may fetch everything in `domain`, one of a tool's domains."""
        # A path would limit the domain further, so ignoring it is stricter.
        host = domain.partition("/")[0]
        if _is_domain(host) is None:
            return False
        # A domain includes its subdomains. As names and paths are unknown, one that no rule names
        # represents them all.
        urls = (f"https://{label}{host}/{page}" for label in ("", _ANY) for page in ("", _ANY_PAGE))
        return all(self.allows(url, "GET", allows_url) for url in urls)


EVERYWHERE = DestinationScope(every=True)
ALLOWLISTED = DestinationScope()

_ANY = "claude-proxy-any."
_ANY_PAGE = "claude-proxy/any"
_is_domain = lazy_pattern(r"(?=.*\.)[a-z0-9.-]+", re.ASCII).fullmatch
_https_host = lazy_pattern(
    r"https://([^/?#@\\\s:]+)(?::443)?(?:/[\x21-\x7e]*)?", re.ASCII
).fullmatch


def _https_target(url: str) -> Authority | None:
    """Return the target of `url` if it is an unambiguous HTTPS URL with port 443."""
    match = _https_host(url)
    if match is None:
        return None
    try:
        return Authority.of(match[1], _HTTPS)
    except ValueError:
        return None
