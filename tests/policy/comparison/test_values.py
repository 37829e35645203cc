"""Laws of sets of methods and ports."""

from claude_proxy.policy.comparison.values import MethodSet, PortSet, ranges_of


def test_methods_are_listed_in_the_order_of_the_format() -> None:
    assert str(MethodSet(frozenset({"POST", "GET"}))) == "GET, POST"
    assert str(MethodSet(frozenset(), others=True)) == "every method"
    assert str(MethodSet(frozenset({"PUT"}), others=True)) == "every method but PUT"
    assert str(MethodSet(frozenset({"PUT", "put"}))) == "PUT"
    assert str(MethodSet(frozenset({"put"}))) == "other spellings of PUT"


def test_a_name_in_lower_case_is_every_other_spelling() -> None:
    others = MethodSet(frozenset({"post"}))

    assert others.covers("Post")
    assert not others.covers("POST")
    assert MethodSet(frozenset({"POST"}), others=True).covers("post")
    assert MethodSet(frozenset(), others=True).is_every


def test_ports_are_shown_as_ranges() -> None:
    assert ranges_of({1, 2, 3, 7}) == "1-3, 7"
    assert str(PortSet(frozenset({22}), others=True)) == "every port but 22"
    assert str(PortSet(frozenset(), others=True)) == "every port"
    assert PortSet(frozenset({22}), others=True).covers(23)
