"""What became of an attempt is told from its decision and its outcome, in Python as in SQL."""

from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from claude_proxy.audit.database import connect, database_in
from claude_proxy.audit.state import (
    IS_DENIED,
    IS_FAILED,
    IS_FAILED_STEP,
    State,
    is_shown_failure,
    reason_of,
    state_of,
)
from claude_proxy.audit.store import AuditStore
from claude_proxy.events import PASSTHROUGH_SCHEME, Phase
from tests.audit.examples import a_decision, a_denial, an_outcome

ERRORS = [None, "client-closed", "upstream-unresolved", "address-not-allowed", "rule-withdrawn"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, State.ALLOWED),
        ("client-closed", State.FAILED),
        ("upstream-cut-short", State.FAILED),
        ("address-not-allowed", State.DENIED),
    ],
)
def test_an_allowed_attempt_ends_as_its_outcome_says(error: str | None, state: State) -> None:
    outcome = an_outcome(error=error)

    assert state_of(a_decision(), outcome) is state
    assert reason_of(a_decision(), outcome) == error or "rule-matched"


def test_a_denial_stays_a_denial_for_its_own_reason() -> None:
    assert state_of(a_denial(), an_outcome(error="client-closed")) is State.DENIED
    assert reason_of(a_denial(), an_outcome(error="client-closed")) == "no-rule"


def test_an_attempt_under_way_is_allowed() -> None:
    assert state_of(a_decision(), None) is State.ALLOWED
    assert reason_of(a_decision(), None) == "rule-matched"


def test_sql_says_the_same(tmp_path: Path) -> None:
    path = database_in(tmp_path / "state")
    kinds = product(Phase, ["", "https", PASSTHROUGH_SCHEME], [True, False], ERRORS)
    events = [
        (
            a_decision(number, phase=phase, scheme=scheme, allowed=allowed),
            an_outcome(number, error=error),
        )
        for number, (phase, scheme, allowed, error) in enumerate(kinds)
    ]
    with closing(AuditStore(path, retention_days=1_000_000)) as store:
        for decision, outcome in events:
            # Not by the store's count of repeated denials.
            store.record(
                decision
                if decision.allowed
                else a_denial(decision.id, attempt=1, phase=decision.phase, scheme=decision.scheme)
            )
            store.record(outcome)
    statement = (
        f"SELECT {IS_DENIED}, {IS_FAILED}, {IS_FAILED_STEP} FROM decision d"
        " LEFT JOIN outcome o ON o.decision = d.id ORDER BY d.id"
    )
    with closing(connect(path, mode="ro")) as database:
        found = [tuple(map(bool, row)) for row in database.execute(statement)]

    assert found == [
        (
            state_of(decision, outcome) is State.DENIED,
            state_of(decision, outcome) is State.FAILED,
            is_shown_failure(decision, outcome),
        )
        for decision, outcome in events
    ]
