"""Laws of rule fields: a value that cannot be kept is refused, with its place and its fix."""

import re

import pytest

from tests.config.allowlist.reading import load, told

# What is refused: fields

FIELDS = {
    "a quoted port": ('ports: ["443"]', 'the port "443" is in quotes', "write 443", ".ports[0]"),
    "quoted words for a port": ('ports: ["x"]', "is in quotes", "whole number", ".ports[0]"),
    "a fraction": ("ports: [443.0]", "443.0 is not a port number", "whole number", ".ports[0]"),
    "an exponent": ("ports: [1e3]", "1e3 is not a port number", "whole number", ".ports[0]"),
    "hexadecimal": ("ports: [0x1bb]", "0x1bb is not a port number", "whole number", ".ports[0]"),
    "a leading zero": ("ports: [0443]", "0443 is not a port number", "whole number", ".ports[0]"),
    "a null port": ("ports: [~]", "~ is not a port number", "whole number", ".ports[0]"),
    "a negative port": ("ports: [-1]", "-1 is not a port number", "whole number", ".ports[0]"),
    "port 0": ("ports: [0]", "0 is not a port number", "whole number", ".ports[0]"),
    "a port above 65535": ("ports: [65536]", "above 65535", "whole number", ".ports[0]"),
    "a range of ports": ("ports: [8000-9000]", "not a port number", "name each", ".ports[0]"),
    "a list for a port": ("ports: [[443]]", "not a port number", "whole number", ".ports[0]"),
    "a port by itself": ("ports: 443", "ports is not a list", "write ports: [443]", ".ports"),
    "no ports": ("ports: []", "ports is an empty list", "ports: [443, 8443]", ".ports"),
    "ports left empty": ("ports:", "ports is not a list", "ports: [443, 8443]", ".ports"),
    "a port twice": ("ports: [443, 443]", "443 is listed twice", "delete one", ".ports[1]"),
    "port 80 by TLS": ("ports: [80]", "port 80 is for scheme http", "scheme: http", ".ports"),
    "a method in small letters": ("methods: [get]", "not in capitals", "write GET", ".methods[0]"),
    "a misspelt method": ("methods: [DELET]", "unknown", "did you mean DELETE?", ".methods[0]"),
    "a made-up method": ("methods: [FROB]", "unknown method", "use one of GET", ".methods[0]"),
    "TRACE": ("methods: [TRACE]", "TRACE is always denied", "delete it", ".methods[0]"),
    "CONNECT": ("methods: [CONNECT]", "always denied", "delete it", ".methods[0]"),
    "any method": ('methods: ["*"]', "not a method", "leave methods out", ".methods[0]"),
    "a method by itself": ("methods: GET", "not a list", "write methods: [GET]", ".methods"),
    "no methods": ("methods: []", "an empty list", "to mean every method", ".methods"),
    "a boolean method": ("methods: [NO]", "is a boolean", "in quotes", ".methods[0]"),
    "a path without a slash": ("paths: [v1]", "begin with a slash", 'write "/v1"', ".paths[0]"),
    "a URL for a path": ('paths: ["https://x/"]', "slash", "only the path", ".paths[0]"),
    "a query": ('paths: ["/a?b=c"]', '"?"', "the query is not judged", ".paths[0]"),
    "a climbing path": ('paths: ["/a/../b"]', "contains", "always denied", ".paths[0]"),
    "an encoded path": ('paths: ["/a%2fb"]', "contains", "always denied", ".paths[0]"),
    "stars inside": ('paths: ["/a/**/b"]', "before its end", "only at the end", ".paths[0]"),
    "a path by itself": ("paths: /v1", "not a list", "write paths: [/v1]", ".paths"),
    "no paths": ("paths: []", "an empty list", "to mean every path", ".paths"),
    "an unknown scheme": (
        "scheme: ftp",
        '"ftp" is not a value of scheme',
        "https or http or tcp",
        ".scheme",
    ),
    "a shouted scheme": (
        "scheme: HTTPS",
        "not a value of scheme",
        "https or http or tcp",
        ".scheme",
    ),
    "a list of schemes": (
        "scheme: [http]",
        "not a value of scheme",
        "https or http or tcp",
        ".scheme",
    ),
    "tls off": ("tls: off", '"off" is not a value of tls', "intercept or passthrough", ".tls"),
    "an address with host bits": (
        "addresses: [10.0.0.1/8]",
        "not in its canonical spelling",
        'write "10.0.0.0/8" for the network, or "10.0.0.1" for the one address',
        ".addresses[0]",
    ),
    "a name for an address": (
        "addresses: [b.example.com]",
        "neither an IP address nor a network",
        "10.1.2.0/24",
        ".addresses[0]",
    ),
    "every address": ('addresses: ["::/0"]', "every address", "name the net", ".addresses[0]"),
    "no addresses": ("addresses: []", "an empty list", "delete the line", ".addresses"),
    "an unquoted note": ("note: NO", "is a boolean", 'quotes: "NO"', ".note"),
    "a number for a note": ("note: 2026", "is a number", 'quotes: "2026"', ".note"),
    "a date for a note": ("note: 2026-11-21", "is a date", "quotes", ".note"),
    "a list for a note": ("note: [a]", "a list where a string belongs", "write a string", ".note"),
    "a mapping for a note": ("note: {a: b}", "a mapping where", "write a string", ".note"),
    "an empty note": ("note:", "the value is missing", "delete it", ".note"),
    "an unknown field": ("colour: red", 'unknown key "colour"', "use one of host", ""),
    "a misspelt field": ("metods: [GET]", "unknown key", "did you mean methods?", ""),
    "another program's word": ("port: [443]", "unknown key", "write ports", ""),
    "passthrough with paths": (
        "tls: passthrough\n    paths: [/a]",
        "paths cannot be checked",
        "delete paths, or tls: passthrough",
        ".paths",
    ),
    "passthrough with methods": (
        "tls: passthrough\n    methods: [GET]",
        "methods cannot be checked",
        "delete methods, or tls: passthrough",
        ".methods",
    ),
    "TLS for plain HTTP": ("scheme: http\n    tls: intercept", "has no TLS", "delete", ".tls"),
    "tcp without a port": ("scheme: tcp", "names no port", "ports: [5432]", ".ports"),
    "tcp with methods": (
        "scheme: tcp\n    ports: [22]\n    methods: [GET]",
        "methods cannot be kept with scheme: tcp",
        "delete methods",
        ".methods",
    ),
    "tcp with paths": (
        "scheme: tcp\n    ports: [22]\n    paths: [/a]",
        "paths cannot be kept with scheme: tcp",
        "delete paths",
        ".paths",
    ),
    "tcp with TLS": (
        "scheme: tcp\n    ports: [22]\n    tls: intercept",
        "tls cannot be kept with scheme: tcp",
        "delete tls",
        ".tls",
    ),
    "tcp on a port of HTTPS": (
        "scheme: tcp\n    ports: [22, 443]",
        "port 443 is for https",
        "tls: passthrough",
        ".ports",
    ),
    "tcp on a port of HTTP": (
        "scheme: tcp\n    ports: [80]",
        "port 80 is for http",
        "delete",
        ".ports",
    ),
    "passthrough where no TLS begins": (
        "tls: passthrough\n    ports: [22, 443]",
        "SSH on port 22 does not begin with TLS",
        "write scheme: tcp in place of tls: passthrough, for port 22",
        ".tls",
    ),
    "port 443 by HTTP": (
        "scheme: http\n    ports: [443]",
        "port 443 is for scheme https",
        "entry of its own",
        ".ports",
    ),
}


