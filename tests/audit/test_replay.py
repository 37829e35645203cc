"""A replay says what would be decided differently, and judges nothing that it cannot."""

import pytest

from claude_proxy.audit.recorded_attempts import PlainRow
from claude_proxy.audit.replay import Change, Replay
from claude_proxy.config.allowlist import loader

POLICY = loader.load(
    """\
allow:
  - {host: a.example.com, methods: [GET]}
  - {host: b.example.com, methods: [GET], paths: [/v1/*]}
  - {host: c.example.com, methods: [GET]}
""",
    name="new.yaml",
)
PUBLIC = "93.184.216.34:443"


def row(
    target: str = "a.example.com",
    path: str = "/x",
    method: str = "GET",
    *,
    run: str | None = "r",
    allowed: bool = True,
    reason: str | None = None,
    error: str | None = None,
    upstream: str | None = PUBLIC,
    times: int = 1,
) -> PlainRow:
    why = reason or ("rule-matched" if allowed else "no-rule")
    place = (1, 7, times, run)
    return (
        *place,
        "request",
        "https",
        f"{target}:443",
        method,
        path,
        allowed,
        why,
        error,
        upstream,
        False,
    )


def replayed(*rows: PlainRow) -> Replay:
    replay = Replay(POLICY)
    replay.judge(rows)
    return replay


def counts(replay: Replay, run: str = "r") -> dict[Change, int]:
    found = replay.counts(run) if run in replay.runs() else {}
    return {change: times for change, times in found.items() if times}


@pytest.mark.parametrize(
    ("recorded", "change"),
    [
        (row(), None),
        (row(method="POST"), Change.DENIED),
        (row("b.example.com", "/v1/x"), None),
        (row("b.example.com", "/v2/x"), Change.DENIED),
        (row("other.example.com"), Change.DENIED),
        (row(allowed=False), Change.ALLOWED),
        (row("other.example.com", allowed=False), None),
        (row("b.example.com", "/v2/x", allowed=False), Change.OTHER_REASON),
        (row(upstream="10.1.2.3:443"), Change.DENIED),
        (row(allowed=False, reason="address-not-allowed", upstream="10.1.2.3:443"), None),
        (row("b.example.com", "/v1/a/b", error="client-closed"), Change.DENIED),
        (row("a.example.com", "/r/info/refs?service=git-receive-pack"), Change.DENIED),
    ],
)
def test_what_would_change_is_told(recorded: PlainRow, change: Change | None) -> None:
    replay = replayed(recorded, recorded, recorded)

    assert replay.attempts == 3
    assert counts(replay) == ({} if change is None else {change: 3})


ASKING = loader.load(
    """\
allow:
  - {host: a.example.com, ask: true}
  - {host: b.example.com, ask: true, paths: [/v1/*]}
deny:
  - {host: a.example.com, paths: [/secret/**]}
""",
    name="asking.yaml",
)


@pytest.mark.parametrize(
    ("recorded", "change"),
    [
        *(
            (row(allowed=False, reason=reason), None)
            for reason in ("ask", "not-answered", "owner-refused", "too-many-questions")
        ),
        (row(reason="answered"), None),
        (row(reason="ask", path="", method="CONNECT"), None),
        (row("b.example.com", "/v2/x", reason="answered"), Change.DENIED),
        (row("b.example.com", "/v1/x", reason="answered"), None),
        (row("b.example.com", "/v1/x"), Change.ASKED),
        (row(), Change.ASKED),
        ((*row()[:-1], True), None),
        (row(allowed=False), Change.ASKED),
        (row(path="/secret/x", allowed=False, reason="deny-rule"), None),
        (row(path="/secret/x", allowed=False, reason="not-answered"), Change.OTHER_REASON),
        (row(reason="answered", upstream="10.1.2.3:443"), Change.DENIED),
    ],
)
def test_what_would_be_asked_about_again_is_no_change(
    recorded: PlainRow, change: Change | None
) -> None:
    replay = Replay(ASKING)
    replay.judge([row("b.example.com", "/v1/other", reason="answered"), recorded])

    assert counts(replay) == ({} if change is None else {change: 1})


@pytest.mark.parametrize("reason", ["host-mismatch", "foreign-credential", "client-not-allowed"])
def test_what_was_decided_by_something_unrecorded_is_not_judged_again(reason: str) -> None:
    replay = replayed(row(allowed=False, reason=reason))

    assert (replay.runs(), dict(replay.not_judged)) == ([], {reason: 1})


def test_changes_are_listed_by_run_the_most_frequent_first() -> None:
    replay = Replay(POLICY)
    replay.judge(
        [
            row("x.example.com", run="one"),
            row("y.example.com", run="two", times=2),
            row("z.example.com", run="two", times=5),
            row("z.example.com", run=None),
        ]
    )

    assert replay.runs() == ["two", "one", None]
    assert [(each.subject, each.times, each.now) for each in replay.changed("two", 1)] == [
        ("GET https://z.example.com/x", 5, "no-rule")
    ]


def test_an_answer_for_one_path_is_not_given_for_another_where_paths_are_judged() -> None:
    replay = replayed(row("b.example.com", "/v1/x"), row("b.example.com", "/v2/x"))

    assert [each.subject for each in replay.changed("r", 9)] == ["GET https://b.example.com/v2/x"]


def test_a_replay_agrees_with_each_request_judged_by_itself() -> None:
    rows = [
        row(f"{host}.example.com", path, method, upstream=upstream)
        for host in "abcd"
        for path in ("/v1/x", "/v2/x", "/a;b", "/r/info/refs?service=git-receive-pack")
        for method in ("GET", "POST", "HEAD")
        for upstream in (None, PUBLIC, "127.0.0.1:443")
    ]

    together = counts(replayed(*rows))

    assert together[Change.DENIED] == sum(
        counts(replayed(each)).get(Change.DENIED, 0) for each in rows
    )
