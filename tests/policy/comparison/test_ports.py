"""Laws of the parts of all ports."""

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.comparison.ports import joined, parts_of_ports, port_of

sets = st.lists(st.frozensets(st.sampled_from((22, 80, 443, 8443, 65535)), min_size=1), max_size=3)


@given(sets)
def test_no_set_tells_two_ports_of_a_part_apart(given_sets: list[frozenset[int]]) -> None:
    parts = parts_of_ports(given_sets)

    for part in parts:
        ports, others = part
        assert (port_of(part) in ports) != others
        for one in given_sets:
            assert others or ports <= one or not ports & one
            assert not others or one <= ports


@given(sets, st.data())
def test_parts_joined_have_the_ports_of_each(
    given_sets: list[frozenset[int]], data: st.DataObject
) -> None:
    parts = parts_of_ports(given_sets)
    some = data.draw(st.sets(st.sampled_from(range(len(parts))), min_size=1))

    found = joined(parts, some)

    assert [found.covers(port_of(part)) for part in parts] == [
        at in some for at in range(len(parts))
    ]


def test_a_web_port_stands_for_others_only_if_there_is_no_other() -> None:
    assert port_of((frozenset(), True)) not in {80, 443}
    assert port_of((frozenset(range(81, 65536)), True)) not in {80, 443}
    assert port_of((frozenset({*range(1, 65536)} - {443}), True)) == 443
