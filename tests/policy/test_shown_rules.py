"""Rules as a person reads them say a port where it is not the scheme's own."""

import pytest

from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, RuleScheme
from claude_proxy.policy.shown_rules import shown
from tests.policy.cases import rule


@pytest.mark.parametrize(
    ("scheme", "ports", "text"),
    [
        (Scheme.HTTPS, (443,), "https://a.test"),
        (Scheme.HTTP, (80,), "http://a.test"),
        (Scheme.HTTPS, (80,), "https://a.test ports 80"),
        (Scheme.HTTPS, (443, 8443), "https://a.test ports 443,8443"),
        (RawScheme.TCP, (443,), "tcp://a.test ports 443"),
    ],
)
def test_the_port_of_the_scheme_goes_without_saying(
    scheme: RuleScheme, ports: tuple[int, ...], text: str
) -> None:
    assert shown(rule("a.test", scheme=scheme, ports=ports)) == text


def test_methods_are_kept() -> None:
    assert shown(rule("a.test", methods=["GET"])).endswith("a.test methods GET")
