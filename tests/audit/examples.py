"""Ordinary audit events, of which a test changes the fields that it needs."""

from pathlib import Path
from typing import Any

from claude_proxy.audit.database import connect
from claude_proxy.events import DecisionMade, OutcomeSeen, Phase, Usage

# 2026-01-02T03:04:05.000006Z
MOMENT = 1_767_323_045_000_006_000


def a_decision(number: int = MOMENT, **changes: Any) -> DecisionMade:
    facts: dict[str, Any] = {
        "id": number,
        "connection": 7,
        "client": "127.0.0.1:55555",
        "listener": "127.0.0.1:9051",
        "phase": Phase.REQUEST,
        "scheme": "https",
        "target": "example.com:443",
        "method": "GET",
        "path": "/path",
        "allowed": True,
        "reason": "rule-matched",
        "rule": "example.com",
        "rule_source": "allowlist.yaml:12",
    }
    return DecisionMade(**facts | changes)


def a_denial(number: int = MOMENT, **changes: Any) -> DecisionMade:
    facts = {"allowed": False, "reason": "no-rule", "rule": None, "rule_source": None}
    return a_decision(number, **facts | changes)


def an_outcome(decision: int = MOMENT, **changes: Any) -> OutcomeSeen:
    facts: dict[str, Any] = {
        "decision": decision,
        "status": 200,
        "bytes_up": 10,
        "bytes_down": 2000,
        "duration_ms": 12.5,
        "first_byte_ms": 3.25,
        "upstream": "203.0.113.5:443",
        "error": None,
    }
    return OutcomeSeen(**facts | changes)


def a_usage(**changes: Any) -> Usage:
    facts: dict[str, Any] = {
        "model": "claude-opus-4-1",
        "tokens_in": 12,
        "tokens_out": 340,
        "cache_written": 5,
        "cache_read": 6000,
    }
    return Usage(**facts | changes)


def rows(path: Path, question: str) -> list[Any]:
    """Return what a program other than ours finds in the file; one column comes bare."""
    connection = connect(path, mode="ro")
    try:
        found = connection.execute(question).fetchall()
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in found]
