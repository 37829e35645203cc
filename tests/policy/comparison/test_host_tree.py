"""Laws of the tree of hosts: its parts are all hosts, and sets of them become patterns again."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.comparison.host_tree import host_sets, host_tree, network_nodes
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.wire.authority import Authority
from tests.policy.test_policy_properties import PATTERNS

some_patterns = st.lists(st.sampled_from(PATTERNS).map(HostPattern.parse), max_size=6)


@given(some_patterns)
def test_a_part_has_a_host_of_its_own_that_no_child_covers(patterns: list[HostPattern]) -> None:
    for node in host_tree(patterns):
        if node.host is not None:
            target = Authority.of(node.host, 443)
            assert node.pattern.covers(target)
            assert not any(child.pattern.covers(target) for child in node.children)


@given(some_patterns, st.data())
def test_sets_cover_the_hosts_of_their_parts_and_of_no_other(
    patterns: list[HostPattern], data: st.DataObject
) -> None:
    # The others are networks that no policy allows as a part of everything.
    nodes = [node for node in host_tree(patterns) if node.host is not None and node.named]
    members = data.draw(st.sets(st.sampled_from(range(len(nodes)))))

    found = host_sets([nodes[at] for at in members])

    for at, node in enumerate(nodes):
        assert node.host is not None
        target = Authority.of(node.host, 443)
        covered = [each for each in found if each.covers(target)]
        assert len(covered) == (at in members)


def shown(*patterns: str) -> list[str]:
    nodes = host_tree(map(HostPattern.parse, patterns))
    named = {pattern.removeprefix("*").removeprefix(".") for pattern in patterns}
    wanted = [n for n in nodes if n.parent is not None and str(n.pattern).lstrip("*.") in named]
    return list(map(str, host_sets(wanted)))


def test_a_name_with_its_subdomains_is_one_pattern() -> None:
    assert shown("*.a.test", "a.test") == [".a.test"]
    assert shown("*.a.test", "b.a.test") == ["*.a.test"]


def test_two_halves_of_a_network_are_one() -> None:
    nodes = network_nodes(map(ip_network, ("8.0.0.0/9", "8.128.0.0/9", "8.0.0.0/8")))
    halves = [node for node in nodes if str(node.pattern).endswith("/9")]

    assert list(map(str, host_sets(halves))) == ["8.0.0.0/8"]


def test_an_exception_is_named() -> None:
    nodes = host_tree(map(HostPattern.parse, ("*.a.test", "b.a.test")))
    [only] = host_sets([node for node in nodes if str(node.pattern) == "*.a.test"])

    assert (str(only), list(map(str, only.but))) == ("*.a.test", ["b.a.test"])
