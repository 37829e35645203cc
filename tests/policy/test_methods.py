"""Laws of the methods that a rule may name."""

from claude_proxy.policy.methods import METHODS


def test_what_is_always_denied_cannot_be_named() -> None:
    assert not {"TRACE", "TRACK", "CONNECT"} & set(METHODS)


def test_every_method_is_in_capitals_and_named_once() -> None:
    assert all(method == method.upper() for method in METHODS)
    assert len(set(METHODS)) == len(METHODS)
