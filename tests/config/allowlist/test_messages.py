"""`anthropic` of the allowlist: what it means, whose word counts, and what it refuses."""

import json
from contextlib import suppress
from itertools import product
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader as allowlist
from claude_proxy.config.allowlist.loader import Library
from claude_proxy.config.allowlist.messages import FIELDS, KEYS
from claude_proxy.config.allowlist.schema import schema
from claude_proxy.config.allowlist.writer import facts_of_narrowing, narrowing_entry_of
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.policy import Policy
from claude_proxy.wire.authority import Authority

SCHEMA = jsonschema.Draft202012Validator(schema())
MIB = 1024 * 1024

PRESET = """
description: x
allow: [api.anthropic.com]
anthropic:
  - host: api.anthropic.com
    paths: [/v1/messages]
    models: ["claude-*"]
    server_tools: [web_search]
    mcp_servers: allowlisted
    sources: allowlisted
    max_body: 16M
"""


def load(entries: str, **presets: str) -> tuple[ApiRestrictions, ...]:
    lines = "".join(f"  {line}\n" for line in entries.strip("\n").splitlines())
    included = "".join(f"  - preset: {name}\n" for name in presets)
    text = f"allow:\n{included}anthropic:\n{lines}"
    return allowlist.load(
        text, name="a.yaml", library=Library(lambda name: presets[name])
    ).restrictions


def load_entry(entry: str) -> ApiRestrictions:
    (narrowing,) = load(f"- {entry}")
    return narrowing


