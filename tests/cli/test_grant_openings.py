"""What a grant opens beyond a policy is said exactly, and never at length."""

from typing import Any, cast

import pytest

from claude_proxy.cli import grant_openings
from claude_proxy.cli.grant_openings import lines_beyond, lines_for_proxies, lines_of_question
from claude_proxy.config.allowlist import loader
from claude_proxy.control.client import Proxy
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.policy import Policy
from tests.policy.cases import rule

WIDE = rule("a.test", methods=["GET", "POST"])


def policy(text: str) -> Policy:
    return loader.load(text, name="a.yaml")


class Running:
    """Stands for a running proxy that is only named."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_only_what_the_list_does_not_allow_is_said() -> None:
    listed = policy("allow: [{host: a.test, methods: [GET]}]\n")

    assert lines_beyond(listed, [WIDE]) == ["opens:", "  POST of every path on https://a.test"]
    assert lines_beyond(policy("allow: [a.test]\n"), [WIDE]) == ["opens nothing"]
    assert lines_beyond(policy("allow: []\ndeny: [a.test]\n"), [WIDE]) == ["opens nothing"]


def test_many_lines_are_counted_and_a_long_list_is_not_compared() -> None:
    many = [rule(f"h{number}.test", paths=[f"/{number}"]) for number in range(20)]

    assert lines_beyond(Policy(), many)[-1] == "  and 15 more"
    assert lines_beyond(Policy(tuple(many) * 60), [WIDE]) == []
    assert lines_beyond(Policy(tuple(many) * 20), [rule("*.test")]) == []


def test_proxies_of_which_the_same_is_true_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_force(proxy: Proxy) -> Policy:
        if proxy.name == "gone":
            raise ClaudeProxyError("it has ended")
        return Policy()

    monkeypatch.setattr(grant_openings, "policy_in_force", in_force)
    proxies = [cast("Proxy", Running(name)) for name in ("one", "gone", "two")]

    assert next(lines_for_proxies(proxies, [WIDE])) == "  for one, two: opens:"


@pytest.mark.parametrize("question", [{}, {"opens_rules": None}, {"opens_rules": [{"host": 1}]}])
def test_of_a_question_that_no_rule_says_nothing_is_told(question: dict[str, Any]) -> None:
    assert lines_of_question(cast("Proxy", Running("web")), question) == []
