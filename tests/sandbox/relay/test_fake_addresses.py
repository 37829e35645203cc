"""Each name has an address of its own, for good."""

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from claude_proxy.sandbox.relay.fake_addresses import NAMES_LIMIT, FakeAddresses


@pytest.fixture
def kept() -> Iterator[int]:
    """A file for the names."""
    descriptor = os.memfd_create("names")
    yield descriptor
    os.close(descriptor)


def test_a_name_keeps_its_address(kept: int) -> None:
    addresses = FakeAddresses(kept)
    first, other = addresses.of("a.example"), addresses.of("b.example")

    assert first != other
    assert (addresses.of("a.example"), addresses.of("b.example")) == (first, other)


def test_an_address_leads_back_to_its_name(kept: int) -> None:
    addresses = FakeAddresses(kept)
    found = addresses.of("a.example")
    assert found is not None

    assert addresses.name_at(str(IPv4Address(found))) == "a.example"


def test_an_address_that_no_name_has_leads_nowhere(kept: int) -> None:
    addresses = FakeAddresses(kept)
    addresses.of("a.example")

    assert addresses.name_at("198.18.0.0") is None
    assert addresses.name_at("127.0.0.1") is None


def test_when_all_are_in_use_a_new_name_has_none_and_the_others_keep_theirs(kept: int) -> None:
    addresses = FakeAddresses(kept)
    found = [addresses.of(f"{number}.example") for number in range(NAMES_LIMIT)]

    assert addresses.of("one-more.example") is None
    assert addresses.of("0.example") == found[0]
    assert len(set(found)) == NAMES_LIMIT
    pool = IPv4Network("198.18.0.0/15")
    assert all(address is not None and IPv4Address(address) in pool for address in found)


def test_a_relay_that_replaces_another_knows_its_addresses(kept: int) -> None:
    before = FakeAddresses(kept)
    found = {name: before.of(name) for name in ("a.example", "b.example", "c.example")}

    after = FakeAddresses(kept)

    assert {name: after.of(name) for name in reversed(found)} == found
    assert after.of("d.example") not in found.values()
    assert FakeAddresses(kept).of("d.example") == after.of("d.example")


def test_two_names_that_would_have_the_same_address_have_two(kept: int) -> None:
    addresses = FakeAddresses(kept)
    found = [addresses.of(f"{number}.example") for number in range(2000)]

    assert len(set(found)) == len(found)


def test_a_name_that_cannot_be_kept_has_no_address(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.touch()
    descriptor = os.open(file, os.O_RDONLY)

    assert FakeAddresses(descriptor).of("a.example") is None
    os.close(descriptor)
