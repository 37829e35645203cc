"""Laws of the summary: what was denied, how often, and the line that would allow just that."""

from typing import Any

import pytest

from claude_proxy.audit.denials import SHOWN, Denials, DeniedRow, attempts, summary
from tests.audit.examples import a_denial


def a_row(**changes: Any) -> DeniedRow:
    facts: dict[str, Any] = {
        "phase": "connect",
        "scheme": "",
        "target": "api.example:443",
        "method": "CONNECT",
        "path": "",
        "reason": "no-rule",
        "rule_source": None,
    }
    return DeniedRow(**facts | changes)


def a_request(**changes: Any) -> DeniedRow:
    facts: dict[str, Any] = {
        "phase": "request",
        "scheme": "https",
        "method": "POST",
        "path": "/graphql?a=secret",
        "reason": "method-not-allowed",
    }
    return a_row(**facts | changes)


def lines_of(*rows: DeniedRow, options: tuple[str, ...] = ()) -> list[str]:
    return summary(rows, options=options, more="claude-proxy log --denied", heading="denied: {}")


def test_nothing_is_said_when_nothing_was_denied() -> None:
    assert lines_of() == []


def test_equal_denials_are_one_line_with_a_count_and_the_command() -> None:
    assert lines_of(a_row(times=3), a_row()) == [
        "denied: 4 attempts",
        "  4x api.example:443 (no-rule): claude-proxy allow api.example",
    ]


def test_a_denied_method_is_named_with_its_path_and_without_its_query() -> None:
    (_, line) = lines_of(a_request())

    what, _, command = line.partition(": claude-proxy ")
    assert what == "  1x POST https://api.example/graphql (method-not-allowed)"
    assert command == "allow api.example --method POST --path /graphql"


def test_a_denied_push_is_advised_as_the_request_that_would_follow() -> None:
    row = a_request(
        method="GET", path="/o/r.git/info/refs?service=git-receive-pack", reason="path-not-allowed"
    )

    (_, line) = lines_of(row)

    assert "GET https://api.example/o/r.git/info/refs?service=git-receive-pack" in line
    assert line.endswith("--method POST --path /o/r.git/git-receive-pack")


def test_requests_to_a_host_that_no_rule_covers_are_one_kind() -> None:
    same = a_request(scheme="http", target="a.example:80", reason="no-rule")
    rows = [same._replace(path=f"/{at}") for at in "abc"]

    assert lines_of(*rows)[1:] == [
        "  3x http://a.example (no-rule): claude-proxy allow http://a.example"
    ]


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (a_row(reason="deny-rule", rule_source="list.yaml:7"), "denied by list.yaml:7"),
        (a_row(target="127.0.0.1:80"), "your client's own setting"),
        (
            a_row(phase="dial", reason="address-not-allowed", address="10.1.2.3:443"),
            "claude-proxy allow api.example --address 10.1.2.3",
        ),
        (a_row(target="evil.example:80"), "claude-proxy allow http://evil.example"),
        (a_row(reason="sni-mismatch"), "(sni-mismatch)"),
        (a_row(reason="of-a-later-version"), "(of-a-later-version)"),
        (a_row(target="no target"), "(no-rule)"),
    ],
)
def test_each_kind_says_what_helps_and_nothing_wider(row: DeniedRow, end: str) -> None:
    (line,) = lines_for(row)

    assert line.endswith(end)


def lines_for(row: DeniedRow) -> list[str]:
    denials = Denials()
    denials.add(row)
    return list(denials.lines())


def test_a_tunnel_of_any_protocol_is_advised_as_one() -> None:
    raw = {"scheme": "tcp", "target": "db.example:5432"}

    private = a_row(**raw, phase="dial", reason="address-not-allowed", address="10.20.0.7:5432")
    http = a_row(**raw, phase="hello", reason="not-tls")

    assert "allow tcp://db.example:5432 --address 10.20.0.7" in lines_for(private)[-1]
    assert "does not pass where an entry is for tcp" in lines_for(http)[-1]


def test_the_most_frequent_are_shown_and_the_rest_is_counted() -> None:
    rows = [a_row(target=f"h{at}.example:443", times=at) for at in range(1, SHOWN + 3)]

    lines = lines_of(*rows)

    assert lines[1].startswith(f"  {SHOWN + 2}x ")
    assert len(lines) == SHOWN + 2
    assert lines[-1] == "  and 3 more: claude-proxy log --denied"


def test_the_option_that_names_the_list_is_in_every_command() -> None:
    (_, line) = lines_of(a_row(), options=("--policy", "acme"))

    assert line.endswith("claude-proxy allow api.example --policy acme")


def test_a_flood_of_names_is_counted_and_not_kept() -> None:
    denials = Denials()
    for at in range(2000):
        denials.add(a_row(target=f"h{at}.example:443"))

    assert denials.total == 2000
    assert denials.hidden() == 2000 - SHOWN
    assert len(list(denials.lines(shown=10_000))) < 1000


def test_what_a_client_sent_stays_in_its_line() -> None:
    (line,) = lines_for(a_row(target="a\x1b[2J\nb:443", reason="invalid-target"))

    assert line.isprintable()


def test_a_row_is_made_of_a_decision() -> None:
    assert DeniedRow.of(a_denial(target="a.example:443", method="GET")).target == "a.example:443"


def test_one_attempt_is_not_several() -> None:
    assert (attempts(1), attempts(2)) == ("1 attempt", "2 attempts")


def test_each_command_is_named_once_the_most_frequent_first() -> None:
    denials = Denials()
    for row in (a_row(), a_row(target="b.example:443", times=2), a_row(reason="deny-rule")):
        denials.add(row)

    assert denials.commands() == ["claude-proxy allow b.example", "claude-proxy allow api.example"]
    assert denials.commands(shown=1) == ["claude-proxy allow b.example"]
