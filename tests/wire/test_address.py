"""Laws of addresses: one that is not certainly public is never PUBLIC, however it is embedded."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.wire.address import AddressKind, effective, kind_of

# Every block of IANA's registries of special-purpose addresses (RFC 6890), as of 2025-10.
REGISTRY = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
192.0.0.0/24 192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32
192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
::1/128 ::/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001:1::1/128 2001:1::2/128
2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28
2001:db8::/32 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10
224.0.0.0/4 233.252.0.0/24 ff00::/8 fec0::/10
"""

WRAPPERS = [
    "::{}",
    "::ffff:{}",
    "::ffff:0:{}",
    "64:ff9b::{}",
    "64:ff9b:1::{}",
    "2a00::5efe:{}",
    "2a00::200:5efe:{}",
    "2a00::100:5efe:{}",
    "2a00::300:5efe:{}",
]


def six_to_four(inner: IPv4Address, below: int = 1) -> IPv6Address:
    return IPv6Address(0x2002 << 112 | int(inner) << 80 | below)


def teredo(server: IPv4Address, client: IPv4Address) -> IPv6Address:
    return IPv6Address(0x20010000 << 96 | int(server) << 64 | int(client) ^ 0xFFFFFFFF)


def nat64(inner: IPv4Address, prefixlen: int) -> IPv6Address:
    """Return the address under 64:ff9b:1::/48 by the layouts of RFC 6052, 2.2."""
    high, low = divmod(int(inner), 1 << {48: 16, 56: 24, 64: 32, 96: 32}[prefixlen])
    shift = {48: 40, 56: 32, 64: 24, 96: 0}[prefixlen]
    return IPv6Address(0x64FF9B0001 << 80 | high << 64 | low << shift)


@pytest.mark.parametrize("block", REGISTRY.split())
def test_no_special_purpose_address_is_public(block: str) -> None:
    network = ip_network(block)

    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        assert kind_of(address) is not AddressKind.PUBLIC


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("8.8.8.8", "public"),
        ("1.1.1.1", "public"),
        ("11.0.0.0", "public"),
        ("100.63.255.255", "public"),
        ("100.128.0.0", "public"),
        ("172.15.255.255", "public"),
        ("172.32.0.0", "public"),
        ("223.255.255.255", "public"),
        ("2606:4700::1111", "public"),
        ("2a00::1", "public"),
        ("3ffe::1", "public"),
        ("2001:200::1", "public"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("fec0::1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.1.2.3", "reserved"),
        ("100.64.0.1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("2001:db8::1", "reserved"),
        ("2001:20::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("4000::1", "reserved"),
        ("1::1", "reserved"),
    ],
)
def test_an_address_has_the_kind_of_its_range(text: str, kind: str) -> None:
    assert kind_of(ip_address(text)) == AddressKind(kind)


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fe80::a9fe:a9fe",
        "fe80::a9fe:a9fe%eth0",
        "::ffff:169.254.169.254",
        "::ffff:168.63.129.16",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_a_metadata_service_is_recognised_in_every_spelling(text: str) -> None:
    assert kind_of(ip_address(text)) is AddressKind.METADATA


@given(st.ip_addresses(v=4), st.sampled_from(WRAPPERS))
@example(IPv4Address("127.0.0.1"), WRAPPERS[0])
@example(IPv4Address("0.0.0.2"), WRAPPERS[0])
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(
    inner: IPv4Address, wrapper: str
) -> None:
    outer = ip_address(wrapper.format(inner))

    if int(outer) > 1:  # "::" and "::1" are no IPv4-compatible addresses
        assert effective(outer) == inner
        assert kind_of(outer) is kind_of(inner)


@given(st.ip_addresses(v=4), st.integers(min_value=0, max_value=2**63))
def test_6to4_is_judged_as_the_ipv4_address_of_its_router_or_worse(
    inner: IPv4Address, below: int
) -> None:
    outer = six_to_four(inner, below)

    assert effective(outer) in {inner, IPv4Address(below & 0xFFFFFFFF), outer}
    assert kind_of(outer) is not AddressKind.PUBLIC or kind_of(inner) is AddressKind.PUBLIC


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
@example(IPv4Address("8.8.8.8"), IPv4Address("10.0.0.1"))
@example(IPv4Address("10.0.0.1"), IPv4Address("8.8.8.8"))
def test_teredo_is_judged_by_the_worse_of_server_and_client(
    server: IPv4Address, client: IPv4Address
) -> None:
    outer = teredo(server, client)
    order = list(AddressKind)

    assert effective(outer) in {server, client}
    assert kind_of(outer) is max(kind_of(server), kind_of(client), key=order.index)


@given(st.ip_addresses(v=4), st.sampled_from([48, 56, 64, 96]))
@example(IPv4Address("169.254.169.254"), 48)
@example(IPv4Address("169.254.169.254"), 56)
@example(IPv4Address("169.254.169.254"), 64)
def test_local_nat64_is_never_judged_better_than_what_it_may_carry(
    inner: IPv4Address, prefixlen: int
) -> None:
    order = list(AddressKind)

    # 0.0.0.0/8 leads nowhere, and looks like the padding of another layout.
    if int(inner) >> 24:
        assert order.index(kind_of(nat64(inner, prefixlen))) >= order.index(kind_of(inner))


def test_local_nat64_carries_public_addresses_in_the_layout_that_nearly_all_use() -> None:
    assert kind_of(ip_address("64:ff9b:1::808:808")) is AddressKind.PUBLIC
    # With other bits in use, the layout cannot be told, and one of them is not public.
    assert kind_of(ip_address("64:ff9b:1:fffe::808:808")) is not AddressKind.PUBLIC


def test_isatap_is_judged_by_its_prefix_too() -> None:
    assert kind_of(ip_address("fe80::5efe:8.8.8.8")) is AddressKind.LINK_LOCAL
    assert kind_of(ip_address("2a00::5efe:8.8.8.8")) is AddressKind.PUBLIC
    assert kind_of(ip_address("2a00::5efe:10.0.0.1")) is AddressKind.PRIVATE


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_stands_for_itself(address: IPv4Address) -> None:
    assert effective(address) is address


@given(st.ip_addresses())
def test_what_is_public_here_is_global_to_python_too(address: IPv4Address | IPv6Address) -> None:
    kind = kind_of(address)

    assert kind in AddressKind
    if kind is AddressKind.PUBLIC and effective(address) == address:
        assert address.is_global
        assert not address.is_multicast
