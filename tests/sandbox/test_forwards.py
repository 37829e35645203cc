"""A forward that no rule allows is said at the start, with the line that allows it."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.port_mappings import parse_forward
from claude_proxy.policy.host_services import with_host_services
from claude_proxy.policy.policy import Policy
from claude_proxy.sandbox import forwards


def policy_of(text: str) -> Policy:
    return with_host_services(loader.read(text, name="allowlist.yaml").policy, [11434])


def warnings(text: str, forward: str) -> list[str]:
    return [*forwards.warnings([parse_forward(forward)], policy_of(text))]


def test_a_forward_that_a_rule_allows_needs_no_warning() -> None:
    rule = "allow: [{host: db.corp, ports: [5432], scheme: tcp}]"

    assert warnings(rule, "5432=db.corp:5432") == []
    assert warnings(rule, "15432=db.corp:5432") == []


@pytest.mark.parametrize(
    "rules",
    [
        "allow: [example.com]",
        "allow: [db.corp]",
        "allow: [{host: db.corp, ports: [5432]}]",  # for TLS alone
        "allow: [{host: db.corp, ports: [5433], scheme: tcp}]",
        "allow: [{host: db.corp, ports: [5432], tls: passthrough}]",  # for TLS too
    ],
)
def test_a_forward_that_no_rule_allows_is_said_with_what_would(rules: str) -> None:
    (warning,) = warnings(rules, "5432=db.corp:5432")

    assert warning.startswith("--forward 5432=db.corp:5432 leads nowhere until a rule allows it; ")
    assert warning.endswith("; to allow it: claude-proxy allow tcp://db.corp:5432")


def test_a_forward_to_a_port_of_the_web_says_what_passes_there() -> None:
    (warning,) = warnings("allow: [git.corp]", "8443=git.corp:443")

    assert "only TLS and HTTP" in warning
    assert "HTTPS_PROXY" in warning


def test_a_forward_that_a_deny_rule_denies_names_the_rule() -> None:
    (warning,) = warnings("deny: [db.corp]", "5432=db.corp:5432")

    assert warning.endswith("the deny rule at allowlist.yaml:1 denies db.corp:5432")


def test_a_service_of_this_machine_needs_no_rule_but_a_denial_wins() -> None:
    assert warnings("allow: [example.com]", "11434=host:11434") == []
    for denied in ("localhost", "127.0.0.0/8", '"::1"'):
        (warning,) = warnings(f"deny: [{denied}]", "11434=host:11434")
        assert "the deny rule at allowlist.yaml:1 denies port 11434 of this" in warning


def test_each_forward_is_recorded_at_the_start() -> None:
    given = [parse_forward("5432=db.corp:5432"), parse_forward("[::1]:8080=host:11434")]

    assert [(notice.run, notice.text) for notice in forwards.notices(given, "sleepy")] == [
        ("sleepy", "run sleepy: 127.0.0.1:5432 inside leads to db.corp:5432"),
        (
            "sleepy",
            "run sleepy: [::1]:8080 inside leads to port 11434 of this machine's loopback",
        ),
    ]
    assert forwards.places(given) == [("127.0.0.1", 5432), ("::1", 8080)]
    assert len([*forwards.lines(given)]) == 2
