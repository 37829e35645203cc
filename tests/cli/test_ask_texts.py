"""What a person types as an answer, and how a question looks."""

import pytest

from claude_proxy.cli.ask_texts import lines_of, reply_of_words, said_of
from claude_proxy.control.answers import AnswerError, Reply, Verdict

QUESTION = {
    "number": 3,
    "question": "GET https://a.test:443/\x1b[2Jpath",
    "run": "web",
    "method": "GET",
    "program": "sh",
    "user_agent": "curl\n",
    "waiting": 2,
    "tries": 2,
    "left_s": 29.4,
    "rule": "*",
    "rule_source": "--ask:1",
    "opens": "https://a.test ports 443 methods GET",
    "earlier": [{"answer": "once", "what": "read https://a.test:443", "ago_s": 125.0}],
}


@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        ("once", Reply(Verdict.ONCE)),
        (" O \n", Reply(Verdict.ONCE)),
        ("yes", Reply(Verdict.ONCE)),
        ("5", Reply(Verdict.TIMES, times=5)),
        ("5 times", Reply(Verdict.TIMES, times=5)),
        ("1h", Reply(Verdict.FOR, seconds=3600.0)),
        ("for 10m", Reply(Verdict.FOR, seconds=600.0)),
        ("2d", Reply(Verdict.FOR, seconds=172800.0)),
        ("this run", Reply(Verdict.RUN)),
        ("a", Reply(Verdict.ALWAYS)),
        ("n", Reply(Verdict.NO)),
        ("never", Reply(Verdict.NEVER)),
        ("", None),
        ("skip", None),
    ],
)
def test_an_answer_is_a_word_a_number_or_a_time(typed: str, reply: Reply | None) -> None:
    assert reply_of_words(typed) == reply


@pytest.mark.parametrize(
    "typed",
    ["what", "0", "-1", "99999999999999999999", "0s", "400d", "9999h", "1 h 2", "once more"],
)
def test_anything_else_is_asked_for_again(typed: str) -> None:
    with pytest.raises(AnswerError):
        reply_of_words(typed)


def test_a_question_shows_everything_and_nothing_leaves_its_line() -> None:
    lines = list(lines_of(QUESTION, "web", ["python"]))

    assert lines == [
        "Question 3: run web wants",
        "  GET https://a.test:443/\\x1b[2Jpath",
        "  program     sh, which calls itself curl\\x0a",
        "  waiting     2 requests, for 29 s more",
        "  asked by    * (--ask:1)",
        "  covered by  preset python",
        "  would open  https://a.test ports 443 methods GET, for run web",
        "  earlier     once to read https://a.test:443, 2 min ago",
    ]


def test_what_else_waits_for_the_answer_is_shown_and_the_rest_counted() -> None:
    requests = [{"method": "GET", "path": f"/{number}\n", "waiting": 1} for number in range(5)]

    lines = list(lines_of(QUESTION | {"requests": requests, "more_requests": 2}, "web", []))

    assert lines[2:7] == [
        *(f"  GET /{number}\\x0a" for number in range(1, 5)),
        "  and 2 more: they wait for this answer, too",
    ]


def test_what_an_answer_would_open_is_said_by_line() -> None:
    lines = list(lines_of(QUESTION, "web", [], ["opens:", "  GET of every path on https://a.test"]))

    assert lines[6:8] == [
        "  difference  opens:",
        "                GET of every path on https://a.test",
    ]


def test_one_request_is_not_said_to_be_several() -> None:
    assert said_of(Reply(Verdict.TIMES, times=1)) == "Allowed: 1 time"
    assert said_of(Reply(Verdict.TIMES, times=2)) == "Allowed: 2 times"
    assert said_of(Reply(Verdict.NEVER)) == "Denied: never"


def test_a_question_that_nothing_waits_for_says_so() -> None:
    late = QUESTION | {
        "waiting": 0,
        "user_agent": "",
        "run": None,
        "opens": None,
        "rule": None,
        "earlier": [],
    }

    lines = list(lines_of(late, "proxy-9051", []))

    assert lines[0] == "Question 3: a client of proxy-9051 wants"
    assert lines[3] == (
        "  waiting     nothing any more (2 requests asked); an answer serves its next try"
    )
    assert lines[4].endswith("as no rule can say it")


def test_a_client_cannot_push_what_counts_off_the_screen() -> None:
    agent = f"curl/8{' ' * 60}would open  https://other.test"
    question = QUESTION | {"question": f"GET https://a.test:443/{'x' * 9000}", "user_agent": agent}

    lines = list(lines_of(question, "web", []))

    assert lines[1].endswith("x... (8223 more characters, see --json)")
    assert lines[2].endswith("calls itself curl/8 would open https://other.test")
    assert max(map(len, lines)) < 1000
