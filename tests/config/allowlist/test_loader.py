"""The allowlist file: what it means, what it refuses, and that each refusal says how to fix it."""

import re
from ipaddress import ip_address

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.loader import Library
from claude_proxy.config.allowlist.rules import METHODS
from claude_proxy.config.allowlist.writer import entry_of, facts_of
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.wire.authority import Authority


def load(text: str, **more: str) -> Policy:
    return loader.load(text, name="a.yaml", library=Library(lambda name: more[name]))


def load_entry(entry: str) -> Policy:
    return load(f"allow:\n  - {entry}\n")


def refused(text: str, **more: str) -> list[ConfigError]:
    """Return the problems in `text`, of which there must be some."""
    with pytest.raises(ConfigErrors) as caught:
        load(text, **more)
    return list(caught.value.problems)


def told(text: str, **more: str) -> tuple[str, str, str]:
    """Return what, where and fix of the only problem in `text`."""
    (problem,) = refused(text, **more)
    return problem.what, problem.where or "", problem.fix or ""


def asks(url: str, method: str = "GET") -> Request:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    target = Authority.parse(authority, default_port=443 if scheme == "https" else 80)
    return Request(Scheme(scheme), target, target, method, slash + path or "/")


# What a file means


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "allow:\n", "allow: []\n", "allow:\ndeny:\n", "{}"]
)
def test_an_empty_file_allows_nothing(text: str) -> None:
    policy = load(text)

    assert policy.rules_count == 0
    assert not policy.decide_connect(Authority.parse("example.com:443")).allowed


def test_a_host_by_itself_means_https_on_443_and_every_request() -> None:
    policy = load_entry("example.com")

    (rule,) = policy.allow
    assert facts_of(rule) == {
        "host": "example.com",
        "scheme": "https",
        "ports": [443],
        "methods": None,
        "paths": None,
        "tls": "intercept",
        "addresses": [],
        "note": "",
        "source": "a.yaml:2",
    }


def test_every_field_arrives_in_the_rule() -> None:
    policy = load(
        """
allow:
  - host: git.corp.example
    ports: [443, 8443]
    scheme: https
    methods: [GET, HEAD]
    paths: ["/v1/*", "/docs/**"]
    tls: intercept
    addresses: ["10.1.0.0/16", "fd00::1"]
    note: the forge
"""
    )

    (rule,) = policy.allow
    assert rule.pattern == HostPattern.parse("git.corp.example")
    assert rule.ports == frozenset({443, 8443})
    assert rule.methods == frozenset({"GET", "HEAD"})
    assert rule.paths == (PathGlob.parse("/v1/*"), PathGlob.parse("/docs/**"))
    assert list(map(str, rule.addresses)) == ["10.1.0.0/16", "fd00::1/128"]
    assert (rule.note, rule.tls) == ("the forge", Tls.INTERCEPT)
    assert (rule.source.line, rule.source.column) == (3, 5)


def test_scheme_http_means_port_80_and_nothing_by_tls() -> None:
    policy = load_entry("{host: m.example.com, scheme: http}")

    assert policy.decide_request(asks("http://m.example.com/")).allowed
    assert not policy.decide_request(asks("https://m.example.com/")).allowed
    assert policy.allow[0].ports == frozenset({80})


def test_plain_http_may_use_another_port() -> None:
    policy = load_entry("{host: m.example.com, scheme: http, ports: [8080]}")

    assert policy.decide_request(asks("http://m.example.com:8080/")).allowed


def test_a_deny_entry_covers_every_port_and_both_schemes() -> None:
    policy = load(
        """
allow:
  - {host: a.example.com, ports: [443, 8443]}
  - {host: a.example.com, scheme: http}
deny:
  - a.example.com
"""
    )

    for url in ("https://a.example.com", "https://a.example.com:8443", "http://a.example.com"):
        assert policy.decide_request(asks(url)).reason is Reason.DENY_RULE


def test_a_deny_entry_may_be_narrow() -> None:
    policy = load(
        """
allow: [.example.com]
deny:
  - {host: a.example.com, methods: [DELETE], paths: ["/v1/**"], ports: [443], scheme: https}
"""
    )

    assert policy.decide_request(asks("https://a.example.com/v1/x")).allowed
    assert not policy.decide_request(asks("https://a.example.com/v1/x", "DELETE")).allowed


