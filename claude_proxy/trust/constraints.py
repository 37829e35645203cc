"""X.509 name constraints from host patterns, which make a stolen CA key nearly worthless.

RFC 5280, section 4.2.1.10: the DNS constraint "example.com" covers that name and all its
subdomains. So the constraint is never narrower than the pattern, and for "example.com" and
"*.example.com" it is wider. A name form without any constraint is unrestricted, so every form gets
one.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from cryptography import x509

from claude_proxy.errors import ConfigError
from claude_proxy.wire.address import Network

_EVERY_IPV4 = IPv4Network("0.0.0.0/0")
_EVERY_IPV6 = IPv6Network("::/0")
_EVERY_NAME = ""  # the empty constraint covers every name


def constraints_for(patterns: Iterable[str]) -> x509.NameConstraints:
    """Permit what "example.com", "*.example.com", ".example.com", an address or a range covers."""
    names, ipv4, ipv6 = _sorted(patterns)
    permitted = [*map(x509.DNSName, names), *map(x509.IPAddress, ipv4), *map(x509.IPAddress, ipv6)]
    if not permitted:
        raise ConfigError(
            "the allowlist names no host, so the CA could not sign for any",
            fix="allow the hosts first, or rotate without --constrain",
        )
    excluded: list[x509.GeneralName] = []
    if not names:
        excluded.append(x509.DNSName(_EVERY_NAME))
    if not ipv4:
        excluded.append(x509.IPAddress(_EVERY_IPV4))
    if not ipv6:
        excluded.append(x509.IPAddress(_EVERY_IPV6))
    return x509.NameConstraints(permitted, excluded or None)


def constraints_of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    """Return the constraints in `certificate`, if it has any."""
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def spelled(subtrees: Iterable[x509.GeneralName] | None) -> tuple[str, ...]:
    """Return constraints as text: names and ranges, and "every name" where all are meant."""
    return tuple(str(subtree.value) or "every name" for subtree in subtrees or ())


def outside(constraints: x509.NameConstraints | None, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return those of `patterns` that the constraints do not permit whole."""
    if constraints is None:
        return ()
    permitted = tuple(constraints.permitted_subtrees or ())
    excluded = tuple(constraints.excluded_subtrees or ())
    return tuple(p for p in patterns if not _permits(_subject(p), permitted, excluded))


def _permits(
    subject: str | Network,
    permitted: tuple[x509.GeneralName, ...],
    excluded: tuple[x509.GeneralName, ...],
) -> bool:
    form = x509.DNSName if isinstance(subject, str) else x509.IPAddress
    allowed = [subtree.value for subtree in permitted if isinstance(subtree, form)]
    denied = [subtree.value for subtree in excluded if isinstance(subtree, form)]
    if any(_within(subject, value) or _within(value, subject) for value in denied):
        return False
    return not allowed or any(_within(subject, value) for value in allowed)


def _within(inner: object, outer: object) -> bool:
    match inner, outer:
        case str(), str():
            return outer in (_EVERY_NAME, inner) or inner.endswith("." + outer)
        case IPv4Network(), IPv4Network():
            return inner.subnet_of(outer)
        case IPv6Network(), IPv6Network():
            return inner.subnet_of(outer)
        case _:
            return False


def _subject(pattern: str) -> str | Network:
    try:
        return ip_network(pattern)
    except ValueError:
        return pattern.removeprefix("*").removeprefix(".").lower()


def _sorted(
    patterns: Iterable[str],
) -> tuple[list[str], list[IPv4Network], list[IPv6Network]]:
    """Sort by form, without repetitions and without what another pattern covers."""
    names: set[str] = set()
    ipv4: list[IPv4Network] = []
    ipv6: list[IPv6Network] = []
    for pattern in patterns:
        match _subject(pattern):
            case IPv4Network() as network:
                ipv4.append(network)
            case IPv6Network() as network:
                ipv6.append(network)
            case name:
                names.add(name)
    widest = sorted(name for name in names if not _parents(name) & names)
    return widest, list(collapse_addresses(ipv4)), list(collapse_addresses(ipv6))


def _parents(name: str) -> set[str]:
    labels = name.split(".")
    return {".".join(labels[start:]) for start in range(1, len(labels))}
