"""Laws of rules: one that cannot be enforced cannot be created."""

from dataclasses import replace

import pytest

from claude_proxy.policy.patterns import PathGlob
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import OVERRIDE_HEADERS, Tls
from tests.policy.cases import deny, rule


@pytest.mark.parametrize(
    "fault",
    [
        {"ports": frozenset()},
        {"methods": frozenset()},
        {"paths": ()},
        {"ports": frozenset({0})},
        {"ports": frozenset({443, 65536})},
        {"methods": frozenset({"GET", "get"})},
        {"methods": frozenset({"GET POST"})},
        {"tls": Tls.PASSTHROUGH, "methods": frozenset({"GET"})},
        {"tls": Tls.PASSTHROUGH, "paths": (PathGlob("/"),)},
        {"tls": Tls.PASSTHROUGH, "scheme": Scheme.HTTP},
        {"tls": Tls.PASSTHROUGH, "scheme": None},
    ],
)
def test_a_rule_that_cannot_be_enforced_cannot_exist(fault: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"the rule for example\.com"):
        replace(rule("example.com"), **fault)  # type: ignore[arg-type]


def test_a_rule_prints_its_whole_content_in_one_line() -> None:
    full = rule(
        "*.example.com",
        ports=(8443, 443),
        methods=("GET", "HEAD"),
        paths=("/a/**",),
        addresses=("10.0.0.0/8",),
    )

    assert str(full) == (
        "https://*.example.com ports 443,8443 methods GET,HEAD paths /a/** addresses 10.0.0.0/8"
    )
    assert str(rule("a.test", tls=Tls.PASSTHROUGH)) == "https://a.test ports 443 passthrough"
    assert str(deny("a.test")) == "a.test"


def test_override_headers_are_named_in_lower_case() -> None:
    assert {b"x-http-method-override", b"x-original-url", b"x-rewrite-url"} <= OVERRIDE_HEADERS
    assert all(name == name.lower() for name in OVERRIDE_HEADERS)
