"""What a proxy says of itself: the version of its policy, and who has tunnels where."""

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.policy import Policy
from claude_proxy.server.control_status import tunnels_of, version_of


def policy(text: str, name: str = "a.yaml") -> Policy:
    return loader.load(text, name=name)


def test_the_same_entries_have_the_same_version_wherever_they_are_written() -> None:
    one = policy("allow: [a.example]\ndeny: [b.example]\n", "a.yaml")
    other = policy("# a comment\n\nallow:\n  - a.example\ndeny:\n  - b.example\n", "b.yaml")

    assert version_of(one) == version_of(other)


def test_any_other_entry_is_another_version() -> None:
    texts = [
        "allow: [a.example]\n",
        "allow: [b.example]\n",
        "allow: []\n",
        "allow: [{host: a.example, methods: [GET]}]\n",
        "allow: [{host: a.example, paths: [/a]}]\n",
        "allow: [a.example]\ndeny: [b.example]\n",
        "allow: [{host: a.example, ports: [8443]}]\n",
    ]

    assert len({version_of(policy(text)) for text in texts}) == len(texts)


def test_tunnels_are_counted_by_run_and_target() -> None:
    keys = [("web", "a.example:443")] * 3 + [(None, "b.example:443"), None]

    named, more = tunnels_of(keys)

    assert named == [
        {"run": "web", "target": "a.example:443", "count": 3},
        {"run": None, "target": "b.example:443", "count": 1},
    ]
    assert more == 0


def test_more_tunnels_than_can_be_listed_are_counted() -> None:
    named, more = tunnels_of([(None, f"h{number}.example:443") for number in range(700)])

    assert len(named) + more == 700
    assert more == 200
