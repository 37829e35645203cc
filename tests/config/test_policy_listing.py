"""Laws of the list of policies: what a file says is shown, and obeyed by no terminal."""

from claude_proxy.config.allowlist.loader import read
from claude_proxy.config.policy_listing import lines_of_policies, lines_of_policy

MINE = read(
    'description: "a\\u001b[31m b"\ndefault: allow\nprofile: claude\n'
    "allow: [a.test]\ndeny: [d.test]\n",
    name="mine.yaml",
)
NONE = read("network: none\n", name="none.yaml")


def test_policies_are_listed_in_columns() -> None:
    assert lines_of_policies([("mine", MINE), ("nothing", NONE)]) == [
        "mine     proxy, allow  a\\x1b[31m b",
        "nothing  none",
    ]


def test_a_policy_is_shown_with_every_rule() -> None:
    assert lines_of_policy("mine", MINE) == [
        "mine: a\\x1b[31m b",
        "  from:    mine.yaml",
        "  network: proxy, allow",
        "  profile: claude",
        "  allow https://a.test ports 443 (mine.yaml:4)",
        "  allow * (mine.yaml:2)",
        "  deny d.test (mine.yaml:5)",
    ]


def test_a_policy_without_a_description_ends_with_its_name() -> None:
    assert lines_of_policy("nothing", NONE)[0] == "nothing"
