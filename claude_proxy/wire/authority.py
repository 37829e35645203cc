"""Authority: host and port of a target, normalised once; the only parser of names.

Agreement: two spellings of one host become one value here, and a text without a single meaning
(octal IPv4, a zone id, a percent sign, a full-width digit) is a ValueError, so that no later
comparison can be misled. Pure.
"""

from dataclasses import field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

_MAX_NAME = 253
_MAX_LABEL = 63
MAX_PORT = 65535
# Cache entries, each of a few hundred bytes at most. Limited, because clients choose the names.
_REMEMBERED = 4096

# Letters, digits, hyphens (RFC 1123), and underscores, which real names use (RFC 2181 section 11).
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# A name whose last label is like this "ends in a number" (WHATWG URL): clients read it as IPv4 or
# refuse it.
_NUMBER = r"(?:[0-9]+|0x[0-9a-f]*)"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

_is_label = lazy_pattern(_LABEL).fullmatch
_is_number = lazy_pattern(_NUMBER).fullmatch
_is_quad = lazy_pattern(rf"{_OCTET}(?:\.{_OCTET}){{3}}").fullmatch
_is_port = lazy_pattern(r"[1-9][0-9]{0,4}").fullmatch
# A name that is already normalised, as nearly all are: one match instead of ten checks.
_is_plain = lazy_pattern(
    rf"(?=.{{1,{_MAX_NAME}}}\Z)(?:(?!xn--){_LABEL}\.)*(?!xn--|{_NUMBER}\Z){_LABEL}"
).fullmatch


@dataclass(frozen=True, slots=True, order=True)
class Authority:
    """A host and a port, both normalised (RFC 3986 section 3.2)."""

    host: str  # lower-case A-labels without a trailing dot, or an IP address without brackets
    port: int
    # The host as an address if it is an IP literal; stored, because every decision needs it.
    address: IPv4Address | IPv6Address | None = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)  # as in a URL: "[::1]:80"

    def __post_init__(self) -> None:
        # However it is built, an Authority that is not normalised cannot exist.
        if normalise_host(self.host) != self.host:
            raise ValueError(f"the host {quoted(self.host)} is not normalised")
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"the port {self.port} is outside 1-{MAX_PORT}")
        object.__setattr__(self, "address", literal_of(self.host))
        host = f"[{self.host}]" if ":" in self.host else self.host
        object.__setattr__(self, "text", f"{host}:{self.port}")

    @classmethod
    def parse(cls, text: str | bytes, *, default_port: int | None = None) -> "Authority":
        """Parse `host:port` or `[IPv6]:port`; the port may be missing if there is a default.

        ValueError if it is not valid.
        """
        return _parse(_ascii(text), default_port)

    @classmethod
    def of(cls, host: str | bytes, port: int) -> "Authority":
        """Return the authority of a host (IPv6 without brackets) and a port; ValueError."""
        return cls(normalise_host(host), port)

    def __str__(self) -> str:
        return self.text


def normalise_host(text: str | bytes, *, unicode: bool = False) -> str:
    """Return the normalised spelling of a host name or IP literal; ValueError if it is neither.

    With `unicode`, the name may have U-labels, as in a policy file; hosts in requests are ASCII.
    """
    name = text if unicode and isinstance(text, str) else _ascii(text)
    if _is_plain(name):
        return name
    if ":" in name:
        return _ipv6(name)
    if unicode and not name.isascii():
        name = _with_a_labels(name)
    return _name(name.lower())


def literal_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address if a normalised host is an IP literal, None if it is a name."""
    if ":" in host:
        return IPv6Address(host)
    return IPv4Address(host) if _is_quad(host) else None


def text_of(address: IPv4Address | IPv6Address) -> str:
    """Return the canonical spelling of an address, the same in every Python version."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        high, low = divmod(int(address.ipv4_mapped), 1 << 16)
        return f"::ffff:{high:x}:{low:x}"
    return str(address)


