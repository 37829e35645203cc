"""Laws of hosts in a file: one that cannot be meant is refused with the entry that was meant."""

import re

import pytest

from tests.config.allowlist.reading import load_entry, told

# What is refused: hosts

HOSTS = {
    "everything": ('"*"', 'the host pattern "*" matches every host', 'use "*.example.com"'),
    "everything, twice": ('"*.*"', 'the host pattern "*.*" matches every host', "name the host"),
    "a top-level domain": ('"*.com"', "covers a public suffix", 'like "*.example.com"'),
    "a registry's suffix": ('".co.uk"', "covers a public suffix", "name the hosts"),
    "a provider's suffix": ('"*.github.io"', "covers a public suffix", "name the hosts"),
    "a scheme": ("https://a.example.com", "contains a scheme", 'write "a.example.com"'),
    "plain http": (
        "http://a.example.com",
        "contains a scheme",
        'write {host: "a.example.com", scheme: http}',
    ),
    "a whole URL": (
        "https://a.example.com:8443/v1/x?y=z",
        "contains a scheme",
        'write {host: "a.example.com", ports: [8443], paths: ["/v1/x/**"]}',
    ),
    "a path": (
        "a.example.com/v1/",
        "contains a path",
        'write {host: "a.example.com", paths: ["/v1/**"]}',
    ),
    "a port": (
        "a.example.com:8443",
        "contains a port",
        'write {host: "a.example.com", ports: [8443]}',
    ),
    "a port that is none": ("a.example.com:99999", "contains a port", "the port under `ports`"),
    "user info": ("me@a.example.com", "contains user info", "write only the host"),
    "a regular expression": (r"^api\.example\.com$", "no name has", "not a regular expression"),
    "a wildcard inside": ('"a.*.example.com"', "has a wildcard inside", "the whole first label"),
    "a wildcard that begins a label": ('"*example.com"', "has a wildcard inside", "first label"),
    "two stars": ('"**.example.com"', "has a wildcard inside", "first label"),
    "brackets": ('"[2001:db8::1]"', "is in brackets", 'write "2001:db8::1"'),
    "two hosts": ("a.example.com, b.example.com", "is more than one word", "of its own"),
    "two lines that became one": (
        "a.example.com\n     - b.example.com",
        "than one word",
        "indented alike",
    ),
    "an empty text": ('""', "the host is empty", "name the host"),
    "a blank text": ('"  "', "the host is empty", "name the host"),
    "an empty label": ("a..example.com", "an empty label", "in a URL"),
    "a boolean": ("NO", '"NO" without quotes is a boolean', 'put it in quotes: "NO"'),
    "a number": ("443.0", "443.0 is a number, not a host", "name a host"),
    "a decimal address": ("2130706433", "is a number, not a host", "name a host"),
    "a short address": ('"127.1"', "not an IPv4 address in its canonical spelling", "four numbers"),
    "an octal address": ("0177.0.0.1", "canonical", "four numbers"),
    "full-width digits": ("１.1.1.1", "not valid IDNA", "four numbers"),
    "null": ("~", "the value is missing", "write it, or delete it"),
    "nothing": ("", "an empty entry", "delete the line"),
    "a missing space": ("host:a.example.com", "lacks a space", "colon: host: a.example.com"),
    "a preset without a space": ("preset:npm", "lacks a space", "colon: preset: npm"),
    "a network with host bits": (
        "10.1.2.3/8",
        "not in its canonical spelling",
        'write "10.0.0.0/8" for the network, or "10.1.2.3" for the one address',
    ),
    "a netmask": ("10.0.0.0/255.0.0.0", "not in its canonical spelling", 'write "10.0.0.0/8"'),
    "every address": ("0.0.0.0/0", "contains every address", "name the networks"),
    "IPv4 in IPv6": ('"::ffff:a00:1"', "hides an IPv4 address", "10.0.0.1"),
    "letters of two scripts": (
        "\u0430pple.example.com",
        "letters that imitate others",
        'write "xn--pple-43d.example.com"',
    ),
}


@pytest.mark.parametrize(("entry", "what", "fix"), HOSTS.values(), ids=HOSTS)
def test_a_host_that_cannot_be_meant_is_refused(entry: str, what: str, fix: str) -> None:
    found, where, way_out = told(f"allow:\n  - {entry}\n")

    assert what in found
    assert fix in way_out
    assert where.startswith("a.yaml:2:")
    assert where.endswith(", allow[0]")


@pytest.mark.parametrize(("entry", "what", "fix"), HOSTS.values(), ids=HOSTS)
def test_a_deny_entry_and_the_host_field_are_as_strict(entry: str, what: str, fix: str) -> None:
    if entry in {"", "a.example.com\n     - b.example.com"}:
        return
    for text in (f"deny: [{entry}]", f"allow:\n  - host: {entry}\n"):
        if not (text.startswith("deny") and "," in entry):
            found, _, way_out = told(text)
            assert what in found
            assert fix in way_out


@pytest.mark.parametrize("entry", [entry for entry, _, fix in HOSTS.values() if "write " in fix])
def test_a_fix_that_spells_an_entry_spells_one_that_loads(entry: str) -> None:
    _, _, fix = told(f"allow:\n  - {entry}\n")

    spelled = re.search(r'write ("[^"]+"|\{.*\})', fix)
    if spelled is not None:
        assert load_entry(spelled[1]).rules_count == 1


@pytest.mark.parametrize(
    "suffix", ["example.com", "*.example.com", ".example.com", "s3.amazonaws.com"]
)
def test_what_is_narrow_enough_is_taken(suffix: str) -> None:
    assert list(load_entry(f'"{suffix}"').hosts()) == [suffix]