def refused(entries: str, **presets: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        load(entries, **presets)
    return list(caught.value.problems)


def in_force(
    narrowings: tuple[ApiRestrictions, ...], host: str, port: int = 443
) -> ApiRestrictions | None:
    """Return what the policy takes for a host: the first that covers it."""
    policy = Policy(restrictions=narrowings)
    return policy.restrictions_for(Authority.of(host, port))


# What an entry means


def test_every_key_arrives() -> None:
    (narrowing,) = load(
        """
- host: api.anthropic.com
  ports: [443, 8443]
  paths: [/v1/messages, "/v1/models/*"]
  models: ["claude-*"]
  beta: [oauth-2025-04-20, "context-*"]
  server_tools: [web_search, code_execution]
  mcp_servers: [allowlisted, mcp.example.com, "*.mcp.example.com"]
  sources: [img.example.com]
  max_body: 8M
"""
    )

    assert narrowing == ApiRestrictions(
        patterns=(HostPattern.parse("api.anthropic.com"),),
        source=Location("a.yaml", 3, 5),
        ports=frozenset({443, 8443}),
        paths=(PathGlob.parse("/v1/messages"), PathGlob.parse("/v1/models/*")),
        models=("claude-*",),
        beta=("oauth-2025-04-20", "context-*"),
        server_tools=("web_search", "code_execution"),
        mcp_servers=DestinationScope(
            hosts=(HostPattern.parse("mcp.example.com"), HostPattern.parse("*.mcp.example.com"))
        ),
        sources=DestinationScope(allowlisted=False, hosts=(HostPattern.parse("img.example.com"),)),
        max_bytes=8 * MIB,
    )


def test_a_key_that_nobody_writes_is_not_narrowed() -> None:
    narrowing = load_entry("{host: a.test, models: [m]}")

    assert narrowing == ApiRestrictions(
        (HostPattern.parse("a.test"),), Location("a.yaml", 3, 5), models=("m",)
    )


@pytest.mark.parametrize("key", ["paths", "models", "beta", "server_tools"])
def test_all_is_every_value(key: str) -> None:
    assert getattr(load_entry(f"{{host: a.test, {key}: all}}"), key) is None


@pytest.mark.parametrize("key", ["beta", "server_tools"])
def test_none_is_no_value(key: str) -> None:
    assert getattr(load_entry(f"{{host: a.test, {key}: none}}"), key) == ()


@pytest.mark.parametrize("key", ["mcp_servers", "sources"])
@pytest.mark.parametrize(
    ("word", "reach"),
    [
        ("all", DestinationScope(every=True)),
        ("none", DestinationScope(allowlisted=False)),
        ("allowlisted", DestinationScope()),
        ("[allowlisted]", DestinationScope()),
        ("[a.test]", DestinationScope(allowlisted=False, hosts=(HostPattern.parse("a.test"),))),
    ],
)
def test_a_reach_is_a_word_or_a_list(key: str, word: str, reach: DestinationScope) -> None:
    assert getattr(load_entry(f"{{host: a.test, {key}: {word}}}"), key) == reach


# Whose word counts


def test_a_preset_narrows_its_host() -> None:
    (narrowing,) = load("", p=PRESET)

    assert narrowing.paths == (PathGlob.parse("/v1/messages"),)
    assert str(narrowing.source) == "preset p:5"


def test_an_owners_key_stands_in_the_place_of_a_presets_and_the_others_stay() -> None:
    (narrowing,) = load(
        "- {host: api.anthropic.com, models: all, mcp_servers: [m.test], max_body: 1M}", p=PRESET
    )

    assert narrowing.models is None
    assert narrowing.mcp_servers == DestinationScope(False, False, (HostPattern.parse("m.test"),))
    assert narrowing.max_bytes == MIB
    assert narrowing.paths == (PathGlob.parse("/v1/messages"),)
    assert narrowing.server_tools == ("web_search",)
    assert narrowing.sources == DestinationScope()
    assert narrowing.source.preset is None


def test_an_owners_wider_entry_counts_for_a_presets_host_too() -> None:
    narrowings = load('- {host: ".anthropic.com", models: [only-this]}', p=PRESET)

    api = in_force(narrowings, "api.anthropic.com")
    other = in_force(narrowings, "other.anthropic.com")
    assert api is not None
    assert other is not None
    assert (api.models, other.models) == (("only-this",), ("only-this",))
    assert (api.server_tools, other.server_tools) == (("web_search",), None)


def test_an_owners_narrower_entry_has_the_rest_from_a_presets_wider_one() -> None:
    wide = PRESET.replace("host: api", 'host: "*').replace("*.anthropic.com", '*.anthropic.com"')
    narrowings = load("- {host: eu.anthropic.com, models: all}", p=wide)

    mine = in_force(narrowings, "eu.anthropic.com")
    assert mine is not None
    assert (mine.models, mine.server_tools) == (None, ("web_search",))
    assert in_force(narrowings, "anthropic.com") is None


def test_the_most_specific_entry_comes_first() -> None:
    narrowings = load(
        """
- {host: ".x.test", models: [domain]}
- {host: "*.x.test", models: [below]}
- {host: a.x.test, models: [exact]}
- {host: "*.b.x.test", models: [deeper]}
"""
    )

    found = {
        host: narrowing.models
        for host in ("x.test", "c.x.test", "a.x.test", "d.b.x.test", "b.x.test")
        if (narrowing := in_force(narrowings, host)) is not None
    }
    assert found == {
        "x.test": ("domain",),
        "c.x.test": ("below",),
        "a.x.test": ("exact",),
        "d.b.x.test": ("deeper",),
        "b.x.test": ("below",),
    }
    assert in_force(narrowings, "y.test") is None


def test_an_entry_is_for_every_port_of_its_host() -> None:
    narrowings = load("- {host: a.test, models: [m]}")

    assert all(in_force(narrowings, "a.test", port) for port in (80, 443, 8443, 1, 65535))


def test_entries_of_one_host_may_be_for_different_ports() -> None:
    narrowings = load(
        """
- {host: a.test, ports: [443], models: [m]}
- {host: a.test, ports: [8443, 9443], models: [n], beta: none}
"""
    )

    found = [in_force(narrowings, "a.test", port) for port in (443, 8443, 9443, 80)]
    assert [each and each.models for each in found] == [("m",), ("n",), ("n",), None]
    assert [each and each.beta for each in found] == [None, (), (), None]


def test_an_entry_with_ports_counts_there_before_one_without() -> None:
    narrowings = load(
        """
- {host: a.test, models: [m], beta: [b]}
- {host: a.test, ports: [8443], models: [n]}
"""
    )

    found = [in_force(narrowings, "a.test", port) for port in (443, 8443)]
    assert [each and (each.models, each.beta) for each in found] == [
        (("m",), ("b",)),
        (("n",), ("b",)),
    ]


def test_a_wider_entry_counts_on_its_own_ports_alone() -> None:
    narrowings = load(
        """
- {host: ".x.test", ports: [443, 80], models: [wide]}
- {host: a.x.test, ports: [443, 8443], beta: none}
- {host: b.x.test, sources: none}
"""
    )

    def at(host: str, port: int) -> Any:
        found = in_force(narrowings, host, port)
        return found and (found.models, found.beta, found.sources.every)

    assert at("a.x.test", 443) == (("wide",), (), True)
    assert at("a.x.test", 8443) == (None, (), True)
    assert at("a.x.test", 80) == (("wide",), None, True)
    assert at("a.x.test", 81) is None
    assert at("b.x.test", 443) == (("wide",), None, False)
    assert at("b.x.test", 81) == (None, None, False)


def test_an_address_can_be_narrowed() -> None:
    narrowings = load(
        "- {host: 10.0.0.0/8, models: [wide], beta: none}\n- {host: 10.1.2.3, models: [m]}"
    )

    mine = in_force(narrowings, "10.1.2.3")
    assert mine is not None
    assert (mine.models, mine.beta) == (("m",), ())


# What is refused

MISTAKES = {
    "a text": ("api.anthropic.com", "an entry of anthropic is a mapping", "write - {host:"),
    "no host": ("{models: [m]}", "the entry names no host", "host: api.anthropic.com"),
    "a host and hosts": (
        "{host: a.test, hosts: [b.test], models: [m]}",
        "both host",
        "under hosts",
    ),
    "a host alone": ("{host: a.test}", "the entry restricts nothing", "paths, models"),
    "a wide host": ('{host: "*.com", models: [m]}', "covers a public suffix", "name the hosts"),
    "a misspelt key": ("{host: a.test, modles: [m]}", 'unknown key "modles"', "mean models?"),
    "another name": (
        "{host: a.test, tools: [m], beta: all}",
        'unknown key "tools"',
        "server_tools",
    ),
    "a key of allow": (
        "{host: a.test, methods: [GET], beta: all}",
        'key "methods"',
        "entry of allow",
    ),
    "a model, bare": ("{host: a.test, models: m}", "models is not a list", "write models: [m]"),
    "no models": ("{host: a.test, models: []}", "models is an empty list", "write all"),
    "models: none": ("{host: a.test, models: none}", "nothing to ask for", "under deny"),
    "paths: none": ("{host: a.test, paths: none}", "nothing to ask for", "under deny"),
    "every model": ('{host: a.test, models: ["*"]}', "a name for every one", "write models: all"),
    "two stars": ('{host: a.test, models: ["a**"]}', "not a name", "one word"),
    "two betas in one": ('{host: a.test, beta: ["a,b"]}', "not a name", "one word"),
    "a number": ("{host: a.test, models: [4.5]}", "is a number in YAML", "in quotes"),
    "a model twice": ("{host: a.test, models: [m, m]}", "m is listed twice", "delete one"),
    "no betas": ("{host: a.test, beta: []}", "beta is an empty list", "write none"),
    "a tool that is a number": (
        "{host: a.test, server_tools: [5]}",
        "is a number in YAML",
        "in quotes",
    ),
    "a dated tool": (
        "{host: a.test, server_tools: [web_search_20250305]}",
        "a tool with its date",
        "write web_search,",
    ),
    "a tool with hyphens": (
        "{host: a.test, server_tools: [web-search]}",
        "not the type of a tool",
        "web_search",
    ),
    "a path without a slash": (
        "{host: a.test, paths: [v1]}",
        "not begin with a slash",
        'write "/v1"',
    ),
    "a path with a query": (
        '{host: a.test, paths: ["/v1?beta=true"]}',
        "contains",
        "query is not judged",
    ),
    "another word": (
        "{host: a.test, mcp_servers: some}",
        '"some" is not a value of mcp_servers',
        "write all, none, allowlisted, or hosts: mcp_servers: [allowlisted, mcp.example.com]",
    ),
    "another word for all": (
        "{host: a.test, sources: any}",
        '"any" is not a value of sources',
        "write sources: all",
    ),
    "another word for none": (
        "{host: a.test, mcp_servers: No}",
        '"No" is not a value of mcp_servers',
        "write mcp_servers: none",
    ),
    "another word for all in a list": (
        "{host: a.test, sources: [any]}",
        '"any" is not a value of sources',
        "write sources: all",
    ),
    "another word for every model": (
        "{host: a.test, models: every}",
        '"every" is not a value of models',
        "write models: all",
    ),
    "a host that is no list": (
        "{host: a.test, sources: b.test}",
        "sources is not a list",
        "write sources: [b.test]",
    ),
    "a word in a list": ("{host: a.test, sources: [all]}", "all in a list", "write sources: all"),
    "a URL as server": (
        '{host: a.test, mcp_servers: ["https://m.test/sse"]}',
        '"https://m.test/sse" is more than a host',
        'write "m.test" for HTTPS',
    ),
    "a server over plain HTTP": (
        '{host: a.test, mcp_servers: ["http://m.test"]}',
        "is more than a host",
        "for others allow it, and write allowlisted",
    ),
    "a source at a port": (
        '{host: a.test, sources: ["m.test:8443"]}',
        "is more than a host",
        'write "m.test" for HTTPS',
    ),
    "no servers": ("{host: a.test, mcp_servers: []}", "mcp_servers is an empty list", "write none"),
    "allowlisted, misplaced": (
        "{host: a.test, models: allowlisted}",
        "models is not a list",
        "models: [",
    ),
    "no size": ("{host: a.test, max_body: all}", "not the size of a body", "such as 32M"),
    "too large": ("{host: a.test, max_body: 1G}", "not the size of a body", "to 256M"),
    "nothing": ("{host: a.test, max_body: 0}", "not the size of a body", "from 1K"),
    "a missing value": ("{host: a.test, models: }", "models is not a list", "models: ["),
}


@pytest.mark.parametrize(("entry", "what", "fix"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_line_and_fix(entry: str, what: str, fix: str) -> None:
    (problem,) = refused(f"- {entry}")

    assert what in problem.what
    assert fix in (problem.fix or "")
    assert (problem.where or "").startswith("a.yaml:3:")
    assert "anthropic[0]" in (problem.where or "")


def test_a_host_is_narrowed_by_one_entry() -> None:
    (problem,) = refused("- {host: a.test, beta: all}\n- {hosts: [b.test, a.test], models: [m]}")

    assert problem.what == "a.test is restricted twice, first in line 3"
    assert problem.where == "a.yaml:4:5, anthropic[1]"


def test_a_presets_mistake_is_told_where_it_is_included() -> None:
    (problem,) = refused("", p=PRESET.replace("models", "modles"))

    assert "the preset p has a mistake" in problem.what
    assert (problem.where or "").startswith("a.yaml:2:")


# Passthrough


def test_what_cannot_be_seen_cannot_be_narrowed() -> None:
    text = "allow: [{host: a.test, tls: passthrough}]\nanthropic: [{host: a.test, models: [m]}]"
    with pytest.raises(ConfigErrors) as caught:
        allowlist.load(text, name="a.yaml")

    (problem,) = caught.value.problems
    assert "requests to the API cannot be judged, as a.test (a.yaml:1)" in problem.what
    assert (problem.where or "").startswith("a.yaml:2:")


def test_a_passthrough_that_undoes_a_presets_narrowing_is_told_at_the_passthrough() -> None:
    text = "allow:\n  - preset: p\n  - {host: api.anthropic.com, tls: passthrough}\n"
    with pytest.raises(ConfigErrors) as caught:
        allowlist.load(text, name="a.yaml", library=Library(lambda _: PRESET))

    (problem,) = caught.value.problems
    assert "cannot be judged as preset p:5 says" in problem.what
    assert (problem.where or "").startswith("a.yaml:3:")
    assert "each key may be all" in (problem.fix or "")


def test_an_owner_who_lifts_all_of_it_may_pass_the_host_through() -> None:
    lifted = ", ".join(f"{key}: all" for key in KEYS if key != "max_body")
    text = (
        "allow:\n  - preset: p\n  - {host: api.anthropic.com, tls: passthrough}\n"
        f"anthropic: [{{host: api.anthropic.com, {lifted}}}]"
    )

    (narrowing,) = allowlist.load(
        text, name="a.yaml", library=Library(lambda _: PRESET)
    ).restrictions
    assert (narrowing.paths, narrowing.models, narrowing.sources) == (
        None,
        None,
        DestinationScope(every=True),
    )


# What is printed


@pytest.mark.parametrize(
    "entry",
    [
        "{host: a.test, models: [m], max_body: 1M}",
        '{host: "*.a.test", ports: [8443], paths: [/v1/messages, "/x/**"], beta: none}',
        '{host: .a.test, server_tools: [web_search], mcp_servers: none, sources: ["*.b.test"]}',
        '{host: "2001:db8::1", mcp_servers: [allowlisted, 192.0.2.1], max_body: 1500000}',
        "{host: a.test, beta: ['NO', 'null', '1', a, b, c]}",
    ],
)
def test_what_is_printed_is_read_back_to_the_same(entry: str) -> None:
    narrowing = load_entry(entry)

    (again,) = load("\n".join(narrowing_entry_of(narrowing)))

    assert {**facts_of_narrowing(again), "source": ""} == {
        **facts_of_narrowing(narrowing),
        "source": "",
    }


# The schema


def test_the_schema_knows_the_keys() -> None:
    definitions = schema()["$defs"]

    assert tuple(definitions["narrowing"]["properties"]) == FIELDS


@pytest.mark.parametrize(
    "entry",
    [
        "{host: a.test, paths: all, models: all, beta: all, server_tools: all}",
        "{hosts: [a.test, '*.b.test'], ports: [8443], paths: [/v1/messages], models: ['c-*']}",
        "{host: a.test, beta: none, server_tools: none, mcp_servers: none, sources: all}",
        "{host: 192.0.2.1, mcp_servers: allowlisted, sources: [allowlisted, a.test]}",
        "{host: a.test, beta: [a-1], server_tools: [web_search], max_body: 8M}",
    ],
)
def test_the_schema_accepts_what_the_reader_accepts(entry: str) -> None:
    load_entry(entry) if "hosts" not in entry else load(f"- {entry}")

    SCHEMA.validate(yaml.safe_load(f"anthropic: [{entry}]"))


# What a schema cannot say.
BEYOND_SCHEMA = {
    "two stars",
    "no size",
    "too large",
    "nothing",
    "another word for all in a list",  # a host, to the schema
}


@pytest.mark.parametrize("name", sorted(set(MISTAKES) - BEYOND_SCHEMA))
def test_the_schema_refuses_what_the_reader_refuses(name: str) -> None:
    entry, _, _ = MISTAKES[name]

    assert not SCHEMA.is_valid(yaml.safe_load(f"anthropic: [{entry}]"))


# Whatever is written

WORDS = st.sampled_from(
    [*FIELDS, "a.test", "*.b.test", "192.0.2.1", "all", "none", "allowlisted", "/v1", "m*", "8M"]
)
VALUES = st.recursive(
    WORDS | st.text(max_size=6) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=4) | VALUES)
def test_whatever_is_written_is_a_policy_or_mistakes(value: Any) -> None:
    text = json.dumps({"anthropic": value})

    with suppress(ConfigErrors):
        narrowings = allowlist.load(text, name="a.yaml").restrictions
        assert all(narrowing.patterns for narrowing in narrowings)


HOSTS = ("x.test", "a.x.test", "b.a.x.test", "y.test")
PATTERNS = (*HOSTS, "*.x.test", ".x.test", "*.a.x.test", ".a.x.test")
PORTS = (443, 8443, 80)
type Written = dict[tuple[str, int | None], dict[str, Any]]
ENTRIES = st.dictionaries(
    st.tuples(st.sampled_from(PATTERNS), st.sampled_from([None, None, 443, 8443])),
    st.fixed_dictionaries(
        {}, optional={key: st.sampled_from(["all", ["v1"], ["v2"]]) for key in ("models", "beta")}
    ).filter(bool),
    max_size=5,
)


@given(ENTRIES, ENTRIES)
def test_the_first_that_covers_a_host_has_all_that_is_said_about_it(
    owner: Written, preset: Written
) -> None:
    def listed(entries: Written) -> list[dict[str, Any]]:
        return [
            {"host": host, **({} if port is None else {"ports": [port]}), **values}
            for (host, port), values in entries.items()
        ]

    inner = json.dumps({"description": "x", "anthropic": listed(preset)})
    outer = json.dumps({"allow": [{"preset": "p"}], "anthropic": listed(owner)})
    narrowings = allowlist.load(outer, name="a.yaml", library=Library(lambda _: inner)).restrictions

    for host, port in product(HOSTS, PORTS):
        found = in_force(narrowings, host, port)
        for key in ("models", "beta"):
            wanted = _said(owner, host, port, key) or _said(preset, host, port, key) or "all"
            given_ = None if found is None else getattr(found, key)
            assert given_ == (None if wanted == "all" else tuple(wanted))


def _said(entries: Written, host: str, port: int, key: str) -> Any:
    """Return what the narrowest entry that is for a place and has the key says; None: nothing."""
    target = Authority.of(host, port)
    covering = [
        (pattern.specificity, not text.startswith("."), named is not None, values[key])
        for (text, named), values in entries.items()
        if (pattern := HostPattern.parse(text)).covers(target)
        and named in {None, port}
        and key in values
    ]
    return max(covering, key=lambda each: each[:3])[3] if covering else None
