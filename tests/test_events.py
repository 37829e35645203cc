"""Audit events have no room for a secret, and cannot be changed once they are made."""

import dataclasses

import pytest

from claude_proxy.events import DecisionMade, Notice, OutcomeSeen, Phase, Usage
from tests.audit.examples import a_decision, an_outcome

TUPLES = (DecisionMade, OutcomeSeen)
DATACLASSES = (Notice, Usage)
# Everything that an event may hold. A new field is added here after a look at what it could carry.
FIELDS = {
    *("id", "connection", "client", "listener", "phase", "scheme", "target", "method", "path"),
    *("allowed", "reason", "rule", "rule_source", "credential"),
    *("run", "attempt", "at", "count", "last", "decided_at"),
    *("decision", "status", "bytes_up", "bytes_down", "duration_ms", "first_byte_ms"),
    *("upstream", "error", "usage"),
    *("kind", "text"),
    *("model", "tokens_in", "tokens_out", "cache_written", "cache_read"),
}


def test_an_event_has_no_room_for_a_header_a_body_or_a_credentials_value() -> None:
    found = {name for event in TUPLES for name in event._fields}
    found |= {field.name for event in DATACLASSES for field in dataclasses.fields(event)}

    assert found == FIELDS


def test_an_event_cannot_be_changed() -> None:
    for event, name in (
        (Notice(1, "start", "started"), "text"),
        (Usage(), "model"),
        (a_decision(), "allowed"),
        (an_outcome(), "error"),
    ):
        with pytest.raises(AttributeError):
            setattr(event, name, None)


def test_the_phases_are_the_words_of_the_published_log() -> None:
    assert [phase.value for phase in Phase] == [
        *("client", "connect", "hello", "request", "content", "dial", "reload")
    ]
