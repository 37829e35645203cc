"""Logins that a policy lets a client use at a target, and which ones another policy adds.

Where a credential is bound, every login but that one is denied, so the end of a binding allows all
others. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence

from claude_proxy.policy.credentials.binding import (
    Binding,
    Injection,
    bound_by_provider,
    bound_to,
)
from claude_proxy.policy.credentials.database import database_use, databases_at, is_for_requests
from claude_proxy.policy.credentials.decision import in_force_at
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.summary import describe_use
from claude_proxy.wire.authority import Authority

# A login as something to compare, and as text. What is injected is the owner's own: that any login
# may be used does not include it.
type Logins = Mapping[object, str]

_ANY = "any"
_NONE = "none"


def logins_at(bindings: Sequence[Binding], target: Authority, scheme: Scheme) -> Logins:
    """Return the logins that requests to a target may use."""
    for_requests = [each for each in bindings if is_for_requests(each)]
    bound = bound_to(target, for_requests)
    if not bound:
        provider = bound_by_provider(target, for_requests)
        if not provider:
            return {_ANY: "any login"}
        return {_NONE: "no login"} | dict(pair for each in provider for pair in _pinned(each))
    request = Request(scheme, target, target, "GET", "/")
    in_force = in_force_at(bound, request)
    if not in_force:
        return {_NONE: "no login"}
    if len(in_force) > 1:
        return {}  # nobody knows which is meant, so all are denied
    binding = in_force[0]
    if isinstance(binding.use, Injection):
        return dict(_injected(binding, binding.use))
    return {_NONE: "no login"} | dict(_pinned(binding))


def database_logins_at(bindings: Sequence[Binding], target: Authority) -> Logins:
    """Return the logins that a tunnel of a rule for tcp may use."""
    here = databases_at(target, bindings)
    if not here:
        return {_ANY: "any login"}
    binding = here[0]
    if not isinstance(binding.use, Injection):
        return {}
    return dict(_injected(binding, binding.use))


def more_logins(old: Logins, new: Logins) -> Iterator[str]:
    """Yield the logins that `new` has and `old` has not."""
    for login, text in new.items():
        if login in old or (_ANY in old and not isinstance(login, _Injected)):
            continue
        yield text


class _Injected(tuple[object, ...]):
    """What makes an injected login the same one."""

    __slots__ = ()


def _injected(binding: Binding, use: Injection) -> Iterator[tuple[object, str]]:
    key = (use.source, use.form, use.name, use.user, database_use(binding))
    yield _Injected(key), f"the credential {binding.name} ({describe_use(use)})"


def _pinned(binding: Binding) -> Iterator[tuple[object, str]]:
    use = binding.use
    if isinstance(use, Injection):
        return
    if use.learn:
        yield (binding.name, "learn"), f"the first login that is used (credential {binding.name})"
    if use.source is not None:
        yield (use.source, "pin"), f"the login of credential {binding.name} ({describe_use(use)})"
    for digest in use.digests:
        yield digest, f"a login of credential {binding.name}, by hash"
