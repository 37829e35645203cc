"""Host reader: host patterns and networks from a file, and the entry that a mistake meant.

`HostPattern.parse` decides what is valid; this adds what only a file needs. A name whose letters
imitate others is refused, and a URL is answered with the entry that means the same. Pure.
"""

import re
import unicodedata
from ipaddress import ip_network

from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError
from claude_proxy.wire.address import Network

# Words that come before a colon in an entry.
FIELDS = ("host", "ports", "scheme", "methods", "paths", "tls", "addresses", "note", "preset")

_url = lazy_pattern(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*://)? (?:[^/@]*@)?
        (?P<host>\[[^]]*\]|[^/:?\#]*) (?::(?P<port>[0-9]*))? (?P<path>/[^?\#]*)?
        (?:[?\#].*)? """,
    re.VERBOSE | re.IGNORECASE,
).fullmatch
_field = lazy_pattern(rf"({'|'.join(FIELDS)}):(?![0-9]+\Z)(.*)").fullmatch


def pattern_of(text: str) -> HostPattern:
    """Read a host pattern; PatternError says what is wrong and how to fix it."""
    _refuse_two_words(text)
    try:
        pattern = HostPattern.parse(text)
    except PatternError as error:
        fix = _fix_of_network(text, error) or _fix_of_url(text) or error.fix
        raise PatternError(error.what, fix) from error
    if not text.isascii() and _imitates(text):
        fix = f'write "{pattern}" if that is the host you mean'
        raise PatternError(f"{quoted(text)} has letters that imitate others", fix)
    return pattern


def host_in(text: str) -> str | None:
    """Return the host of a URL or the like; None if the text is a pattern itself, or has none."""
    try:
        HostPattern.parse(text)
    except PatternError:
        found = _parts_of_url(text)
        return None if found is None else found["host"].strip("[]")
    return None


def network_of(text: str) -> Network:
    """Read an IP address or a network; PatternError says what is wrong and how to fix it."""
    fix = 'write an address or a network, such as "10.1.2.0/24"'
    refusal = PatternError(f"{quoted(text)} is neither an IP address nor a network", fix)
    try:
        network = HostPattern.parse(text).network
    except PatternError as error:
        better = _fix_of_network(text, error)
        raise (refusal if better is None else PatternError(error.what, better)) from error
    if network is None:
        raise refusal
    return network


def _refuse_two_words(text: str) -> None:
    if len(re.split(r"[\s,]+", text.strip())) > 1:
        fix = 'begin each host with a "- " of its own, all of them indented alike'
        raise PatternError(f"the host {quoted(text)} is more than one word", fix)
    if (found := _field(text)) is not None:
        fix = f"put a space after the colon: {found[1]}: {found[2] or '...'}"
        raise PatternError(f"{quoted(text)} lacks a space after the colon", fix)


def _fix_of_url(text: str) -> str | None:
    """Return the entry that a URL or the like was meant to be, if that is clear."""
    found = _parts_of_url(text)
    if found is None:
        return None
    host, port = found["host"].strip("[]"), found["port"]
    plain = (found["scheme"] or "").lower() == "http://"
    path = (found["path"] or "").rstrip("/")
    fields = [f'host: "{host}"']
    if plain:
        fields.append("scheme: http")
    if port and not _is_port(port):
        return None
    if port and port != ("80" if plain else "443"):
        fields.append(f"ports: [{port}]")
    if path:
        fields.append(f'paths: ["{path}/**"]')
    try:
        PathGlob.parse(f"{path}/**")
    except PatternError:
        return None
    return f"write {{{', '.join(fields)}}}" if len(fields) > 1 else f'write "{host}"'


def _is_port(digits: str) -> bool:
    # The length first: a very long number is slow to read.
    return len(digits) <= len("65535") and 1 <= int(digits) <= 65535  # noqa: PLR2004 - the highest


def _parts_of_url(text: str) -> re.Match[str] | None:
    """Take a text apart that says more than the name of a host."""
    found = _url(text)
    if found is None or not any(found[part] for part in ("scheme", "port", "path")):
        return None
    try:
        HostPattern.parse(found["host"].strip("[]"))
    except PatternError:
        return None
    return found


def _fix_of_network(text: str, error: PatternError) -> str | None:
    """Return the fix for what is a network, though not written as one; None if it is none."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    address, _, prefix = text.partition("/")
    if prefix == str(network.prefixlen) != "0" and address != str(network.network_address):
        return f'write "{network}" for the network, or "{address}" for the one address'
    return error.fix


def _imitates(text: str) -> bool:
    """Tell whether a label has Latin letters beside Cyrillic or Greek ones, their look-alikes."""
    for label in text.split("."):
        scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in label}
        if len(scripts & {"LATIN", "CYRILLIC", "GREEK"}) > 1:
            return True
    return False
