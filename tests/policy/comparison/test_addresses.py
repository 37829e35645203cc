"""Laws of the addresses that names may lead to."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import opened

HOST = "host: a.example, addresses"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("allow: [a.example]", "allow: [{%s: [10.1.2.3]}]", "10.1.2.3 as the address of a.example"),
        (
            "allow: [{%s: ['10.1.0.0/16']}]",
            "allow: [{%s: ['10.0.0.0/8']}]",
            "10.0.0.0/8 but 10.1.0.0/16 as the address of a.example",
        ),
        (
            "allow: [a.example]\ndeny: ['8.8.8.0/24']",
            "allow: [a.example]",
            "8.8.8.0/24 as the address of every allowed name",
        ),
        (
            "allow: [a.example]",
            "allow: [{%s: [8.8.8.8]}]",
            "8.8.8.8, if it is of this machine, as the address of a.example",
        ),
    ],
)
def test_an_address_is_named_with_the_names_that_may_lead_there(
    old: str, new: str, text: str
) -> None:
    policies = (loader.load(each.replace("%s", HOST), name="list.yaml") for each in (old, new))

    assert list(map(str, opened(*policies))) == [text]


def test_a_private_network_that_is_no_longer_denied_opens_nothing_to_names() -> None:
    old = loader.load("allow: [a.example]\ndeny: ['10.0.0.0/8']", name="list.yaml")
    new = loader.load("allow: [a.example]", name="list.yaml")

    assert opened(old, new) == ()
