"""Port mappings that cannot be together are refused before anything starts."""

import pytest

from claude_proxy.config.port_mappings import Published, parse_forward, parse_publish
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.port_checks import MOST, check


def checked(forwards: str, published: str) -> None:
    parsed = [parse_publish(text) for text in published.split()]
    check(
        [parse_forward(text) for text in forwards.split()],
        [one for one in parsed if isinstance(one, Published)],
    )


@pytest.mark.parametrize(
    ("forwards", "published"),
    [
        ("", ""),
        ("5432=db:5432 6379=db:6379", "3000:3000 3001:3001"),
        ("5432=db:5432 127.0.0.2:5432=other:5432", ""),  # two databases, each on its own address
        ("5432=host:5432", "0:3000 0:3000"),
        ("", "3000:3000 [::1]:3000:3000"),
    ],
)
def test_mappings_of_different_ports_go_together(forwards: str, published: str) -> None:
    checked(forwards, published)


@pytest.mark.parametrize(
    ("forwards", "published", "what"),
    [
        ("3128=db:5432", "", "is the run's proxy"),
        ("1080=db:5432", "", "is the run's SOCKS5 proxy"),
        ("127.0.0.2:53=db:53", "", "answers lookups of names"),
        ("9053=db:1", "", "is the run's gateway"),
        ("", "8080:3128", "is the run's proxy"),
        ("5432=db:5432 5432=other:5432", "", "would lead to two places"),
        ("", "3000:3000 3000:4000", "would be listened on twice"),
        ("5432=db:5432", "5432:5432", "is a listener of --forward"),
        ("5432=host:3000", "3000:8080", "leads back into the run"),
    ],
)
def test_mappings_that_would_take_a_port_away_or_lead_back_are_refused(
    forwards: str, published: str, what: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(forwards, published)

    assert what in refused.value.what
    assert refused.value.where
    assert refused.value.fix


def test_more_mappings_than_one_message_can_carry_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than"):
        checked(" ".join(f"{port}=db:1" for port in range(2000, 2001 + MOST)), "")
