"""The table of options: names that no two rows share, and defaults that are values."""

from itertools import chain

import pytest

from claude_proxy.config.option_table import (
    FIELDS,
    OptionField,
    Subcommand,
    default_of,
    defaults,
    fields_in_section,
    fields_of,
)
from claude_proxy.config.worker_count import AUTOMATIC


def test_no_two_rows_have_one_key() -> None:
    assert len({field.key for field in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize("command", Subcommand)
def test_no_two_options_of_a_command_have_one_name(command: Subcommand) -> None:
    fields = list(fields_of(command))

    assert len({field.parameter(command) for field in fields}) == len(fields)
    spellings = [*chain.from_iterable(field.more_spellings for field in fields)]
    spellings += [field.option(command) for field in fields]
    assert len(set(spellings)) == len(spellings)


def test_no_two_rows_have_one_variable() -> None:
    variables = [field.variable for field in FIELDS if field.variable is not None]

    assert len(set(variables)) == len(variables)


def test_a_key_below_a_command_is_an_option_of_that_command() -> None:
    for command in Subcommand:
        assert all(command in field.commands for field in fields_in_section(command))


def test_a_key_at_the_top_is_shared_by_commands() -> None:
    assert all(len(field.commands) > 1 for field in fields_in_section(""))


def named(key: str) -> OptionField:
    return next(field for field in FIELDS if field.key == key)


def test_options_of_the_gateway_are_told_apart_beside_a_proxy() -> None:
    mode = named("gateway.mode")

    assert mode.option(Subcommand.GATEWAY) == "--mode"
    assert mode.option(Subcommand.SERVE) == "--gateway-mode"
    assert mode.parameter(Subcommand.RUN) == "gateway_mode"
    assert mode.variable == "CLAUDE_PROXY_GATEWAY_MODE"
    assert mode.help_in(Subcommand.SERVE) != mode.help_in(Subcommand.GATEWAY)


def test_a_default_is_a_value_and_no_text() -> None:
    assert default_of(named("audit_size")) == 256 * 1024**2
    assert default_of(named("idle_timeout")) == 900
    assert default_of(named("resolve")) == ()
    assert default_of(named("policy")) is None
    assert defaults(Subcommand.SERVE)["workers"] == AUTOMATIC
