"""Laws of the lines about a change of a policy."""

from claude_proxy.cli.difference_lines import facts_of, lines_of, opened_lines
from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import Difference, difference
from claude_proxy.policy.policy import Policy

MANY = loader.load(f"allow: [{', '.join(f'h{n}.example' for n in range(9))}]", name="list.yaml")


def test_nothing_is_said_in_so_many_words() -> None:
    assert list(lines_of(Difference())) == ["opens nothing"]


def test_more_lines_than_wanted_are_counted() -> None:
    found = difference(Policy(), MANY)

    assert list(lines_of(found, most=2))[-1] == "  and 7 more"
    assert len(list(lines_of(found))) == 10


def test_what_is_closed_is_left_out_where_only_openings_are_wanted() -> None:
    found = difference(MANY, Policy())

    assert list(opened_lines(found)) == ["opens nothing"]
    assert len(facts_of(found)["closes"]) == 9
