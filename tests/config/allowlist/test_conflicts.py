"""Laws of conflicts: what another entry would undo is refused, with both lines."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.loader import Included, Library
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.rules import Tls
from claude_proxy.wire.authority import Authority
from tests.config.allowlist.reading import load, load_entry, told


def errors_of(text: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        loader.load(text, name="a.yaml")
    return list(caught.value.problems)


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


# What a default of allow would undo


def test_limits_that_a_default_allow_would_undo_are_refused() -> None:
    text = "default: allow\nallow:\n  - {host: a.test, paths: [/x]}\n"

    what, where, fix = told(text)

    assert what == "paths cannot be kept here, as default: allow lets every request through"
    assert (where, "under deny" in fix) == ("a.yaml:3:5, a.test", True)


def test_limits_of_presets_are_no_matter_there() -> None:
    text = "default: allow\nallow: [{preset: a}]\n"

    assert load(text, a="allow: [{host: a.test, methods: [GET]}]").rules_count == 2


# Several files


def test_a_conflict_of_two_files_is_told_in_the_file_of_the_limit() -> None:
    def include(file: str, _base: str) -> Included:
        return Included(file, "allow: [{host: a.test, methods: [GET]}]", file)

    text = "include: [b.yaml]\nallow: [{host: a.test, tls: passthrough}]\n"
    with pytest.raises(ConfigErrors) as caught:
        loader.load(text, name="a.yaml", library=Library(include=include))

    (problem,) = caught.value.problems
    assert problem.where == "b.yaml:1:9, a.test"
    assert "a.test (a.yaml:2) passes TLS through" in problem.what


TCP = "{host: a.x.test, scheme: tcp, ports: [8080]}"
BESIDE_TCP = {
    "methods of the host": (
        f"allow: [{TCP}, {{host: a.x.test, ports: [8080], methods: [GET]}}]",
        "methods cannot be checked at a.x.test where a.x.test",
    ),
    "paths of hosts around it": (
        f'allow: [{TCP}, {{host: "*.x.test", ports: [8080], paths: [/a]}}]',
        "paths cannot be checked at *.x.test where a.x.test",
    ),
    "plain HTTP": (
        f"allow: [{TCP}, {{host: a.x.test, scheme: http, ports: [8080]}}]",
        "plain HTTP cannot be spoken at a.x.test",
    ),
    "a denial of paths": (
        f"allow: [{TCP}]\ndeny: [{{host: a.x.test, paths: [/admin]}}]",
        "paths cannot be checked at a.x.test where a.x.test",
    ),
}


@pytest.mark.parametrize(("text", "what"), BESIDE_TCP.values(), ids=BESIDE_TCP)
def test_a_rule_for_tcp_beside_one_that_judges_requests_is_refused(text: str, what: str) -> None:
    (error,) = errors_of(text)

    assert error.what.startswith(what)
    assert "is for tcp" in error.what
    assert error.fix is not None
    assert "take the port out of one" in error.fix


APART_FROM_TCP = [
    f"allow: [{TCP}, {{host: a.x.test, methods: [GET]}}]",
    f"allow: [{TCP}, {{host: a.x.test, ports: [8080]}}]",
    f"allow: [{TCP}, {{host: a.x.test, scheme: http}}]",
    f"allow: [{TCP}]\ndeny: [{{host: b.test, paths: [/]}}]",
    f"default: allow\nallow: [{TCP}]",
    f"allow: [{TCP}]\ncredentials: [{{host: b.test, inject: bearer, from: {{env: T}}}}]",
]


@pytest.mark.parametrize("text", APART_FROM_TCP)
def test_a_rule_for_tcp_stands_beside_what_it_does_not_touch(text: str) -> None:
    assert loader.load(text, name="a.yaml").rules_count > 0


@pytest.mark.parametrize(
    ("host", "bound"),
    [
        ("a.test", "a.test"),
        ("a.test", "b.test, a.test"),
        ('"*.corp.test"', "a.corp.test"),
        ("a.corp.test", '"*.corp.test"'),
        ("claude.ai", "api.anthropic.com"),
    ],
)
def test_a_host_with_a_credential_takes_no_rule_for_tcp_on_any_port(host: str, bound: str) -> None:
    text = (
        f"allow: [{{host: {host}, scheme: tcp, ports: [2222]}}]\n"
        f"credentials: [{{hosts: [{bound}], name: n, inject: bearer, from: {{env: T}}}}]\n"
    )

    (error, *_) = errors_of(text)

    assert error.what.startswith("bytes of any protocol may not go to")
    assert "the credential n (a.yaml:2" in error.what
    assert error.where is not None
    assert error.where.startswith("a.yaml:1:")


def test_a_host_whose_requests_are_limited_takes_no_rule_for_tcp() -> None:
    text = "allow: [{host: api.anthropic.com, scheme: tcp, ports: [2222]}, {preset: claude}]"

    errors = errors_of(text)

    assert errors
    assert all("requests to it are limited" in error.what for error in errors)
