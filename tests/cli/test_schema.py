"""The schema is printed of the file that is named, by default the allowlist."""

import json
from pathlib import Path

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


def test_the_presets_of_the_owner_are_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").touch()

    assert main.main(["schema", "--confdir", str(tmp_path)]) == 0

    assert "mine" in json.loads(capsys.readouterr().out)["$defs"]["presetName"]["enum"]
