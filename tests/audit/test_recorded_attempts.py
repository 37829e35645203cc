"""Rows of the log become what rules can speak of, and nothing is guessed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader, RunFilter
from claude_proxy.audit.recorded_attempts import (
    BEFORE_KEY,
    PlainRow,
    RowKey,
    counted_rows,
    recorded_rows,
    subject_of,
)
from claude_proxy.audit.store import AuditStore
from claude_proxy.events import PASSTHROUGH_SCHEME, TCP_SCHEME, Phase
from claude_proxy.policy.recorded_attempt import Form
from tests.audit.examples import MOMENT, a_decision, a_denial, an_outcome

FOREVER = 1_000_000  # days


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    with closing(AuditStore(path, retention_days=FOREVER)) as store:
        yield store


def rows(path: Path, run: str | None = None) -> list[PlainRow]:
    of_run = None if run is None else RunFilter(run)
    with AuditReader(path) as reader:
        return list(recorded_rows(reader, run=of_run))


def subjects(path: Path, run: str | None = None) -> list[str]:
    return [subject_of(RowKey._make(row[BEFORE_KEY:])) for row in rows(path, run)]


def a_key(**changes: object) -> RowKey:
    key = RowKey(
        None, "request", "https", "example.com:443", "GET", "/x", True, "rule-matched", None, None
    )
    return key._replace(**changes)  # type: ignore[arg-type]


def test_a_tunnel_with_requests_is_told_by_them(store: AuditStore, path: Path) -> None:
    store.record(a_decision(MOMENT, phase=Phase.CONNECT, method="CONNECT", path="", scheme=""))
    store.record(a_decision(MOMENT + 1, path="/a"))
    store.record(a_decision(MOMENT + 2, path="/b"))

    assert subjects(path) == ["GET https://example.com/a", "GET https://example.com/b"]


def test_a_tunnel_in_which_nothing_was_asked_for_is_told_itself(
    store: AuditStore, path: Path
) -> None:
    for connection, target in ((1, "a.example:443"), (2, "b.example:443")):
        store.record(
            a_decision(
                MOMENT + connection,
                connection=connection,
                target=target,
                phase=Phase.CONNECT,
                method="CONNECT",
                path="",
                scheme="",
            )
        )
    store.record(a_decision(MOMENT + 5, connection=1, target="a.example:443", path="/a"))

    assert subjects(path) == ["GET https://a.example/a", "tunnel b.example:443"]


def test_repeated_denials_are_counted(store: AuditStore, path: Path) -> None:
    for number in range(7):
        store.record(a_denial(MOMENT + number))
    store.close()

    assert [row[2] for row in rows(path)] == [7]


def test_rows_have_names_and_numbers(store: AuditStore, path: Path) -> None:
    store.record(a_decision(MOMENT, run="one"))

    with AuditReader(path) as reader:
        ((key, times),) = counted_rows(reader)

    assert (key.run, key.target, key.path, times) == ("one", "example.com:443", "/path", 1)


def test_a_later_denial_replaces_the_decision_that_it_ends(store: AuditStore, path: Path) -> None:
    store.record(a_decision(MOMENT))
    store.record(
        a_denial(MOMENT + 1, phase=Phase.DIAL, reason="address-not-allowed", attempt=MOMENT)
    )
    store.record(an_outcome(MOMENT, upstream="10.1.2.3:443", error="address-not-allowed"))
    store.close()

    (found,) = rows(path)

    row = RowKey._make(found[BEFORE_KEY:])
    attempt = row.attempt()
    assert (row.is_allowed, row.outcome) == (False, "address-not-allowed")
    assert attempt is not None
    assert str(attempt.address) == "10.1.2.3"


@pytest.mark.parametrize(
    ("facts", "granted"),
    [
        ({}, False),
        ({"rule_source": "allowlist.yaml:3"}, False),
        ({"rule_source": None}, False),
        ({"rule_source": "grant 12"}, True),
        ({"rule_source": "allowlist.yaml:3", "reason": "answered"}, True),
    ],
)
def test_what_a_grant_or_an_answer_decided_is_told(
    store: AuditStore, path: Path, facts: dict[str, object], *, granted: bool
) -> None:
    store.record(a_decision(MOMENT, **facts))

    (found,) = rows(path)

    assert bool(RowKey._make(found[BEFORE_KEY:]).granted) is granted


def test_one_run_is_read_alone(store: AuditStore, path: Path) -> None:
    store.record(a_decision(MOMENT, run="one", path="/one"))
    store.record(a_decision(MOMENT + 1, run="two", path="/two"))

    assert subjects(path, "two") == ["GET https://example.com/two"]


def test_what_a_gateway_let_pass_is_left_out(store: AuditStore, path: Path) -> None:
    store.record(a_decision(MOMENT, listener="gateway tcp 127.0.0.1:9000"))

    assert rows(path) == []


def test_more_than_a_page_is_read(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_proxy.audit.queries._LARGE_PAGE_ROWS", 3)
    for number in range(10):
        store.record(a_decision(MOMENT + number, path=f"/{number}"))

    assert len(rows(path)) == 10


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, Form.REQUEST),
        ({"phase": "connect", "method": "CONNECT", "path": "", "scheme": ""}, Form.TUNNEL),
        ({"phase": "connect", "method": "SOCKS", "path": "", "scheme": ""}, Form.TUNNEL),
        ({"phase": "connect", "method": "LOOKUP", "path": "", "scheme": ""}, Form.LOOKUP),
        ({"method": "CONNECT", "path": "", "scheme": PASSTHROUGH_SCHEME}, Form.PASSTHROUGH),
        ({"method": "CONNECT", "path": "", "scheme": TCP_SCHEME}, Form.RAW),
        ({"phase": "hello", "method": "CONNECT", "path": ""}, Form.TUNNEL),
    ],
)
def test_the_form_is_told_by_what_is_recorded(changes: dict[str, object], form: Form) -> None:
    attempt = a_key(**changes).attempt()

    assert attempt is not None
    assert attempt.form is form


@pytest.mark.parametrize(
    "target", ["*.example.com:443", "a\nb:443", "example.com", "[::1", "ex%61mple.com:443", ""]
)
def test_a_target_that_is_none_is_not_guessed(target: str) -> None:
    assert a_key(target=target).attempt() is None


@pytest.mark.parametrize(
    ("recorded", "path", "query"),
    [
        ("/x?token=secret", "/x", ""),
        ("/r/info/refs?service=git-receive-pack", "/r/info/refs", "service=git-receive-pack"),
        ("/r/info/refs?service=git-upload-pack", "/r/info/refs", ""),
    ],
)
def test_of_a_query_only_a_push_is_kept(recorded: str, path: str, query: str) -> None:
    attempt = a_key(path=recorded).attempt()

    assert attempt is not None
    assert (attempt.path, attempt.query) == (path, query)


@pytest.mark.parametrize(
    ("changes", "nowhere"),
    [
        ({"error": "dns-failed"}, True),
        ({"error": "connect-refused", "upstream": "203.0.113.5:443"}, False),
        ({"error": "client-closed"}, False),
        ({}, False),
    ],
)
def test_a_request_that_led_nowhere_is_told(changes: dict[str, object], *, nowhere: bool) -> None:
    assert a_key(**changes).came_to_nothing is nowhere
