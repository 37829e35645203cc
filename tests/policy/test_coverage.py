"""Laws of coverage: what a rule covers, widens or is denied by."""

import pytest

from claude_proxy.policy.coverage import covers, denials, first_covering, widened
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule
from tests.policy.cases import NOWHERE, deny, http, rule

WHOLE = rule("api.test")
READING = rule("api.test", methods=["GET", "HEAD"])


@pytest.mark.parametrize(
    ("wider", "narrower"),
    [
        (WHOLE, WHOLE),
        (WHOLE, READING),
        (rule(".test-host.example"), rule("a.test-host.example")),
        (rule("api.test", ports=[443, 8443]), rule("api.test", ports=[8443])),
        (READING, rule("api.test", methods=["GET"], paths=["/a"])),
        (rule("api.test", paths=["/a/**"]), rule("api.test", paths=["/a/b"])),
        (rule("api.test", paths=["/a/**"]), rule("api.test", paths=["/a/**"])),
        (rule("api.test", addresses=["10.0.0.1"]), WHOLE),
        (rule("10.0.0.0/8"), rule("10.1.2.3")),
    ],
)
def test_a_rule_covers_what_is_narrower_and_not_the_other_way(wider: Rule, narrower: Rule) -> None:
    assert covers(wider, narrower)
    assert wider == narrower or str(wider) == str(narrower) or not covers(narrower, wider)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (WHOLE, http("api.test")),
        (WHOLE, rule("api.test", ports=[8443])),
        (rule("api.test", paths=["/a/*"]), rule("api.test", paths=["/a/**"])),
        (rule("api.test", methods=["GET"]), rule("api.test", methods=["POST"])),
        (WHOLE, rule("api.test", addresses=["10.0.0.1"])),
        (WHOLE, rule("b.test")),
    ],
)
def test_a_rule_does_not_cover_what_is_beside_it(one: Rule, other: Rule) -> None:
    assert not covers(one, other)


def test_a_default_that_allows_covers_names_but_no_address() -> None:
    (everything,) = Policy().allowing_by_default(NOWHERE).allow

    assert covers(everything, READING)
    assert everything.pattern == HostPattern.every()
    assert not covers(everything, rule("10.1.2.3"))


def test_the_first_rule_that_covers_is_found() -> None:
    assert first_covering([READING, WHOLE], WHOLE) is WHOLE
    assert first_covering([READING], WHOLE) is None


def test_a_limited_rule_is_widened_by_what_it_does_not_cover() -> None:
    other = rule("b.test", methods=["GET"])

    assert list(widened([READING, other, WHOLE], WHOLE)) == [READING]
    assert list(widened([READING], rule("api.test", methods=["GET"]))) == []
    assert list(widened([rule("*.host.example", methods=["GET"])], rule("a.host.example")))


def test_denials_that_cover_all_of_a_rule_win_over_it() -> None:
    whole, part = deny("api.test"), deny("api.test", methods=["DELETE"])

    assert list(denials([whole, part], WHOLE)) == [whole]
    assert list(denials([part], rule("api.test", methods=["DELETE"]))) == [part]
    assert list(denials([deny("api.test", scheme=Scheme.HTTP)], WHOLE)) == []
    assert list(denials([deny("api.test", ports=[80])], WHOLE)) == []


def test_nothing_but_a_rule_for_tcp_covers_one() -> None:
    wanted = rule("a.test", scheme=RawScheme.TCP, ports=(22,))
    everything = rule("a.test", scheme=None, ports=None)

    assert not covers(everything, wanted)
    assert not covers(wanted, everything)
    assert covers(
        rule("*.test.example", scheme=RawScheme.TCP, ports=(22,)),
        rule("a.test.example", scheme=RawScheme.TCP, ports=(22,)),
    )
    assert list(denials([everything], wanted)) == [everything]
