"""State of an attempt: denied, failed or allowed, from its decision and its outcome; pure.

Law: what happened is what is shown. An attempt that was allowed first and denied later is denied,
and one that was allowed and came to nothing has failed, with the reason in each case.
"""

from enum import StrEnum
from typing import Final

from claude_proxy.events import PASSTHROUGH_SCHEME, TCP_SCHEME, DecisionMade, OutcomeSeen, Phase
from claude_proxy.policy.reason import Reason


class State(StrEnum):
    """What became of an attempt."""

    DENIED = "denied"
    FAILED = "failed"  # allowed, but not carried out as the client wanted
    ALLOWED = "allowed"


# Errors of an outcome that mean a denial after the first decision.
_ALLOWING: Final = {Reason.RULE_MATCHED.value, Reason.ANSWERED.value}
_DENIALS: Final = frozenset(reason.value for reason in Reason) - _ALLOWING
# A tunnel that its client opens and gives up unused: browsers do so all the time.
GIVEN_UP: Final = "client-closed"
# The schemes of tunnels whose content is never inspected.
UNSEEN: Final = frozenset({PASSTHROUGH_SCHEME, TCP_SCHEME})

_UNSEEN_LIST: Final = ", ".join(f"'{scheme}'" for scheme in sorted(UNSEEN))
_IN_LIST: Final = ", ".join(f"'{reason}'" for reason in sorted(_DENIALS))
# The same in SQL, over the decision `d` and its outcome `o`.
IS_DENIED: Final = f"(NOT d.allowed OR coalesce(o.error, '') IN ({_IN_LIST}))"
IS_FAILED: Final = f"(d.allowed AND coalesce(o.error, '') NOT IN ('', {_IN_LIST}))"
# A later denial has a row of its own, which takes the place of the first one.
IS_SUPERSEDED: Final = (
    "(d.allowed AND EXISTS (SELECT 1 FROM decision later WHERE later.attempt = d.id))"
)
IS_FAILED_STEP: Final = (
    f"(d.allowed AND d.phase = '{Phase.CONNECT.value}' AND d.scheme NOT IN ({_UNSEEN_LIST})"
    f" AND coalesce(o.error, '{GIVEN_UP}') <> '{GIVEN_UP}')"
)
IS_SHOWN: Final = (
    f"((NOT d.allowed OR d.phase = '{Phase.REQUEST.value}' OR {IS_FAILED_STEP}"
    f" OR (d.phase = '{Phase.CONNECT.value}' AND d.scheme IN ({_UNSEEN_LIST})))"
    f" AND NOT {IS_SUPERSEDED})"
)


def state_of(decision: DecisionMade, outcome: OutcomeSeen | None) -> State:
    """Return what became of an attempt, as far as it is known."""
    error = None if outcome is None else outcome.error
    if not decision.allowed or error in _DENIALS:
        return State.DENIED
    return State.ALLOWED if error is None else State.FAILED


def state_of_outcome(outcome: OutcomeSeen) -> State:
    """Return what became of an attempt, from its outcome alone."""
    if not outcome.allowed or outcome.error in _DENIALS:
        return State.DENIED
    return State.ALLOWED if outcome.error is None else State.FAILED


def reason_of(decision: DecisionMade, outcome: OutcomeSeen | None) -> str:
    """Return why: the reason of the denial, the error of a failure, else the decision's reason."""
    if decision.allowed and outcome is not None and outcome.error is not None:
        return outcome.error
    return decision.reason


def is_shown(event: DecisionMade) -> bool:
    """Return whether `event` is shown by default; an allowed step towards a request is not."""
    return not event.allowed or event.phase is Phase.REQUEST or is_passed_through(event)


def is_shown_failure(event: DecisionMade, outcome: OutcomeSeen) -> bool:
    """Return whether a step towards a request is shown after all, because it came to nothing."""
    is_step = event.allowed and event.phase is Phase.CONNECT and not is_passed_through(event)
    return is_step and outcome.error not in {None, GIVEN_UP}


def is_passed_through(event: DecisionMade) -> bool:
    """Return whether `event` allows a tunnel whose content is never inspected."""
    return event.allowed and event.phase is Phase.CONNECT and event.scheme in UNSEEN


def unseen_word(event: DecisionMade) -> str:
    """Return what to call a tunnel whose content is never inspected."""
    return "tcp" if event.scheme == TCP_SCHEME else "passthrough"
