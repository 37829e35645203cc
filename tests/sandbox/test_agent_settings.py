"""What programs outside obey in a file of settings and data is told apart, whatever a run wrote."""

import json
import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.agent_settings import obeyed_settings


def settings(tmp_path: Path, value: object) -> dict[str, str]:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(value))
    found = obeyed_settings(str(path))
    assert found is not None
    return dict(found)


def test_servers_count_and_counters_do_not(tmp_path: Path) -> None:
    found = settings(tmp_path, {"numStartups": 7, "mcpServers": {"a": {"command": "a"}}})

    assert found == {"mcpServers": '{"a": {"command": "a"}}'}


def test_what_is_set_for_one_project_counts_unless_it_is_empty(tmp_path: Path) -> None:
    project = {"allowedTools": [], "mcpServers": {"b": {}}, "lastCost": 1}

    assert set(settings(tmp_path, {"projects": {"/p": project}})) == {"mcpServers for /p"}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "7", '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_object_is_unknown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)

    assert obeyed_settings(str(path)) is None


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("real.json")
    os.mkfifo(tmp_path / "pipe.json")

    for name in ("link.json", "pipe.json", "missing.json"):
        assert obeyed_settings(str(tmp_path / name)) is None


@pytest.mark.parametrize("value", [{"projects": []}, {"projects": {"/p": []}}, {"hooks": None}])
def test_a_shape_that_nobody_expects_is_no_error(tmp_path: Path, value: object) -> None:
    assert settings(tmp_path, value) in ({}, {"hooks": "null"})
