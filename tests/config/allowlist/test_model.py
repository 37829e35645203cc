"""Laws of policy files as values: unless a file says otherwise, it denies, through the proxy."""

from claude_proxy.config.allowlist.loader import read
from claude_proxy.config.allowlist.model import Default, NetworkMode


def test_an_empty_file_denies_everything_through_the_proxy() -> None:
    file = read("", name="a.yaml")

    assert (file.default, file.network, file.profile) == (Default.DENY, NetworkMode.PROXY, None)
    assert file.policy.rules_count == 0


def test_every_key_of_a_policy_arrives() -> None:
    file = read("description: x\nnetwork: none\nprofile: shell\n", name="a.yaml")

    assert (file.description, file.network, file.profile) == ("x", NetworkMode.NONE, "shell")
    assert str(file.source) == "a.yaml:2"
