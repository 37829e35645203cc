"""IP address classification: public, private, loopback, link-local, cloud metadata service.

Judged is dialled: an IPv4 address embedded in an IPv6 one is classified as that IPv4 address. The
table is the project's own, as `ipaddress.is_global` changed between Python versions. Nothing in
IANA's special-purpose registries is PUBLIC here, not even the few anycast services that they call
globally reachable: the nearest PCP or TURN server is the user's own router. Pure.
"""

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network


class AddressKind(StrEnum):
    """Classes of addresses, the most dangerous last."""

    PUBLIC = "public"
    RESERVED = "reserved"  # documentation, benchmarking, carrier NAT, protocols, not allocated
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"  # 0.0.0.0 and ::, which Linux connects to loopback
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    LOOPBACK = "loopback"
    METADATA = "metadata"  # gives a cloud machine's credentials to any process


_DANGER = {kind: danger for danger, kind in enumerate(AddressKind)}

# There is no common range: each cloud has its own address, Azure even a public one. From the
# clouds' documentation and cloud-init's data sources.
_METADATA = (
    "169.254.169.254",  # AWS, Azure, Google, Oracle, OpenStack, DigitalOcean, Hetzner, ...
    "169.254.170.2",  # AWS ECS task credentials
    "169.254.170.23",  # AWS EKS Pod Identity, and its IPv6 twin
    "fd00:ec2::23",
    "fd00:ec2::254",  # AWS IMDS over IPv6
    "fd20:ce::254",  # Google Compute Engine over IPv6
    "192.0.0.192",  # Oracle Cloud Classic, and Oracle Cloud Infrastructure over IPv6
    "fd00:c1::a9fe:a9fe",
    "fe80::a9fe:a9fe",  # OpenStack over IPv6
    "168.63.129.16",  # Azure WireServer, the host's agent
    "100.100.100.200",  # Alibaba Cloud, and its IPv6 twin
    "fd00:100::100:200",
    "fd00:a9fe:a9fe::1",  # Akamai (Linode) over IPv6
    "169.254.0.23",  # Tencent Cloud, both
    "169.254.10.10",
    "169.254.42.42",  # Scaleway, and its IPv6 twin
    "fd00:42::42",
    "169.254.169.250",  # Rancher
)

# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
# The first range that holds the address counts.
_SPECIAL = dict.fromkeys(_METADATA, AddressKind.METADATA) | {
    "0.0.0.0/32": AddressKind.UNSPECIFIED,
    "0.0.0.0/8": AddressKind.RESERVED,  # "this network", RFC 791
    "10.0.0.0/8": AddressKind.PRIVATE,  # RFC 1918
    "100.64.0.0/10": AddressKind.RESERVED,  # carrier NAT, RFC 6598; also Tailscale
    "127.0.0.0/8": AddressKind.LOOPBACK,
    "169.254.0.0/16": AddressKind.LINK_LOCAL,  # RFC 3927
    "172.16.0.0/12": AddressKind.PRIVATE,
    "192.0.0.0/24": AddressKind.RESERVED,  # protocol assignments, RFC 6890
    "192.0.2.0/24": AddressKind.RESERVED,  # documentation, RFC 5737
    "192.31.196.0/24": AddressKind.RESERVED,  # AS112, RFC 7535
    "192.52.193.0/24": AddressKind.RESERVED,  # AMT, RFC 7450
    "192.88.99.0/24": AddressKind.RESERVED,  # 6to4 relays, withdrawn by RFC 7526
    "192.168.0.0/16": AddressKind.PRIVATE,
    "192.175.48.0/24": AddressKind.RESERVED,  # AS112, RFC 7534
    "198.18.0.0/15": AddressKind.RESERVED,  # benchmarking, RFC 2544
    "198.51.100.0/24": AddressKind.RESERVED,  # documentation
    "203.0.113.0/24": AddressKind.RESERVED,  # documentation
    "224.0.0.0/4": AddressKind.MULTICAST,  # RFC 5771
    "240.0.0.0/4": AddressKind.RESERVED,  # future use and broadcast, RFC 1112 and 919
    "::/128": AddressKind.UNSPECIFIED,
    "::1/128": AddressKind.LOOPBACK,
    "fc00::/7": AddressKind.PRIVATE,  # unique local, RFC 4193
    "fe80::/10": AddressKind.LINK_LOCAL,
    "fec0::/10": AddressKind.PRIVATE,  # site-local, RFC 3879; old routers still route it
    "ff00::/8": AddressKind.MULTICAST,
    "2001::/23": AddressKind.RESERVED,  # protocols: benchmarking, ORCHID, AMT, drones, ...
    "2001:db8::/32": AddressKind.RESERVED,  # documentation, RFC 3849
    "2620:4f:8000::/48": AddressKind.RESERVED,  # AS112
    "3fff::/20": AddressKind.RESERVED,  # documentation, RFC 9637
    "2000::/3": AddressKind.PUBLIC,
    # The rest is not allocated (RFC 4291, 2.4), or not a destination: discard-only 100::/64
    # (RFC 6666), the dummy prefix 100:0:0:1::/64 (RFC 9780), SRv6 SIDs 5f00::/16 (RFC 9602).
    "::/0": AddressKind.RESERVED,
}