def quoted(text: str) -> str:
    """Return `text` in quotes for a message, shortened and without control characters."""
    shown = text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}..."
    return f'"{repr(shown)[1:-1]}"'


@lru_cache(maxsize=_REMEMBERED)
def _parse(text: str, default_port: int | None) -> Authority:
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        # Only IPv6 has brackets: `[denied.com]:443` once bypassed a filter.
        if not closing or ":" not in host:
            raise ValueError(f"{quoted(text)} is not an IPv6 address in brackets")
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if rest == "":
        if default_port is None:
            raise ValueError(f"{quoted(text)} has no port")
        return Authority.of(host, default_port)
    if rest[0] != ":" or not _is_port(rest[1:]):
        raise ValueError(f"{quoted(text)} has no valid port, 1-{MAX_PORT}")
    return Authority.of(host, int(rest[1:]))


def _ascii(text: str | bytes) -> str:
    try:
        if isinstance(text, bytes):
            return text.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(
            f"{quoted(repr(text[:_MAX_NAME]))} contains bytes that are not ASCII"
        ) from None
    # Before any lower(): the Kelvin sign, for one, would become a plain "k".
    if not text.isascii():
        raise ValueError(f"{quoted(text)} contains characters that are not ASCII")
    return text


def _ipv6(text: str) -> str:
    # A zone id names an interface of this machine, not a host. A dotted quad can also be written
    # in hexadecimal, and Python 3.13 changed which of the two it prints.
    if "%" in text or "." in text:
        raise ValueError(f"{quoted(text)} is not an IPv6 address in plain hexadecimal groups")
    try:
        canonical = text_of(IPv6Address(text))
    except ValueError:
        raise ValueError(f"{quoted(text)} is neither a name nor an IPv6 address") from None
    if text != canonical:
        raise ValueError(f"{quoted(text)} must be written {quoted(canonical)}")
    return canonical


def _name(name: str) -> str:
    if _is_quad(name):
        return name
    name = name.removesuffix(".")
    if len(name) > _MAX_NAME:
        raise ValueError(f"{quoted(name)} is longer than {_MAX_NAME} characters")
    labels = name.split(".")
    for label in labels:
        _check_label(label, name)
    # "127.1", "0x7f.1", "2130706433" and "0177.0.0.1" all reach 127.0.0.1 by inet_aton.
    if _is_number(labels[-1]):
        raise ValueError(f"{quoted(name)} is not an IPv4 address in its canonical spelling")
    return name


def _check_label(label: str, name: str) -> None:
    if not _is_label(label):
        raise ValueError(f"{quoted(name)} contains {_fault_of(label)}")
    if label.startswith("xn--") and not _is_a_label(label):
        raise ValueError(f"{quoted(name)} contains {quoted(label)}, which is not valid IDNA")


def _fault_of(label: str) -> str:
    if not label:
        return "an empty label"
    if len(label) > _MAX_LABEL:
        return f"a label longer than {_MAX_LABEL} characters"
    if label[0] == "-" or label[-1] == "-":
        return f"the label {quoted(label)}, which begins or ends with a hyphen"
    return f"the label {quoted(label)}; only letters, digits, hyphens and underscores are allowed"


def _is_a_label(label: str) -> bool:
    import idna  # noqa: PLC0415 - few names are not ASCII

    # An A-label that does not survive decoding and encoding would have two meanings.
    try:
        return idna.alabel(idna.ulabel(label)) == label.encode()
    except UnicodeError:
        return False


def _with_a_labels(name: str) -> str:
    # Label by label: `idna.encode` would also read ideographic full stops as dots. Only ASCII is
    # lowered: lower() turns the Kelvin sign into "k", and Cherokee into what IDNA forbids.
    small = "".join(char.lower() if char.isascii() else char for char in name)
    if small.isascii():
        return small
    import idna  # noqa: PLC0415 - few names are not ASCII

    try:
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode() for label in small.split(".")
        )
    except UnicodeError as error:
        raise ValueError(f"{quoted(name)} is not valid IDNA: {error}") from None
