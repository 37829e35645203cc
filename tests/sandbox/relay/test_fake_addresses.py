"""Each name has an address of its own, for good."""

from ipaddress import IPv4Address, IPv4Network

from claude_proxy.sandbox.relay.fake_addresses import NAMES_LIMIT, FakeAddresses


def test_a_name_keeps_its_address() -> None:
    addresses = FakeAddresses()
    first, other = addresses.of("a.example"), addresses.of("b.example")

    assert first != other
    assert (addresses.of("a.example"), addresses.of("b.example")) == (first, other)


def test_an_address_leads_back_to_its_name() -> None:
    addresses = FakeAddresses()
    found = addresses.of("a.example")
    assert found is not None

    assert addresses.name_at(str(IPv4Address(found))) == "a.example"


def test_an_address_that_no_name_has_leads_nowhere() -> None:
    addresses = FakeAddresses()
    addresses.of("a.example")

    assert addresses.name_at("198.18.0.2") is None
    assert addresses.name_at("127.0.0.1") is None


def test_when_all_are_in_use_a_new_name_has_none_and_the_others_keep_theirs() -> None:
    addresses = FakeAddresses()
    found = [addresses.of(f"{number}.example") for number in range(NAMES_LIMIT)]

    assert addresses.of("one-more.example") is None
    assert addresses.of("0.example") == found[0]
    assert len(set(found)) == NAMES_LIMIT
    pool = IPv4Network("198.18.0.0/15")
    assert all(address is not None and IPv4Address(address) in pool for address in found)
