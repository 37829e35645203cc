"""`container list` says what each may reach, and whether its last attack was clean."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli.container_list import attack_of
from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.store import StoredContainer
from tests.cli.container_life import GONE, Life, seen
from tests.sandbox.container.test_store import STORED


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_the_hosts_of_the_list_that_is_in_force_are_named(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(seen())
    shown = store.directory_of(life.statedir, "web") / "shown"
    shown.mkdir()
    (shown / "allowlist.yaml").write_text("allow:\n  - a.test\n  - b.test\n  - c.test\n")

    assert life("list") == 0
    assert "a.test, b.test, 1 more" in capsys.readouterr().out
    life("list", "--json")
    row = json.loads(capsys.readouterr().out)
    assert row["hosts"] == ["a.test", "b.test", "c.test"]
    assert (row["state"], row["proxy"], row["attack"]) == ("running", False, None)


def test_a_container_that_the_engine_lost_is_gone(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.know(GONE)

    life("list")

    assert "gone" in capsys.readouterr().out


def attacked(**changes: Any) -> StoredContainer:
    result = {"time": time.time(), "through": [], "unknown": [], "plan": "p"}
    return replace(STORED, attack={**result, **changes})


def test_what_came_of_the_last_attack_is_said() -> None:
    assert attack_of(STORED) == "-"
    assert attack_of(attacked()).startswith("clean ")
    assert attack_of(attacked(through=["raw-ip"])).startswith("1 THROUGH ")
    assert attack_of(attacked(unknown=["raw-ip"])).startswith("1 unknown ")
    assert attack_of(attacked(plan="before")).endswith(", old")