def test_unicode_names_become_a_labels() -> None:
    assert list(load_entry("Bücher.example").hosts()) == ["xn--bcher-kva.example"]


def test_addresses_permit_what_is_private() -> None:
    policy = load_entry('{host: a.example.com, addresses: ["10.0.0.0/8"]}')
    target = Authority.parse("a.example.com:443")

    assert policy.decide_address(target, ip_address("10.1.2.3")).allowed
    assert not policy.decide_address(target, ip_address("192.168.0.1")).allowed


def test_a_decision_names_its_line() -> None:
    policy = load("allow:\n  - a.example.com\n\n  # a comment\n  - b.example.com\n")

    decision = policy.decide_connect(Authority.parse("b.example.com:443"))
    assert str(decision.rule and decision.rule.source) == "a.yaml:5"


# What is refused: hosts

HOSTS = {
    "everything": ('"*"', 'the host pattern "*" matches every host', 'use "*.example.com"'),
    "everything, twice": ('"*.*"', 'the host pattern "*.*" matches every host', "name the host"),
    "a top-level domain": ('"*.com"', "covers a public suffix", 'like "*.example.com"'),
    "a registry's suffix": ('".co.uk"', "covers a public suffix", "name the hosts"),
    "a provider's suffix": ('"*.github.io"', "covers a public suffix", "name the hosts"),
    "a scheme": ("https://a.example.com", "holds a scheme", 'write "a.example.com"'),
    "plain http": (
        "http://a.example.com",
        "holds a scheme",
        'write {host: "a.example.com", scheme: http}',
    ),
    "a whole URL": (
        "https://a.example.com:8443/v1/x?y=z",
        "holds a scheme",
        'write {host: "a.example.com", ports: [8443], paths: ["/v1/x/**"]}',
    ),
    "a path": (
        "a.example.com/v1/",
        "holds a path",
        'write {host: "a.example.com", paths: ["/v1/**"]}',
    ),
    "a port": (
        "a.example.com:8443",
        "holds a port",
        'write {host: "a.example.com", ports: [8443]}',
    ),
    "user info": ("me@a.example.com", "holds user info", "write the host alone"),
    "a regular expression": (r"^api\.example\.com$", "no name has", "no regular expression"),
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
    "every address": ("0.0.0.0/0", "holds every address", "name the networks"),
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
    "a port twice": ("ports: [443, 443]", "443 stands twice", "delete one", ".ports[1]"),
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
    "a URL for a path": ('paths: ["https://x/"]', "slash", "the path alone", ".paths[0]"),
    "a query": ('paths: ["/a?b=c"]', '"?"', "the query is not judged", ".paths[0]"),
    "a climbing path": ('paths: ["/a/../b"]', "holds", "always denied", ".paths[0]"),
    "an encoded path": ('paths: ["/a%2fb"]', "holds", "always denied", ".paths[0]"),
    "stars inside": ('paths: ["/a/**/b"]', "before its end", "only at the end", ".paths[0]"),
    "a path by itself": ("paths: /v1", "not a list", "write paths: [/v1]", ".paths"),
    "no paths": ("paths: []", "an empty list", "to mean every path", ".paths"),
    "an unknown scheme": ("scheme: ftp", '"ftp" is no value of scheme', "https or http", ".scheme"),
    "a shouted scheme": ("scheme: HTTPS", "no value of scheme", "https or http", ".scheme"),
    "a list of schemes": ("scheme: [http]", "no value of scheme", "https or http", ".scheme"),
    "tls off": ("tls: off", '"off" is no value of tls', "intercept or passthrough", ".tls"),
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
    "a list for a note": ("note: [a]", "a list where a text belongs", "write a text", ".note"),
    "a mapping for a note": ("note: {a: b}", "a mapping where", "write a text", ".note"),
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
    assert re.fullmatch(rf"a\.yaml:[34]:\d+, allow\[0\]{re.escape(key)}", where)


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


# What is refused: the file

SHAPES = {
    "a list": ("- a.example.com", "the file is a list, not a mapping", "allow:"),
    "a word": ("a.example.com", "the file is a single value, not a mapping", "allow:"),
    "null": ("~", "the file is a single value, not a mapping", "allow:"),
    "a word for the list": ("allow: a.example.com", "allow is not a list", 'after "- "'),
    "a mapping for the list": ("deny: {a: b}", "deny is not a list", 'after "- "'),
    "null for the list": ("allow: null", "allow is not a list", 'after "- "'),
    "a list in the list": ("allow: [[a.example.com]]", "a list inside the list", 'one "- "'),
    "an unknown list": ("colours: []", 'unknown key "colours"', "deny, credentials and anthropic"),
    "another program's list": ("whitelist: []", 'unknown key "whitelist"', "write allow"),
    "a misspelt list": ("allw: []", 'unknown key "allw"', "did you mean allow?"),
    "a capital": ("Allow: []", 'unknown key "Allow"', "did you mean allow?"),
    "presets as a key": ("presets: [claude]", 'unknown key "presets"', '"- preset: NAME"'),
    "an odd key": ("zzz: x", 'unknown key "zzz"', "a file has description, default, network,"),
    "a description that is a list": ("description: []", "a list where a text", "write a text"),
    "no such default": ("default: Allow", '"Allow" is no value of default', "write deny or allow"),
    "no such network": ("network: off", '"off" is no value of network', "proxy or none or open"),
    "no such profile": ("profile: ../x", '"../x" is not a profile', "such as claude or shell"),
    "one include": ("include: a.yaml", "include is not a list", "write include: [a.yaml]"),
    "a key of bw-claude": ("filesystem: shell", 'unknown key "filesystem"', "write profile"),
    "a denial without a proxy": (
        "network: open\ndeny: [x.test]",
        "deny has no effect with network: open",
        "delete deny, or write network: proxy",
    ),
    "a limit that is open": (
        "default: allow\nallow: [{host: x.test, methods: [GET]}]",
        "methods cannot be kept here, as default: allow lets every request through",
        "delete methods",
    ),
    "a preset as a host": ("allow: [npm]", '"npm" is the name of a preset', '"- preset: npm"'),
    "an unknown preset": ("allow: [{preset: clod}]", 'unknown preset "clod"', "mean claude?"),
    "no preset like it": ("allow: [{preset: zzzz}]", "unknown preset", "`claude-proxy presets`"),
    "a list of presets": ("allow: [{preset: [npm]}]", "not the name", "name of one preset"),
    "an empty preset": ("allow: [{preset: }]", "not the name of a preset", "name of one preset"),
    "a preset with more": ("allow: [{preset: npm, note: x}]", '"note" beside', "of its own"),
    "presets for preset": ("allow: [{presets: npm}]", 'unknown key "presets"', "- preset: NAME"),
    "a preset to deny": ("deny: [{preset: npm}]", 'unknown key "preset"', "presets are for allow"),
}


@pytest.mark.parametrize(("text", "what", "fix"), SHAPES.values(), ids=SHAPES)
def test_a_file_of_the_wrong_shape_is_refused(text: str, what: str, fix: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loader.load(text, name="a.yaml")

    (problem,) = caught.value.problems
    assert what in problem.what
    assert fix in (problem.fix or "")


def test_a_host_of_a_presets_name_can_still_be_named() -> None:
    assert list(load("allow: [{host: npm}]", npm="allow: []").hosts()) == ["npm"]
    assert list(load("deny: [npm]", npm="allow: []").hosts()) == []


def test_all_problems_are_told_at_once() -> None:
    problems = refused(
        """
allow:
  - https://a.example.com
  - host: b.example.com
    ports: ["443"]
    methods: [get, FROB]
    color: red
  - NO
denied: []
"""
    )

    assert [problem.where for problem in problems] == [
        "a.yaml:3:5, allow[0]",
        "a.yaml:5:13, allow[1].ports[0]",
        "a.yaml:6:15, allow[1].methods[0]",
        "a.yaml:6:20, allow[1].methods[1]",
        "a.yaml:7:5, allow[1]",
        "a.yaml:8:5, allow[2]",
        "a.yaml:9:1",
    ]
    assert all(problem.fix for problem in problems)
    assert problems[0].exit_code == 2


def test_what_yaml_refuses_and_what_we_refuse_come_together() -> None:
    problems = refused("allow:\n  - &x a.example.com\n  - *x\n  - NO\n  - {<<: {a: b}}\n")

    assert [problem.what for problem in problems] == [
        "an anchor (&x)",
        "an alias (*x)",
        '"NO" without quotes is a boolean in YAML',
        "a merge key (<<)",
    ]


def test_a_broken_value_is_reported_once() -> None:
    problems = refused(
        "allow:\n  - host: &x a.example.com\n    ports: *x\n    methods: [GET, *x]\n"
        "  - preset: *x\ndeny: *x\n"
    )

    assert {problem.what for problem in problems} == {"an anchor (&x)", "an alias (*x)"}
    assert len(problems) == 5


# Presets


def test_a_preset_brings_its_rules_and_their_lines() -> None:
    policy = load(
        "allow: [{preset: a}]",
        a="description: d\nallow:\n  - preset: b\n  - a.example.com\n",
        b="description: d\nallow:\n  - b.example.com\n",
    )

    assert [(rule.name, str(rule.source)) for rule in policy.allow] == [
        ("b.example.com", "preset b:3"),
        ("a.example.com", "preset a:4"),
    ]


def test_a_preset_named_twice_counts_once() -> None:
    lists = {"a": "allow: [{preset: b}, a.example.com]", "b": "allow: [b.example.com]"}

    policy = load("allow: [{preset: b}, {preset: a}, {preset: b}]", **lists)

    assert [rule.name for rule in policy.allow] == ["b.example.com", "a.example.com"]


def test_presets_that_include_each_other_are_refused_with_the_way_round() -> None:
    what, where, _ = told(
        "allow:\n  - preset: a\n",
        a="allow: [{preset: b}]",
        b="allow: [{preset: c}]",
        c="allow: [{preset: a}]",
    )

    assert "presets include each other: a -> b -> c -> a" in what
    assert where == "a.yaml:2:13, allow[0].preset"


def test_a_preset_that_includes_itself_is_refused() -> None:
    what, _, _ = told("allow: [{preset: a}]", a="allow: [{preset: a}]")

    assert "presets include each other: a -> a" in what


def test_a_broken_preset_is_told_at_the_entry_that_names_it() -> None:
    what, where, fix = told("allow: [{preset: a}]", a='allow: ["*"]')

    assert what.startswith('the preset a is wrong: the host pattern "*" matches every host')
    assert "a.yaml:1:9, allow[0]" in what
    assert where == "a.yaml:1:18, allow[0].preset"
    assert fix


def test_a_preset_denies_nothing() -> None:
    what, _, _ = told("allow: [{preset: a}]", a="deny: [a.example.com]")

    assert "a preset cannot have deny" in what


# Passthrough

CLASHES = {
    "the same host": ("a.example.com", "a.example.com"),
    "a wildcard above": ("*.example.com", "a.example.com"),
    "a domain above": (".example.com", "a.b.example.com"),
    "the domain of a wildcard": (".example.com", "*.example.com"),
    "the apex of a domain": (".example.com", "example.com"),
    "the same wildcard": ("*.example.com", "*.example.com"),
    "the same address": ("192.0.2.1", "192.0.2.1"),
    "a network above": ("192.0.2.0/24", "192.0.2.128/25"),
}


@pytest.mark.parametrize(("through", "limited"), CLASHES.values(), ids=CLASHES)
@pytest.mark.parametrize("limit", ["methods: [GET]", "paths: [/a]"])
def test_limits_below_a_passthrough_are_refused(through: str, limited: str, limit: str) -> None:
    what, where, fix = told(
        f'allow:\n  - {{host: "{through}", tls: passthrough}}\n  - {{host: "{limited}", {limit}}}\n'
    )

    assert f"{through} (a.yaml:2) passes TLS through" in what
    assert where == f"a.yaml:3:5, {limited}"
    assert "a.yaml:2" in fix


@pytest.mark.parametrize(("one", "other"), CLASHES.values(), ids=CLASHES)
def test_a_denial_of_requests_and_a_passthrough_clash_both_ways(one: str, other: str) -> None:
    for through, denied in ((one, other), (other, one)):
        text = (
            f'allow: [{{host: "{through}", tls: passthrough}}]\n'
            f'deny: [{{host: "{denied}", methods: [DELETE]}}]\n'
        )

        assert "methods cannot be checked here" in told(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        # An exception from a limit: written on purpose, and it can be kept.
        'allow: [{host: "*.example.com", methods: [GET]}, {host: a.example.com, tls: passthrough}]',
        "allow: [{host: a.example.com, tls: passthrough}, {host: b.example.com, paths: [/]}]",
        "allow: [{host: a.test, tls: passthrough, ports: [8443]}, {host: a.test, methods: [GET]}]",
        "allow: [{host: a.test, tls: passthrough}, {host: a.test, scheme: http, methods: [GET]}]",
        "allow: [{host: a.test, tls: passthrough}]\n"  # noqa: ISC004
        "deny: [{host: a.test, scheme: http, methods: [GET]}, a.a.test]",
        "allow: [{host: 192.0.2.1, tls: passthrough}, {host: 192.0.2.2, methods: [GET]}]",
    ],
)
def test_limits_elsewhere_stand_beside_a_passthrough(text: str) -> None:
    assert load(text).rules_count >= 2


def test_passing_through_what_a_preset_limits_is_refused_in_the_owners_file() -> None:
    what, where, _ = told(
        "allow:\n  - preset: a\n  - {host: a.example.com, tls: passthrough}\n",
        a="allow:\n  - {host: a.example.com, paths: [/x]}\n",
    )

    assert what == ("passing TLS through here would undo the paths of a.example.com (preset a:2)")
    assert where == "a.yaml:3:5, a.example.com"


def test_a_passthrough_is_one() -> None:
    policy = load_entry("{host: a.example.com, tls: passthrough}")

    assert policy.decide_connect(Authority.parse("a.example.com:443")).tls is Tls.PASSTHROUGH


# Size


def test_a_long_list_is_taken_whole() -> None:
    count = 5_000
    policy = load("allow:\n" + "".join(f"  - h{n}.example.com\n" for n in range(count)))

    assert policy.rules_count == count
    assert policy.decide_connect(Authority.parse(f"h{count - 1}.example.com:443")).allowed


def test_a_long_list_of_mistakes_is_told_in_part() -> None:
    problems = refused("allow:\n" + "".join(f"  - https://h{n}\n" for n in range(1_000)))

    assert len(problems) == nodes.MAX_PROBLEMS + 1
    assert problems[-1].what == "900 more problems in this file are not shown"


# Properties


@given(st.text())
def test_any_text_is_loaded_or_refused(text: str) -> None:
    try:
        load(text)
    except ConfigError as error:
        lines = error.lines()
    else:
        lines = []

    assert all(line.isprintable() for line in lines)


WORDS = st.sampled_from(
    [
        *("allow", "deny", "host", "ports", "methods", "paths", "tls", "scheme", "addresses"),
        *("note", "preset", "claude", "a.example.com", "*.example.com", ".example.com", "*"),
        *("443", "80", "GET", "get", "/v1/**", "v1", "passthrough", "http", "10.0.0.0/8", "~"),
        *("NO", "", "https://x/", "::1", "10.0.0.1/8", "<<", "x" * 300),
    ]
)
TREES = st.recursive(
    WORDS | st.integers() | st.none() | st.booleans() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


@given(st.fixed_dictionaries({}, optional={"allow": st.lists(TREES), "deny": st.lists(TREES)}))
def test_any_shape_is_loaded_or_refused_with_a_fix(tree: dict[str, object]) -> None:
    text = yaml.safe_dump(tree, default_flow_style=True)

    problems: tuple[ConfigError, ...] = ()
    try:
        loader.load(text, name="a.yaml")
    except ConfigErrors as errors:
        problems = errors.problems

    assert all(problem.fix and problem.where for problem in problems)


HOST_ENTRIES = st.sampled_from(
    ["a.example.com", "*.example.com", ".example.com", "192.0.2.1", "10.0.0.0/8", "2001:db8::1"]
)
RULES = st.fixed_dictionaries(
    {"host": HOST_ENTRIES},
    optional={
        "scheme": st.sampled_from(["https", "http"]),
        "ports": st.lists(st.integers(1024, 65535), min_size=1, max_size=3, unique=True),
        "methods": st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
        "paths": st.lists(
            st.sampled_from(["/", "/a", "/a/*", "/*/b", "/**"]), min_size=1, unique=True
        ),
        "note": st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1),
    },
)


def test_a_passthrough_is_printed_as_one() -> None:
    (rule,) = load_entry("{host: a.example.com, tls: passthrough, addresses: [10.0.0.0/8]}").allow

    assert entry_of(rule) == ('{host: a.example.com, tls: passthrough, addresses: ["10.0.0.0/8"]}')


@given(RULES)
def test_a_rule_printed_as_an_entry_loads_to_the_same_rule(entry: dict[str, object]) -> None:
    (rule,) = loader.load(yaml.safe_dump({"allow": [entry]}), name="a.yaml").allow

    (again,) = load_entry(entry_of(rule)).allow

    assert facts_of(again) | {"source": ""} == facts_of(rule) | {"source": ""}