def _ranges(version: int) -> tuple[tuple[int, int, AddressKind], ...]:
    return tuple(
        (int(network.network_address), int(network.broadcast_address), kind)
        for network, kind in ((ip_network(text), kind) for text, kind in _SPECIAL.items())
        if network.version == version
    )


_RANGES = {4: _ranges(4), 6: _ranges(6)}
_LOW_32 = 0xFFFFFFFF

# The first 96 bits of the forms that embed an IPv4 address in their last 32.
_CARRIERS = frozenset(
    int(IPv6Address(prefix)) >> 32
    for prefix in (
        "::",  # IPv4-compatible, RFC 4291 section 2.5.5.1
        "::ffff:0:0",  # IPv4-mapped, 2.5.5.2
        "::ffff:0:0:0",  # IPv4-translated, RFC 2765
        "64:ff9b::",  # NAT64, RFC 6052
        "64:ff9b:1::",  # NAT64 of a local network, RFC 8215, in the usual layout
    )
)
_LOCAL_NAT64 = int(IPv6Address("64:ff9b:1::")) >> 80  # RFC 8215
_TEREDO = int(IPv6Address("2001::")) >> 96  # RFC 4380
_SIX_TO_FOUR = 0x2002  # RFC 3056
_ISATAP = 0x5EFE  # RFC 5214, 6.1
_ISATAP_MASK = 0xFCFFFFFF  # ignores the bits "universal" and "group" of the interface id
_LOOPBACK = 1


# The same prefixes as networks, and the other forms of `_carried`.
_CARRYING = (
    *(f"{IPv6Address(prefix << 32)}/96" for prefix in _CARRIERS),
    *("64:ff9b:1::/48", "2001::/32", "2002::/16"),
)


def special_networks() -> tuple[Network, ...]:
    """Return the networks whose addresses are of another kind than those around them.

    Also those of IPv6 that embed an IPv4 address. Within a network without any of these, all
    addresses are of one kind, apart from those of ISATAP.
    """
    return tuple(map(ip_network, sorted({*_SPECIAL, *_CARRYING} - {"::/0"})))


def kind_of(address: Address) -> AddressKind:
    """Return the kind of `address`, or of the IPv4 address embedded in it."""
    return _kind(effective(address))


def effective(address: Address) -> Address:
    """Return the address to judge: the most dangerous one embedded, or `address` itself."""
    if isinstance(address, IPv4Address):
        return address
    readings = _readings(int(address))
    return max(readings, key=lambda reading: _DANGER[_kind(reading)]) if readings else address


def _kind(address: Address) -> AddressKind:
    number = int(address)
    for first, last, kind in _RANGES[address.version]:
        if first <= number <= last:
            return kind
    return AddressKind.PUBLIC  # only IPv4: the table for IPv6 ends with every address


def _readings(number: int) -> list[Address]:
    """Return every address that a network may translate this IPv6 address to."""
    found: list[Address] = [IPv4Address(inner & _LOW_32) for inner in _carried(number)]
    # ISATAP works with any prefix, so the IPv6 address itself is judged too.
    if number >> 32 & _ISATAP_MASK == _ISATAP:
        found += [IPv4Address(number & _LOW_32), IPv6Address(number)]
    return found


def _carried(number: int) -> tuple[int, ...]:
    """Return the IPv4 addresses embedded behind a known prefix, in the low 32 bits of each."""
    if number >> 32 in _CARRIERS and number > _LOOPBACK:
        return (number,)
    if number >> 112 == _SIX_TO_FOUR:
        return (number >> 80,)
    if number >> 96 == _TEREDO:
        return (number >> 64, ~number)  # the server, and the client with its bits inverted
    if number >> 80 == _LOCAL_NAT64:
        # The length of the translator's prefix is unknown, so each layout of RFC 6052 section 2.2.
        return (
            (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF,  # /48
            (number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF,  # /56
            number >> 24,  # /64
            number,  # /96
        )
    return ()
