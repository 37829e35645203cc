"""Errors say what is wrong, where, and how to fix it; their class decides the exit code."""

import pytest

from claude_proxy.errors import AuditError, ClaudeProxyError, ConfigError, ConfigErrors


def test_an_error_is_printed_as_what_where_and_fix() -> None:
    error = ClaudeProxyError("the port is taken", where="--port 9051", fix="choose another")

    assert error.lines() == [
        "error: the port is taken",
        "  where: --port 9051",
        "  fix:   choose another",
    ]


def test_what_is_not_known_is_not_printed() -> None:
    assert ClaudeProxyError("it failed").lines() == ["error: it failed"]


def test_a_mistake_in_the_configuration_exits_with_2_and_any_other_failure_with_1() -> None:
    assert (ConfigError("x").exit_code, ClaudeProxyError("x").exit_code) == (2, 1)
    assert ConfigErrors([ConfigError("x")]).exit_code == 2
    assert AuditError("x").exit_code == 1


def test_several_mistakes_are_printed_one_after_the_other() -> None:
    errors = ConfigErrors([ConfigError("one", where="a:1"), ConfigError("two", fix="do b")])

    assert errors.lines() == ["error: one", "  where: a:1", "error: two", "  fix:   do b"]
    assert str(errors) == "one"


def test_a_collection_without_a_mistake_cannot_be_raised() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ConfigErrors([])
