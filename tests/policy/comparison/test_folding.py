"""Laws of folding: what is left of a host below a wildcard stays inside the wildcard's line."""

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import opened


def test_what_was_missing_on_a_folded_host_is_kept() -> None:
    old = loader.load("allow: [{host: b.x.example, methods: [GET]}]", name="list.yaml")
    new = loader.load("allow: ['*.x.example']", name="list.yaml")

    [line] = opened(old, new)

    [part] = line.partly
    assert str(part.hosts) == "b.x.example"
    assert list(map(str, part.rest)) == [
        "every method but GET of every path on https://b.x.example"
    ]


def test_a_host_that_the_new_policy_treats_otherwise_keeps_its_line() -> None:
    old = loader.load("allow: []", name="list.yaml")
    new = loader.load(
        "allow: ['*.x.example']\ndeny: [{host: b.x.example, methods: [POST]}]", name="list.yaml"
    )

    assert list(map(str, opened(old, new))) == [
        "every request to https://*.x.example but b.x.example",
        "every method but POST of every path on https://b.x.example",
    ]
