"""Checks of the way to upstreams: the shell's proxy, and CAs that this machine trusts besides.

They change nothing, and send nothing beyond this machine. Neither is used unless an option
names it, so both are named.
"""

from urllib.parse import urlsplit

from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, ok, warning
from claude_proxy.doctor.listeners import is_claude_proxy_at
from claude_proxy.policy.advice import is_this_machine
from claude_proxy.trust.roots import AddedRoot, added_roots
from claude_proxy.wire.authority import Authority

_PROXY = "upstream proxy"
_ROOTS = "upstream CAs"
_MOST_NAMED = 3


def check_upstream(subject: Subject) -> list[Finding]:
    """Check whether the way to upstreams lacks what the rest of this machine uses."""
    return [_proxy(subject), _roots(subject, added_roots())]


def _proxy(subject: Subject) -> Finding:
    settings = subject.settings
    if settings.upstream_proxy is not None:
        return ok(_PROXY, f"every connection goes through {settings.upstream_proxy.authority}")
    name = settings.unused_proxy_variable
    if name is None:
        return ok(_PROXY, "none, and this shell names none")
    url = _without_password(subject.environ.get(name, ""))
    try:
        if _leads_to_claude_proxy(url):
            return ok(_PROXY, f"none; {name} leads this shell's programs to claude-proxy ({url})")
    except ConnectionRefusedError:
        fix = f"start what listens there, or: unset {name}"
        return warning(_PROXY, f"{name} names {url}, where nothing listens", fix)
    fix = f"if this machine needs it: claude-proxy serve --upstream-proxy {url}"
    return warning(_PROXY, f"{name} names {url}, which claude-proxy does not use", fix)


def _leads_to_claude_proxy(url: str) -> bool:
    """Tell whether a proxy's URL is that of a claude-proxy on this machine.

    ConnectionRefusedError if it is of this machine and nothing listens there.
    """
    try:
        parts = urlsplit(url)
        target = Authority.of(parts.hostname or "", parts.port or 80)
        return is_this_machine(target) and is_claude_proxy_at(target.host, target.port)
    except ConnectionRefusedError:
        raise
    except (OSError, ValueError):
        return False


def _roots(subject: Subject, added: tuple[AddedRoot, ...]) -> Finding:
    settings = subject.settings
    if settings.upstream_ca is not None:
        return ok(_ROOTS, f"those of {settings.upstream_ca} are trusted, too")
    if not added:
        return ok(_ROOTS, "the usual ones; this machine trusts no others")
    names = ", ".join(map(str, added[:_MOST_NAMED]))
    more = f" and {len(added) - _MOST_NAMED} more" if len(added) > _MOST_NAMED else ""
    return ok(
        _ROOTS,
        f"the usual ones; this machine trusts {names}{more} as well, and --upstream-ca FILE would "
        "make claude-proxy do so",
    )


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
