"""Warnings about entries that could not work, or that give away more than a host.

Such are denials that win, a constrained CA, own addresses and the metadata services of clouds.

Nothing is changed here. A name is looked up in the hosts file, which sends nothing; in DNS only
where the caller asks for it.
"""

import base64
import shlex
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.pasted import DEFAULT_PORTS
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ConfigError
from claude_proxy.policy import coverage
from claude_proxy.policy.advice import METADATA_NAMES, is_this_machine
from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.wire.address import Address, AddressKind, kind_of
from claude_proxy.wire.authority import Authority

HOSTS_FILE = Path("/etc/hosts")

_LOOK_UP_S = 2.0
_CERTIFICATE = "mitmproxy-ca-cert.pem"  # of trust/, which imports cryptography
_CONSTRAINED = bytes.fromhex("0603551d1e")  # the DER of id-ce-nameConstraints (RFC 5280, 4.2.1.10)
# Names that no DNS answers (RFC 6761), so a question would be in vain.
_NOT_IN_DNS = (".test", ".example", ".invalid", ".localhost")
_ON_THIS_MACHINE = frozenset({AddressKind.LOOPBACK, AddressKind.UNSPECIFIED})


def current_directory() -> Path | None:
    """Return the current directory, or None if it has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def project_denials(project: Path | None) -> tuple[tuple[Rule, ...], str | None]:
    """Return what the project's own file denies in its runs, and what is wrong with that file."""
    if project is None:
        return (), None
    from claude_proxy.sandbox import profiles  # noqa: PLC0415 - only if there may be a file

    try:
        path = profiles.find_project_file(project)
        if path is None:
            return (), None
        return loader.load_narrowing(profiles.read_project_file(path), name=str(path)), None
    except ConfigError as error:
        return (), f"{error.what} ({harmless(error.where or '')})"


def of_denials(wanted: Rule, deny: Iterable[Rule], project: Iterable[Rule]) -> Iterator[str]:
    """Yield a warning for each denial that wins over an entry."""
    for rule in coverage.denials(deny, wanted):
        yield (
            f"{wanted.name} stays denied, as a denial wins: {rule} ({harmless(str(rule.source))}); "
            "delete that entry of deny first"
        )
    for rule in coverage.denials(project, wanted):
        yield (
            f"{wanted.name} stays denied in runs of this project, by its own file: {rule} "
            f"({harmless(str(rule.source))})"
        )


def of_authority(hosts: Iterable[str], confdir: Path) -> Iterator[str]:
    """Yield a warning for each host pattern that the CA's name constraints do not permit."""
    path = confdir / _CERTIFICATE
    try:
        raw = path.read_bytes()
    except OSError:
        return  # there is no CA yet: one without constraints will be made
    if not _is_constrained(raw):
        return
    from cryptography import x509  # noqa: PLC0415 - most CAs are not constrained

    from claude_proxy.trust import constraints  # noqa: PLC0415 - as above

    with suppress(ValueError):
        found = constraints.constraints_of(x509.load_pem_x509_certificate(raw))
        for host in constraints.outside(found, hosts):
            yield (
                f"the CA may not sign for {host} (its name constraints), so clients will reject "
                "the connection; make a new one: claude-proxy ca rotate --constrain"
            )


def is_signed(rule: Rule) -> bool:
    """Return whether clients see a certificate of our CA where a rule applies."""
    return rule.scheme in {None, Scheme.HTTPS} and rule.tls is Tls.INTERCEPT


def places(rule: Rule) -> Iterator[str]:
    """Yield where a rule leads, as `claude-proxy allow` takes it: "https://api.github.com"."""
    scheme = rule.scheme or Scheme.HTTPS
    host = f"[{rule.name}]" if ":" in rule.name and "/" not in rule.name else rule.name
    usual = DEFAULT_PORTS.get(scheme)
    for port in sorted(rule.ports or ([] if usual is None else [usual])):
        yield f"{scheme}://{host}" + ("" if port == usual else f":{port}")


