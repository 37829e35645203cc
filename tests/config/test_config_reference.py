"""The reference names every option and key, with its variable and default."""

import pytest

from claude_proxy.config import config_reference
from claude_proxy.config.option_table import FIELDS, OptionField, Subcommand, fields_of

IN_FILE = [field for field in FIELDS if field.in_file]


@pytest.mark.parametrize("field", IN_FILE, ids=lambda field: field.key)
def test_every_key_is_listed(field: OptionField) -> None:
    assert f"\n| `{field.name}` | " in config_reference.keys_page()


@pytest.mark.parametrize("command", Subcommand)
def test_every_option_is_listed(command: Subcommand) -> None:
    page = config_reference.options_page(command)

    for field in fields_of(command):
        assert f"| `{field.option(command)}`" in page
        assert field.variable is None or f"`{field.variable}`" in page


def test_a_row_has_as_many_cells_as_its_heading() -> None:
    rows = config_reference.keys_page().splitlines()

    assert {row.replace("\\|", "").count("|") for row in rows if row.startswith("|")} == {7}
