"""The report says all that is proposed, and prints nothing that a client sent as it is."""

from ipaddress import ip_address
from pathlib import Path

from claude_proxy.cli.learn_report import Report, json_lines, lines
from claude_proxy.cli.list_edit import EditedList
from claude_proxy.config.allowlist import loader
from claude_proxy.policy.learned_list import Choice, Learned, Seen, learn
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

LIST = EditedList(Path("/conf/allowlist.yaml"), Path("/conf"), "allow: []\n", ())


def seen(target: str, path: str = "", *, allowed: bool = True, form: Form = Form.REQUEST) -> Seen:
    attempt = RecordedAttempt(
        form,
        Scheme.HTTPS,
        Authority.parse(target),
        "GET" if path else "",
        path,
        address=ip_address("93.184.216.34"),
    )
    reason = "rule-matched" if allowed else "path-not-allowed"
    return Seen(attempt, f"GET https://{target}{path}", allowed, reason, nowhere=False, times=2)


def report(*all_seen: Seen) -> Report:
    found = learn(all_seen, Policy(), {}, Choice())
    return Report(found, LIST, "allow: []\n", "allow: []\n", applied=False, backup=None)


def test_counts_differences_and_the_first_are_said() -> None:
    said = list(lines(report(*(seen("a.example:443", f"/x/{each}") for each in (1, 2, 3)))))

    assert "  https://a.example" in said
    assert "    GET /x/<number>  6 attempts, 3 different, the first /x/1" in said


def test_what_was_denied_is_marked() -> None:
    said = list(lines(report(seen("a.example:443", "/x", allowed=False))))

    assert "      2 attempts of these denied when they were made" in said


def test_what_only_a_grant_or_an_answer_allowed_is_marked() -> None:
    found = report(seen("a.example:443", "/x")._replace(granted=True))

    said = list(lines(found))

    assert "      2 attempts of these allowed by a grant or an answer, not by the list" in said
    assert '"granted": 2' in "\n".join(json_lines(found))


def test_what_the_list_asks_about_is_counted_and_not_called_allowed() -> None:
    policy = loader.load("allow: [{host: a.example, ask: true}]", name="x")
    found = learn([seen("a.example:443", "/x")], policy, {}, Choice())
    shown = Report(found, LIST, "allow: []\n", "allow: []\n", applied=False, backup=None)

    assert next(lines(shown)).endswith("allows 0 of them already, and asks about 2.")
    assert [str(entry.rule.pattern) for entry in found.written] == ["a.example"]


def test_what_is_not_written_says_how_it_would_be() -> None:
    said = "\n".join(lines(report(seen("a.example:443", form=Form.TUNNEL))))

    assert "not written without --include hosts" in said


def test_what_a_client_sent_is_escaped() -> None:
    odd = Seen(
        None, "tunnel \x1b[2J\n:443", allowed=False, reason="invalid-target", nowhere=False, times=1
    )

    said = "\n".join(lines(report(odd)))

    assert "\x1b" not in said
    assert "tunnel \\x1b[2J\\x0a:443" in said


def test_an_empty_record_is_no_mistake() -> None:
    empty = Report(Learned(), LIST, "allow: []\n", "allow: []\n", applied=False, backup=None)

    assert list(lines(empty))[-1] == "/conf/allowlist.yaml stays as it is: nothing is to be added."
    assert '"attempts": 0' in "\n".join(json_lines(empty))
