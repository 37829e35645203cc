"""Laws of one side of a comparison."""

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.comparison.sides import Side


def side(text: str) -> Side:
    return Side(loader.load(text, name="list.yaml"))


def test_hosts_that_are_treated_alike_say_the_same() -> None:
    one = side("allow: ['*.example.com', a.example.org]")

    assert one.at("a.example.com").says() == one.at("b.example.com").says()
    assert one.at("a.example.com").says() != one.at("a.example.org").says()


def test_notes_and_places_say_nothing() -> None:
    plain, noted = side("allow: [a.example]"), side("allow:\n  - {host: a.example, note: why}")

    assert plain.at("a.example").says() == noted.at("a.example").says()


def test_a_host_that_takes_a_bound_apis_accounts_has_its_binding() -> None:
    key = "credentials: [{host: api.anthropic.com, inject: auto, from: {env: KEY}}]"
    bound = side(f"allow: [api.anthropic.com, claude.ai]\n{key}")

    assert bound.at("claude.ai").bindings == bound.at("api.anthropic.com").bindings != []
