"""Hints about upstreams: a proxy or a CA that this machine knows and claude-proxy does not use.

No quiet downgrade: neither is used unless the owner names it by an option. It is named where its
absence may be the cause of an error. Secrets stay outside: a client learns only of the option.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from claude_proxy.proxy.dialer import Failure
from claude_proxy.proxy.tls_failures import CERTIFICATE_INVALID, UNKNOWN_CA_WORDS

_UNREACHED = frozenset(
    {
        Failure.UNRESOLVED.value,
        Failure.REFUSED.value,
        Failure.UNREACHABLE.value,
        Failure.TIMEOUT.value,
    }
)
_SHOWN = 3  # CAs


def _no_roots() -> Sequence[object]:
    return ()


@dataclass(frozen=True, slots=True)
class Hint:
    """What may be the cause of an error."""

    for_client: str  # a sentence
    for_owner: str  # the same with names and places, as a warning says it


@dataclass(frozen=True, slots=True)
class UpstreamHints:
    """What may be missing on the way to upstreams."""

    proxy_variable: str | None = None  # of the environment; it names a proxy that is not used
    # Returns the CAs that were added to this machine, and that upstreams are not verified by.
    added_roots: Callable[[], Sequence[object]] = _no_roots

    def about(self, reason: str, text: str) -> Hint | None:
        """Return the hint about an upstream's error with this reason and text, if there is one."""
        what = text[:1].lower() + text[1:].removesuffix(".")
        if reason in _UNREACHED and self.proxy_variable is not None:
            told = (
                f"{self.proxy_variable} is set where claude-proxy was started, but only "
                "--upstream-proxy makes it use another proxy"
            )
            return Hint(f"{told}.", f"{what}; {told}")
        if reason != CERTIFICATE_INVALID or UNKNOWN_CA_WORDS not in text:
            return None
        roots = list(map(str, self.added_roots()))
        if not roots:
            return None
        told = "this machine trusts a CA that claude-proxy does not: --upstream-ca FILE adds it"
        more = f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""
        named = f"{', '.join(roots[:_SHOWN])}{more}"
        return Hint(
            f"{told[:1].upper()}{told[1:]}.",
            f"{what}; on this machine it may be {named}",
        )


NO_HINTS = UpstreamHints()