@pytest.mark.parametrize(("field", "what", "fix", "key"), FIELDS.values(), ids=FIELDS)
def test_a_field_that_cannot_be_kept_is_refused(field: str, what: str, fix: str, key: str) -> None:
    found, where, way_out = told(f"allow:\n  - host: a.example.com\n    {field}\n")

    assert what in found
    assert fix in way_out
    assert re.fullmatch(rf"a\.yaml:[345]:\d+, allow\[0\]{re.escape(key)}", where)


def test_a_place_is_the_line_and_column_of_the_value() -> None:
    text = "deny: []\nallow:\n  - a.example.com\n  - host: b.example.com\n    ports: [443, no]\n"

    assert told(text)[1] == "a.yaml:5:18, allow[1].ports[1]"


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.0/24", '"2001:db8::1"'])
def test_addresses_for_an_address_are_refused(address: str) -> None:
    what, _, _ = told(f"allow:\n  - {{host: {address}, addresses: [10.0.0.0/8]}}")

    assert what == "addresses are for host names, and this host is an address itself"


@pytest.mark.parametrize("field", ["tls: intercept", "addresses: [10.0.0.0/8]"])
def test_a_deny_entry_takes_no_field_that_allows(field: str) -> None:
    what, where, fix = told(f"deny:\n  - host: a.example.com\n    {field}\n")

    assert what.startswith("unknown key")
    assert where == "a.yaml:3:5, deny[0]"
    assert fix == "a deny entry takes host, ports, scheme, methods, paths, note"


def test_a_deny_entry_may_name_port_80_without_a_scheme() -> None:
    assert load("deny: [{host: a.example.com, ports: [80, 443]}]").deny[0].ports == frozenset(
        {80, 443}
    )


def test_an_entry_without_a_host_is_refused() -> None:
    assert told("allow: [{ports: [443]}]") == (
        "the entry names no host",
        "a.yaml:1:9, allow[0]",
        "add a line: host: example.com",
    )


def test_a_colon_after_a_host_is_explained() -> None:
    what, _, fix = told("allow:\n  - a.example.com:\n")

    assert what == 'unknown key "a.example.com"'
    assert fix.startswith('to name a host, write "- a.example.com" without a colon')
