"""Laws of sets of ports: they are sets."""

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.imports.port_sets import ALL_PORTS, PortSet

_edges = st.integers(-2, 12)
_sets = st.lists(st.tuples(_edges, _edges), max_size=4).map(PortSet.of)


@given(_sets, _sets)
def test_they_combine_like_sets(one: PortSet, other: PortSet) -> None:
    for port in range(1, 15):
        assert (port in (one & other)) is (port in one and port in other)
        assert (port in (one | other)) is (port in one or port in other)
        assert (port in (one - other)) is (port in one and port not in other)


@given(_sets)
def test_the_others_are_all_others(ports: PortSet) -> None:
    assert ports | ports.complement() == ALL_PORTS
    assert not ports & ports.complement()


def test_a_long_range_is_not_listed() -> None:
    named, others = PortSet.of([(80, 80), (443, 444), (1025, 65535)]).listed()

    assert named == {80, 443, 444}
    assert str(others) == "1025-65535"
