"""Recorded attempts: what the audit log holds of one, and what a policy decides about it again.

One judge: an attempt is judged by the policy, as it was when it was made, as far as it was
recorded. Header fields, bodies and logins are not recorded, so nothing is said about those. What a
rule asks about stays a question (`Decision.asks`): nobody answers it here. Pure.
"""

from enum import StrEnum
from typing import NamedTuple

from claude_proxy.policy.decision import Decision, denied
from claude_proxy.policy.lookups import decide_lookup
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.address import Address, AddressKind, kind_of
from claude_proxy.wire.authority import Authority


class Form(StrEnum):
    """What was asked for."""

    REQUEST = "request"
    TUNNEL = "tunnel"  # nothing is known of what would be, or was, asked for inside
    PASSTHROUGH = "passthrough"  # a tunnel whose TLS was not opened
    RAW = "tcp"  # a tunnel for bytes of any protocol
    LOOKUP = "lookup"  # of a name, by a client that resolves names itself


# Reasons that the policy finds by what is recorded. The others are about what is not: what a
# client claimed, a body, a login, or the machine.
JUDGED_AGAIN = frozenset(
    {
        Reason.RULE_MATCHED,
        Reason.ANSWERED,
        Reason.ASK,
        Reason.NOT_ANSWERED,
        Reason.OWNER_REFUSED,
        Reason.TOO_MANY_QUESTIONS,
        Reason.NO_RULE,
        Reason.DENY_RULE,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.METHOD_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
        Reason.AMBIGUOUS_PATH,
        Reason.METHOD_REFUSED,
        Reason.ADDRESS_NOT_ALLOWED,
        Reason.ENDPOINT_NOT_ALLOWED,
        Reason.NAME_LIMIT,
        Reason.RULE_WITHDRAWN,
        Reason.NOT_TLS,
    }
)
_ON_THIS_MACHINE = frozenset({AddressKind.LOOPBACK, AddressKind.UNSPECIFIED})


class RecordedAttempt(NamedTuple):
    """What is recorded of an attempt, as far as rules can speak of it."""

    form: Form
    scheme: Scheme  # of a request; https otherwise
    target: Authority
    method: str = ""
    path: str = ""
    query: str = ""  # only whether it begins a push
    address: Address | None = None  # that was dialled, or was denied


def judged(policy: Policy, attempt: RecordedAttempt) -> Decision:
    """Decide about a recorded attempt, and about the address that its target led to."""
    decision = judged_without_address(policy, attempt)
    if attempt.address is None or not (decision.allowed or decision.asks):
        return decision
    return judged_address(policy, attempt.target, attempt.address, decision)


def judged_without_address(policy: Policy, attempt: RecordedAttempt) -> Decision:
    """Decide about a recorded attempt, wherever its target led."""
    form, target = attempt.form, attempt.target
    if form is Form.REQUEST:
        return _judged_request(policy, attempt)
    if form is Form.RAW:
        decision = policy.decide_raw(target)
        if decision.allowed or not policy.ask:
            return decision
        answered = policy.as_answered().decide_raw(target)
        return policy.decide_tunnel(target) if answered.allowed else answered
    if form is Form.LOOKUP:
        return decide_lookup(policy, target.host).decision
    decision = policy.decide_tunnel(target)
    opens = decision.allowed or decision.asks
    if form is Form.PASSTHROUGH and opens and not decision.secure:
        return denied(Reason.SCHEME_NOT_ALLOWED)
    return decision


def judged_address(
    policy: Policy, target: Authority, address: Address, decision: Decision
) -> Decision:
    """Decide whether a target may lead to an address; else return the denial."""
    here = kind_of(address) in _ON_THIS_MACHINE
    owner = AddressOwner.THIS_MACHINE if here else AddressOwner.OTHER
    if decision.asks:
        found = policy.address_without_answer(target, address, owner)
    else:
        found = policy.decide_address(target, address, owner)
    return decision if found.allowed or found.asks else found


def _judged_request(policy: Policy, attempt: RecordedAttempt) -> Decision:
    scheme, target = attempt.scheme, attempt.target
    request = Request(scheme, target, target, attempt.method, attempt.path, query=attempt.query)
    decision = policy.head_without_answer(request)
    if decision.allowed or decision.asks or scheme is not Scheme.HTTPS:
        return decision
    # Where bytes of any protocol pass, nobody sees the requests.
    tunnel = policy.decide_tunnel(target)
    opens = tunnel.allowed or tunnel.asks
    return tunnel if opens and tunnel.raw and tunnel.secure else decision
