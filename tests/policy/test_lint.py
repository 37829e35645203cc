"""Laws of what lint finds in a list."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.lint import FindingKind, findings
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority


def listed(text: str) -> Policy:
    return loader.load(text, name="list.yaml")


def request(host: str, method: str = "GET", path: str = "/") -> tuple[RecordedAttempt, int]:
    return RecordedAttempt(Form.REQUEST, Scheme.HTTPS, Authority.of(host, 443), method, path), 1


def found(policy: Policy, *attempts: tuple[RecordedAttempt, int]) -> list[tuple[str, int]]:
    return [(each.kind.value, each.rule.source.line) for each in findings(policy, attempts)]


def test_a_rule_that_nothing_used_is_unused() -> None:
    policy = listed("allow:\n  - {host: a.example, methods: [GET]}\n  - b.example\n")

    assert found(policy, request("a.example")) == [("unused", 3)]


def test_without_a_record_nothing_is_said_about_use() -> None:
    policy = listed("allow:\n  - a.example\n  - b.example\n")

    assert list(findings(policy, None)) == []


def test_a_preset_is_unused_as_a_whole() -> None:
    policy = listed("allow:\n  - preset: npm\n  - {host: a.example, methods: [GET]}\n")

    kinds = list(findings(policy, [request("a.example")]))
    assert {each.kind for each in kinds} == {FindingKind.UNUSED}
    assert "npm" in {each.preset for each in kinds}
    assert len({each.preset for each in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("entry", "attempt", "text"),
    [
        ('"*.a.example"', request("x.a.example"), "only x.a.example"),
        ("a.example", request("a.example"), "only GET"),
        ("{host: a.example, ports: [443, 8443], methods: [GET]}", request("a.example"), "port 443"),
        ("{host: a.example, methods: [GET, POST]}", request("a.example", "POST"), "only POST"),
    ],
)
def test_a_rule_is_wider_than_used_where_less_would_have_been_enough(
    entry: str, attempt: tuple[RecordedAttempt, int], text: str
) -> None:
    [each] = findings(listed(f"allow:\n  - {entry}\n"), [attempt])

    assert each.kind is FindingKind.WIDER
    assert text in each.what


# By no rule alone, so that no comparison of two rules finds it.
BY_TWO_TOGETHER = """
allow: [{host: a.example, methods: [GET]},
  {host: a.example, methods: [PUT]},
  {host: a.example, methods: [GET, PUT]}]
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('allow:\n  - a.b.example\n  - "*.b.example"\n', [2]),
        ("allow:\n  - a.example\n  - a.example\n", [3]),
        ("allow:\n  - a.example\ndeny:\n  - a.example\n", [2]),
        ("allow:\n  - {host: a.example, methods: [GET]}\n  - a.example\n", [2]),
        (BY_TWO_TOGETHER, [4]),
        ("allow:\n  - a.example\n  - b.example\n  - c.b.example\n", []),
        ("allow:\n  - a.example\n  - {host: a.example, scheme: http}\n", []),
        ("allow:\n  - a.example\ndeny:\n  - {host: a.example, paths: [/x]}\n", []),
        ('allow:\n  - a.example\ndeny:\n  - "10.0.0.0/8"\n', []),
        ('allow:\n  - "10.1.0.0/16"\ndeny:\n  - "10.0.0.0/8"\n', [2]),
    ],
)
def test_a_rule_that_adds_nothing_is_shadowed(text: str, lines: list[int]) -> None:
    shadowed = [
        each.rule.source.line
        for each in findings(listed(text), None)
        if each.kind is FindingKind.SHADOWED
    ]

    assert shadowed == lines


def test_a_wildcard_over_a_shared_place_is_found_unless_that_is_denied() -> None:
    open_list = 'allow:\n  - {host: "*.github.com", methods: [GET]}\n'
    denied = "deny: [gist.github.com, codeload.github.com, uploads.github.com]\n"

    assert [each.kind for each in findings(listed(open_list), None)] == [FindingKind.SHARED]
    assert list(findings(listed(open_list + denied), None)) == []
