"""What was looked up past the proxy is told in a few lines, and never fails a run."""

from claude_proxy.sandbox.lookups import LookupChannel, NameLookup, NameLookups
from claude_proxy.sandbox.relay.lookup_report import ASK


def test_a_name_is_told_with_its_program_and_how_often() -> None:
    names = (NameLookup("a.example", 3, "node"), NameLookup("b.example", 1, ""))

    assert list(NameLookups(names).lines()) == [
        "a.example was looked up past the proxy by node, 3 times",
        "b.example was looked up past the proxy",
    ]


def test_many_names_are_counted() -> None:
    names = tuple(NameLookup(f"{number}.example", 1, "") for number in range(12))

    assert list(NameLookups(names).lines())[-1] == "and 2 more names"
    more = "and 6 more lookups past the proxy, of other names"
    assert list(NameLookups(names, others=4).lines())[-1] == more


def test_the_relay_is_asked() -> None:
    with LookupChannel() as channel:
        channel.theirs.send(b"0\n2 a.example node")

        assert channel.ask() == NameLookups((NameLookup("a.example", 2, "node"),))
        assert channel.theirs.recv(16) == ASK


def test_a_relay_that_has_ended_noted_nothing() -> None:
    with LookupChannel() as channel:
        channel.theirs.close()

        assert channel.ask() == NameLookups()


def test_a_report_that_cannot_be_read_counts_as_none() -> None:
    with LookupChannel() as channel:
        channel.theirs.send(b"nonsense")

        assert channel.ask() == NameLookups()