def of_addresses(
    wanted: Rule, rules: Iterable[Rule], *, in_dns: bool, options: Sequence[str] = ()
) -> Iterator[str]:
    """Yield a warning if an entry's host leads to an address that its rules do not name.

    So does one that opens the metadata service of a cloud machine, by whatever part of it.
    `options` name the list in the command that would allow the address.
    """
    pattern = wanted.pattern
    if (named_service := _metadata_of(wanted)) is not None:
        yield (
            f"{named_service} is the metadata service of a cloud machine, which gives its "
            f"credentials to every client that reaches it; delete the entry {wanted.name} unless "
            "that is meant"
        )
        return
    if pattern.kind is PatternKind.LITERAL and pattern.network is not None:
        if kind_of(pattern.network.network_address) in _ON_THIS_MACHINE:
            yield f"{wanted.name} is this machine: every client can reach its services then"
        return
    if pattern.kind is not PatternKind.EXACT:
        return
    named = [
        network for rule in rules if rule.pattern.includes(pattern) for network in rule.addresses
    ]
    for address in addresses_of(pattern.host, in_dns=in_dns):
        kind = kind_of(address)
        if kind is AddressKind.PUBLIC or any(address in network for network in named):
            continue
        yield _of_address(wanted, address, kind, options)
        return


def _metadata_of(wanted: Rule) -> str | None:
    """Return the metadata service that an entry names; networks around one do not open it."""
    literal = () if wanted.pattern.network is None else (wanted.pattern.network,)
    for network in (*literal, *wanted.addresses):
        is_single = network.prefixlen == network.max_prefixlen
        if is_single and kind_of(network.network_address) is AddressKind.METADATA:
            return str(network.network_address)
    if wanted.pattern.kind is PatternKind.EVERY:
        return None  # their addresses stay denied
    names = (name for name in METADATA_NAMES if wanted.pattern.covers(Authority.of(name, 443)))
    return next(names, None)


def _of_address(wanted: Rule, address: Address, kind: AddressKind, options: Sequence[str]) -> str:
    host = wanted.pattern.host
    if kind in _ON_THIS_MACHINE or is_this_machine(Authority.of(host, 443)):
        return (
            f"{host} leads to this machine ({address}), which is denied: reach it without the "
            "proxy, by NO_PROXY"
        )
    if kind is AddressKind.METADATA:
        return (
            f"{host} leads to {address}, the metadata service of a cloud machine, which gives away "
            "its credentials, so it is denied"
        )
    place = next(places(wanted))
    arguments = (place.removeprefix("https://"), "--address", str(address), *options)
    return (
        f"{host} leads to {address}, which is not public, so it is denied; if it is meant: "
        f"{shlex.join(('claude-proxy', 'allow', *arguments))}"
    )


def addresses_of(host: str, *, in_dns: bool) -> list[Address]:
    """Return the addresses of a name by the hosts file, else by the system's resolver if asked."""
    found = _in_hosts_file(host)
    if found or is_this_machine(Authority.of(host, 443)):
        return found or [ip_address("127.0.0.1")]
    if not in_dns or host.endswith(_NOT_IN_DNS):
        return []
    return _looked_up(host)


def _in_hosts_file(host: str) -> list[Address]:
    found = []
    with suppress(OSError):
        for line in HOSTS_FILE.read_text("utf-8", "replace").splitlines():
            words = line.partition("#")[0].lower().split()
            if host in words[1:]:
                with suppress(ValueError):
                    found.append(ip_address(words[0].partition("%")[0]))
    return found


def _looked_up(host: str) -> list[Address]:
    """Ask the system's resolver, no longer than a person waits for an answer."""
    found: list[Address] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError, ValueError):
            answer = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
            found.extend(ip_address(str(entry[4][0]).partition("%")[0]) for entry in answer)

    # A daemon: the resolver cannot be interrupted, and the command must end.
    thread = threading.Thread(target=look_up, name="look-up", daemon=True)
    thread.start()
    thread.join(_LOOK_UP_S)
    return list(dict.fromkeys(found))


def _is_constrained(raw: bytes) -> bool:
    """Tell whether a PEM certificate has name constraints, without importing cryptography."""
    body = b"".join(line for line in raw.splitlines() if line and not line.startswith(b"-"))
    try:
        return _CONSTRAINED in base64.b64decode(body)
    except ValueError:
        return False
