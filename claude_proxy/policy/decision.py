"""Decisions: allowed or denied, with a reason, and the functions that create them.

One judge: only `policy/` creates a `Decision`, so whatever is allowed was allowed by a rule. Pure.
"""

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import Rule, Tls


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a connection, tunnel, address or request is allowed, and why."""

    allowed: bool
    reason: Reason
    rule: Rule | None = None  # the rule that decided, if one did
    tls: Tls | None = None  # for a tunnel: what to do with TLS
    plain: bool = False  # for a tunnel: plain HTTP is allowed inside
    secure: bool = False  # for a tunnel: TLS is allowed inside
    raw: bool = False  # for a tunnel: other protocols than TLS and HTTP are allowed inside
    opaque: bool = False  # for such a tunnel: TLS and HTTP may name anything inside
    restricted: bool = False  # for a request: methods or paths are restricted on its host
    asks: bool = False  # a denial until the owner has answered
    answered: bool = False  # allowed by an answer, for this attempt alone

    @property
    def opens_tunnel(self) -> bool:
        """Whether a tunnel may be opened towards its client.

        Where the owner is to be asked about each request inside, this allows nothing beyond it.
        """
        seen = self.tls is Tls.INTERCEPT or (self.tls is None and self.plain)
        return self.allowed or (self.asks and seen)

    def __bool__(self) -> bool:
        raise TypeError("a Decision has no truth value; read `decision.allowed`")


_DENIED: dict[Reason, Decision] = {
    reason: Decision(allowed=False, reason=reason)
    for reason in Reason
    if reason not in {Reason.RULE_MATCHED, Reason.ANSWERED}
}


def denied(reason: Reason, rule: Rule | None = None) -> Decision:
    """Return a denial, with the rule that led to it, if one did."""
    decision = _DENIED[reason]
    return decision if rule is None else Decision(allowed=False, reason=reason, rule=rule)


def denied_by(rule: Rule) -> Decision:
    """Return the denial by a deny rule."""
    return denied(Reason.DENY_RULE, rule)


def allowed_by(rule: Rule, *, restricted: bool = False) -> Decision:
    """Return the decision that allows a request or an address because of `rule`."""
    return Decision(allowed=True, reason=Reason.RULE_MATCHED, rule=rule, restricted=restricted)


def tunnel_allowed_by(  # noqa: PLR0913 - what may be inside
    rule: Rule,
    *,
    tls: Tls | None,
    plain: bool,
    secure: bool,
    raw: bool = False,
    opaque: bool = False,
) -> Decision:
    """Return the decision that allows a tunnel because of `rule`."""
    return Decision(
        allowed=True,
        reason=Reason.RULE_MATCHED,
        rule=rule,
        tls=tls,
        plain=plain,
        secure=secure,
        raw=raw,
        opaque=opaque,
    )


def asked_about(allowed: Decision) -> Decision:
    """Return the denial of what would be `allowed` if the owner said so."""
    return replace(allowed, allowed=False, reason=Reason.ASK, asks=True)


def answered_by(allowed: Decision, answer: Answer) -> Decision:
    """Return the decision about what the owner was asked about: only a yes allows it."""
    if answer is Answer.YES:
        # As if the rule were limited to what the question was about: no header may override that.
        return replace(allowed, reason=Reason.ANSWERED, answered=True, restricted=True)
    return denied(_OF_ANSWERS[answer], allowed.rule)


_OF_ANSWERS = {
    Answer.NO: Reason.OWNER_REFUSED,
    Answer.NONE: Reason.NOT_ANSWERED,
    Answer.NO_ROOM: Reason.TOO_MANY_QUESTIONS,
}

# Fail closed: an unexpected exception denies.
FAULT = denied(Reason.INTERNAL_ERROR)
# Recorded or denied: the decision could not be written to the audit log.
UNRECORDED = denied(Reason.AUDIT_FAILED)
# The proxy's CA has expired, so no client would accept a certificate for the host.
CA_UNUSABLE = denied(Reason.CA_UNUSABLE)
# Another login was pinned while this request, whose login was to be pinned, was being decided.
ANOTHER_LOGIN_PINNED = denied(Reason.FOREIGN_CREDENTIAL)
# The login of a request could not be stored as a pin.
LOGIN_NOT_PINNED = denied(Reason.CREDENTIAL_UNAVAILABLE)
# After the request was allowed, a reload bound other credentials to its host.
CREDENTIALS_CHANGED = denied(Reason.CREDENTIAL_UNAVAILABLE)
# A run has looked up too many names below one wildcard.
TOO_MANY_NAMES = denied(Reason.NAME_LIMIT)
