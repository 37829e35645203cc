"""A preset is taken only where it opens little more than was used."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.learned_presets import preset_uses, vouching
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority


def attempt(host: str, path: str, method: str = "GET") -> RecordedAttempt:
    target = Authority.of(host, 443)
    return RecordedAttempt(Form.REQUEST, Scheme.HTTPS, target, method, path)


def test_a_preset_whose_restrictions_stand_against_what_was_seen_does_not_fit() -> None:
    text = """\
allow: [{host: api.example.com, paths: [/v1/messages, /api/*]}]
anthropic: [{host: api.example.com, paths: [/v1/messages]}]
"""
    presets = {"api": loader.load(text, name="x")}
    wanted = [
        attempt("api.example.com", "/v1/messages", method) for method in ("GET", "POST", "PUT")
    ]
    odd = attempt("api.example.com", "/api/other", "POST")

    (alone,) = preset_uses(presets, wanted, wanted, frozenset(), may_take=True)
    (beside,) = preset_uses(presets, wanted, [*wanted, odd], frozenset(), may_take=True)

    assert (alone.conflict, alone.taken) == (None, True)
    assert (beside.conflict, beside.taken) == ("POST /api/other on api.example.com", False)


def test_of_two_presets_that_cover_the_same_the_smaller_is_taken() -> None:
    presets = {
        "one": loader.load(
            "allow: [{host: a.example.com, methods: [GET]}, {host: b.example.com, methods: [GET]}]",
            name="x",
        ),
        "two": loader.load("allow: [{host: a.example.com, methods: [GET]}]", name="x"),
    }
    wanted = [attempt("a.example.com", f"/{name}") for name in "abc"]

    uses = preset_uses(presets, wanted, wanted, frozenset(), may_take=True)

    assert [(use.name, use.taken) for use in uses] == [("two", True), ("one", False)]


@pytest.mark.parametrize(
    "entry", [".a.example.com", "{host: a.example.com, methods: [GET, POST]}", "a.example.com"]
)
def test_a_preset_that_lets_anything_be_sent_is_only_offered(entry: str) -> None:
    presets = {
        "wide": loader.load(
            f'allow: [{{host: "{entry}"}}]' if entry[0] == "." else f"allow: [{entry}]", name="x"
        )
    }
    wanted = [attempt("a.example.com", f"/{name}") for name in "abc"]

    (use,) = preset_uses(presets, wanted, wanted, frozenset(), may_take=True)

    assert not use.taken
    assert use.writes is not None


def test_without_leave_no_preset_is_taken() -> None:
    presets = {"two": loader.load("allow: [{host: a.example.com, methods: [GET]}]", name="x")}
    wanted = [attempt("a.example.com", f"/{name}") for name in "abc"]

    (use,) = preset_uses(presets, wanted, wanted, frozenset(), may_take=False)

    assert (use.fits, use.taken) == (True, False)


def test_only_a_rule_with_methods_and_without_paths_vouches_for_every_path() -> None:
    presets = {
        "whole": loader.load("allow: [a.example.com]", name="x"),
        "paths": loader.load("allow: [{host: b.example.com, paths: [/**]}]", name="x"),
        "reads": loader.load("allow: [{host: c.example.com, methods: [GET]}]", name="x"),
    }

    found = [vouching(presets, attempt(f"{letter}.example.com", "/a%2fb")) for letter in "abc"]

    assert found == [None, None, "reads"]
