"""Laws of openings as text and as values."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import opened
from claude_proxy.policy.policy import Policy


def lines(new: str, old: str = "allow: []") -> list[str]:
    policies = (loader.load(text, name="list.yaml") for text in (old, new))
    return list(map(str, opened(*policies)))


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("a.example", "every request to https://a.example"),
        ("{host: a.example, scheme: http}", "every request to http://a.example"),
        ("{host: a.example, ports: [8443]}", "every request to https://a.example:8443"),
        ("{host: a.example, methods: [GET]}", "GET of every path on https://a.example"),
        ("{host: a.example, paths: [/a/*]}", "every method of /a/* on https://a.example"),
        ("{host: a.example, methods: [GET], paths: [/a]}", "GET /a on https://a.example"),
        ("'2606:4700::1'", "every request to https://[2606:4700::1]"),
        (
            "{host: a.example, ports: [1001, 1002, 1003, 1004, 1005]}",
            "every request to https://a.example at ports 1001-1005",
        ),
        (
            "{host: a.example, scheme: tcp, ports: [5432]}",
            "bytes of any protocol but HTTP to tcp://a.example:5432",
        ),
    ],
)
def test_an_entry_is_shown_as_a_person_would_say_it(entry: str, text: str) -> None:
    assert lines(f"allow: [{entry}]") == [text]


def test_everything_is_one_line() -> None:
    assert lines("default: allow") == [
        "every request to every public host at every port (http and https)"
    ]


def test_a_wildcard_over_hosts_that_were_allowed_in_part_is_one_line() -> None:
    old = "allow: [a.x.example, {host: b.x.example, methods: [GET]}]"

    assert lines("allow: ['*.x.example']", old) == [
        "every request to https://*.x.example, except what both allow"
    ]


def test_many_exceptions_are_counted() -> None:
    deny = ", ".join(f"h{number}.x.example" for number in range(9))

    [line] = lines(f"allow: ['*.x.example']\ndeny: [{deny}]")

    assert line.endswith("and 3 more")


def test_values_for_json_have_no_text_to_parse() -> None:
    text = "allow: [{host: a.example, methods: [GET], paths: [/a]}]"
    [found] = opened(Policy(), loader.load(text, name="list.yaml"))

    facts = found.facts()
    assert (facts["kind"], facts["host"], facts["methods"]) == ("requests", "a.example", ["GET"])
    assert facts["paths"][0]["match"] == ["/a"]
