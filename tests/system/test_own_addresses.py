"""Laws of own addresses: those of this machine are known, and nothing is sent to find out."""

from ipaddress import ip_address

import pytest

from claude_proxy.system.own_addresses import is_known_to_be_own, is_own


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::"])
def test_loopback_is_this_machine(address: str) -> None:
    assert is_own(ip_address(address))
    assert is_known_to_be_own(ip_address(address))


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8::1"])
def test_another_address_is_not(address: str) -> None:
    assert not is_known_to_be_own(ip_address(address))
