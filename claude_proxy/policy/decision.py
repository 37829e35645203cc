"""Decisions: the policy's answer to one question, and the only ways to make one.

One judge: a `Decision` is built in this room alone, so whatever is allowed was allowed by a rule.
Pure.
"""

from dataclasses import dataclass

from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import Rule, Tls


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer to one question."""

    allowed: bool
    reason: Reason
    rule: Rule | None = None
    tls: Tls | None = None  # of a tunnel
    plain: bool = False  # of a tunnel: plain HTTP may be spoken in it
    secure: bool = False  # of a tunnel: TLS may be spoken in it
    restricted: bool = False  # of a request: limits on method or path are in force for its host

    def __bool__(self) -> bool:
        raise TypeError("a Decision has no truth value; read `decision.allowed`")


_DENIED: dict[Reason, Decision] = {
    reason: Decision(allowed=False, reason=reason)
    for reason in Reason
    if reason is not Reason.RULE_MATCHED
}


def denied(reason: Reason, rule: Rule | None = None) -> Decision:
    """Return a denial; with the rule that led to it, if one did."""
    decision = _DENIED[reason]
    return decision if rule is None else Decision(allowed=False, reason=reason, rule=rule)


def denied_by(rule: Rule) -> Decision:
    """Return the denial by a deny rule."""
    return denied(Reason.DENY_RULE, rule)


def allowed_by(rule: Rule, *, restricted: bool = False) -> Decision:
    """Return what an allow rule grants: a request, or an address."""
    return Decision(allowed=True, reason=Reason.RULE_MATCHED, rule=rule, restricted=restricted)


def tunnel_allowed_by(rule: Rule, *, tls: Tls | None, plain: bool, secure: bool) -> Decision:
    """Return what an allow rule grants a tunnel."""
    return Decision(
        allowed=True, reason=Reason.RULE_MATCHED, rule=rule, tls=tls, plain=plain, secure=secure
    )


# A fault denies.
FAULT = denied(Reason.INTERNAL_ERROR)
# Recorded or denied.
UNRECORDED = denied(Reason.AUDIT_FAILED)
# A request shows a login to be pinned, and another one was pinned a moment before.
ANOTHER_LOGIN_PINNED = denied(Reason.FOREIGN_CREDENTIAL)
# The login that a request shows cannot be written down.
LOGIN_NOT_PINNED = denied(Reason.CREDENTIAL_UNAVAILABLE)
# The policy was reloaded, and other credentials are bound to the host of an allowed request.
CREDENTIALS_CHANGED = denied(Reason.CREDENTIAL_UNAVAILABLE)
