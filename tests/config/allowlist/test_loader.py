"""Policy files: what they mean, what they refuse, and that each refusal says how to fix it."""

from ipaddress import ip_address

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.writer import facts_of
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.wire.address import Address, AddressKind, kind_of
from claude_proxy.wire.authority import Authority
from tests.config.allowlist.reading import asks, load, load_entry, refused, told

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
        "ask": False,
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
    "a description that is a list": ("description: []", "a list where a string", "write a string"),
    "no such default": (
        "default: Allow",
        '"Allow" is not a value of default',
        "write deny or allow",
    ),
    "no such network": ("network: off", '"off" is not a value of network', "proxy or none or open"),
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

    assert what.startswith('the preset a has a mistake: the host pattern "*" matches every host')
    assert "a.yaml:1:9, allow[0]" in what
    assert where == "a.yaml:1:18, allow[0].preset"
    assert fix


def test_a_preset_denies_nothing() -> None:
    what, _, _ = told("allow: [{preset: a}]", a="deny: [a.example.com]")

    assert "a preset cannot have deny" in what


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


# A default of allow

OPEN = load("default: allow\n")


def at(text: str) -> Authority:
    return Authority.parse(text, default_port=443)


@pytest.mark.parametrize(
    "target", ["x.test", "x.test:80", "x.test:22", "8.8.8.8", "[2606:4700::1]"]
)
def test_a_default_allow_covers_every_public_host_and_port(target: str) -> None:
    assert OPEN.decide_connect(at(target)).allowed
    for scheme in Scheme:
        request = Request(scheme, at(target), at(target), "DELETE", "/")
        assert OPEN.decide_request(request).allowed


@given(st.ip_addresses())
def test_a_default_allow_leads_to_no_address_that_is_not_public(address: Address) -> None:
    public = kind_of(address) is AddressKind.PUBLIC

    by_name = OPEN.decide_address(at("x.test"), address)

    assert by_name.allowed is public
    assert public or by_name.reason is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "literal",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("[::1]", "[fd00::1]", "[fe80::1]", "[::ffff:a00:1]", "[64:ff9b::a00:1]", "[::7f00:1]"),
        *("168.63.129.16", "224.0.0.1", "255.255.255.255"),
    ],
)
def test_a_default_allow_leads_to_no_literal_that_is_not_public(literal: str) -> None:
    assert not OPEN.decide_connect(at(literal)).allowed
    assert not OPEN.decide_address(at(literal), ip_address(literal.strip("[]"))).allowed


def test_an_entry_can_name_a_private_address_beside_a_default_allow() -> None:
    found = load("default: allow\nallow: [10.0.0.1]\n")

    assert found.decide_address(at("10.0.0.1"), ip_address("10.0.0.1")).allowed
    assert found.decide_connect(at("10.0.0.2")).reason is Reason.ADDRESS_NOT_ALLOWED


def test_a_default_allow_opens_tls_and_keeps_agreement() -> None:
    target = at("x.test")

    assert OPEN.decide_connect(target).tls is Tls.INTERCEPT
    assert not OPEN.decide_hello(target, "y.test", encrypted=False, tls=Tls.INTERCEPT).allowed
    assert not OPEN.decide_hello(target, None, encrypted=False, tls=Tls.INTERCEPT).allowed
    assert not OPEN.decide_hello(target, "x.test", encrypted=True, tls=Tls.PASSTHROUGH).allowed
    fronted = Request(Scheme.HTTPS, target, at("y.test"), "GET", "/")
    assert OPEN.decide_request(fronted).reason is Reason.HOST_MISMATCH
    assert not OPEN.decide_request(Request(Scheme.HTTPS, target, target, "TRACE", "/")).allowed


def test_a_denial_wins_over_a_default_allow_and_over_narrower_entries() -> None:
    found = load("default: allow\nallow: [a.x.test]\ndeny: ['*.x.test']\n")

    assert found.decide_connect(at("a.x.test")).reason is Reason.DENY_RULE
    assert found.decide_connect(at("x.test")).allowed


@pytest.mark.parametrize("text", ["*", "**", "*.*", ".", "0.0.0.0/0", "::/0", "", "*."])
def test_no_text_is_the_pattern_of_every_host(text: str) -> None:
    refused(f'allow: ["{text}"]\n')


# A project's file


def test_a_projects_file_denies_even_what_is_allowed_most_narrowly() -> None:
    rules = loader.load_narrowing('deny: ["*.test"]\n', name="n.yaml")

    policy = load("allow: [a.test]\n").with_denials(rules)

    assert policy.decide_connect(at("a.test")).reason is Reason.DENY_RULE


@pytest.mark.parametrize("key", ["allow", "credentials", "anthropic", "default", "include"])
def test_a_projects_file_cannot_give(key: str) -> None:
    with pytest.raises(ConfigErrors):
        loader.load_narrowing(f"{key}: []\n", name="n.yaml")


def test_a_projects_file_may_hold_what_is_for_the_run() -> None:
    text = "hide: [secrets]\nread_only: [.git]\nnetwork: none\ndeny: [x.test]\n"

    (rule,) = loader.load_narrowing(text, name="n.yaml")

    assert rule.name == "x.test"


@pytest.mark.parametrize("text", ["", "deny:\n", "deny: []\n"])
def test_an_empty_projects_file_takes_nothing_away(text: str) -> None:
    assert loader.load_narrowing(text, name="n.yaml") == ()
