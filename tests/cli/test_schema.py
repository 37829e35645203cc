"""The schema is printed of the file that is named, by default the allowlist."""

import json

import pytest

from claude_proxy.cli import main
from claude_proxy.config import config_schema
from claude_proxy.config.allowlist import schema as policy_schema


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ([], policy_schema.schema()),
        (["allowlist"], policy_schema.schema()),
        (["config"], config_schema.schema()),
    ],
    ids=["default", "allowlist", "config"],
)
def test_the_schema_of_a_file_is_printed(
    words: list[str], schema: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["schema", *words]) == 0

    assert json.loads(capsys.readouterr().out) == schema
