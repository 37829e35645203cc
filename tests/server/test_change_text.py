"""Laws of what is said about a policy that was reloaded."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.policy import Policy
from claude_proxy.server.change_text import NO_CHANGE, entries_text, opened_text


def listed(text: str) -> Policy:
    return loader.load(text, name="list.yaml")


def test_entries_are_listed_and_many_are_counted() -> None:
    assert entries_text((), ()) == NO_CHANGE
    assert entries_text(("a", "b"), ("c",)) == "+ a, + b, - c"
    assert entries_text(("a",) * 12, ()).endswith("+ a and 2 more")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("allow: [a.example]", "allow: [b.example]", "opens every request to https://b.example"),
        ("allow: ['*.example.com']", "allow: ['*.example.com', a.example.com]", "opens nothing"),
        (
            "allow: [a.example]\ndeny: [a.example]",
            "allow: [a.example]",
            "opens every request to https://a.example",
        ),
    ],
)
def test_what_is_opened_is_said(old: str, new: str, text: str) -> None:
    assert opened_text(listed(old), listed(new), 1) == text


def test_nothing_is_said_about_what_did_not_change_or_is_too_much() -> None:
    policy = listed("allow: [a.example]")

    assert opened_text(Policy(), policy, 0) == ""
    assert opened_text(Policy(), policy, 1000) == ""
