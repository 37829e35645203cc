"""Profiles and project restrictions are parsed strictly: a mistake is an error with its place."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import Profile
from claude_proxy.sandbox.plan.profile_parser import (
    ProjectRestrictions,
    extended,
    parse_profile,
    parse_restrictions,
)

FILE = Path("/project/.claude-proxy.yaml")


def test_a_profile_is_read() -> None:
    text = "description: x\nhome_write: [~/.tool/]\nset_env: {A: b}\ncallback_ports: [54545]\n"

    assert parse_profile(text, "own.yaml") == {
        "description": "x",
        "home_write": (".tool/",),
        "set_env": (("A", "b"),),
        "callback_ports": (54545,),
    }


def test_a_profile_adds_to_its_base_and_does_not_inherit_its_commands() -> None:
    base = Profile("base", commands=frozenset({"x"}), home_read=("a",), set_env=(("A", "1"),))

    found = extended(base, "more", {"home_read": ("b",), "set_env": (("A", "2"), ("B", "3"))})

    assert found == Profile("more", home_read=("a", "b"), set_env=(("A", "2"), ("B", "3")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("home_wirte: []", "unknown key"),
        ("home_write: x", "is not a list"),
        ("home_write: [/etc]", "not a relative path"),
        ("home_write: [../x]", "not a relative path"),
        ("home_write: [a/../../x]", "not a relative path"),
        ("home_write: ['']", "not a relative path"),
        ("home_write: [~/]", "not a relative path"),
        ("home_write: [.]", "not a relative path"),
        ("home_read: ['.config/*']", "a pattern"),
        ("home_read: [[a]]", "not a single value"),
        ("pass_env: [A=b]", "not a variable name"),
        ("pass_env: ['LC_*']", "not a variable name"),
        ("set_env: [A]", "is not a mapping"),
        ("set_env: {'A B': x}", "not a variable name"),
        ("set_env: {A: [x]}", "not a single value"),
        ("callback_ports: [0]", "not a port"),
        ("callback_ports: ['70000']", "not a port"),
        ("callback_ports: [http]", "not a port"),
        ("description: [a]", "not a single value"),
        ("- a", "not a mapping"),
        ("", "an empty file"),
        ("description: &x b", "an anchor"),
    ],
)
def test_a_mistake_in_a_profile_is_reported_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_profile(text, "own.yaml")

    assert said in caught.value.what
    assert "own.yaml:1:" in (caught.value.where or "")


def test_a_projects_file_restricts() -> None:
    text = "deny: [evil.example]\nhide: [keys/, ./.env]\nread_only: [docs]\nnetwork: none\n"

    found = parse_restrictions(text, FILE)

    assert found == ProjectRestrictions(
        FILE,
        hide=("keys/", ".env"),
        read_only=("docs",),
        network=False,
        denies=True,
        text=text,
    )


def test_an_empty_file_restricts_nothing() -> None:
    assert parse_restrictions("# nothing\n", FILE).network


@pytest.mark.parametrize(
    "text",
    [
        "allow: [evil.example]",
        "home_write: [.ssh]",
        "pass_env: [TOKEN]",
        "extends: claude",
        "network: all",
        "network: true",
        "network: [none]",
        "hide: [../x]",
        "hide: [/etc]",
        "hide: [~/x/../..]",
        "read_only: [.]",
        "hide: keys",
        "[]",
    ],
)
def test_a_projects_file_cannot_allow(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_restrictions(text, FILE)

    assert ".claude-proxy.yaml:1:" in (caught.value.where or "")


@given(text=st.text(alphabet=st.sampled_from("ahdenyi:[]{},-~/.'\" \n#&*network_ol"), max_size=80))
def test_a_project_file_is_read_or_refused_and_never_leads_upwards(text: str) -> None:
    with contextlib.suppress(ConfigError):
        found = parse_restrictions(text, FILE)
        assert not any(".." in path.split("/") or path.startswith("/") for path in found.hide)
