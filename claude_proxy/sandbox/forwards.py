"""Forwarded ports of a run: what its start says of them, and what is recorded.

Law kept: one judge. A forward opens nothing: the relay asks the proxy for each connection. So a
forward that no rule allows is no error, but said at once, with the line that allows it.
"""

from collections.abc import Iterator, Sequence

from claude_proxy.config.port_mappings import Forward
from claude_proxy.events import Notice
from claude_proxy.policy.advice import DeniedAttempt, advice_for
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.host_services import LOOPBACK
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import WEB_PORTS

NOTICE = "forwarded-port"  # the kind of what is recorded


def warnings(
    forwards: Sequence[Forward], policy: Policy, list_options: Sequence[str] = ()
) -> Iterator[str]:
    """Yield what to say of forwards that the policy denies."""
    for forward in forwards:
        decision = _decided(forward, policy)
        if decision.allowed:
            continue
        what = f"--forward {forward} leads nowhere"
        if decision.reason is Reason.DENY_RULE and decision.rule is not None:
            yield f"{what}: the deny rule at {decision.rule.source} denies {forward.leads_to}"
        elif forward.target.port in WEB_PORTS:
            yield (
                f"only TLS and HTTP that name {forward.target.host} pass through --forward "
                f"{forward}; programs that heed HTTPS_PROXY need no forward"
            )
        elif forward.to_host:
            yield f"{what}: the rules for {forward.target} allow no other protocol than theirs"
        else:
            yield f"{what} until a rule allows it; {_advice(forward, list_options)}"


def _decided(forward: Forward, policy: Policy) -> Decision:
    """Return what is decided about a forward, as far as that is known before names are resolved."""
    decision = policy.decide_raw(forward.target)
    for address in LOOPBACK if decision.allowed and forward.to_host else ():
        decision = policy.decide_address(forward.target, address, AddressOwner.THIS_MACHINE)
        if not decision.allowed:
            break
    return decision


def _advice(forward: Forward, list_options: Sequence[str]) -> str:
    attempt = DeniedAttempt(Reason.NOT_TLS, forward.target, method="CONNECT")
    advice = advice_for(attempt)
    if (command := advice.command(*list_options)) is not None:
        return f"to allow it: {command}"
    return advice.text or "no rule can allow it"


def notices(forwards: Sequence[Forward], run: str) -> Iterator[Notice]:
    """Yield what is recorded at the start; each connection has a record of its own."""
    for forward in forwards:
        text = f"run {run}: {forward.listens_at} inside leads to {forward.leads_to}"
        yield Notice(0, NOTICE, text, run=run)


def places(forwards: Sequence[Forward]) -> list[tuple[str, int]]:
    """Return where to listen inside, one for each forward."""
    return [(forward.address, forward.port) for forward in forwards]


def lines(forwards: Sequence[Forward]) -> Iterator[str]:
    """Yield what --dry-run prints."""
    for forward in forwards:
        yield f"# {forward.listens_at} inside leads to {forward.leads_to} (--forward)"
