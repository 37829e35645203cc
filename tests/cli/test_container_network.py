"""The proxy of a build takes the owner's way out, and none of the rules of a run."""

import signal
from pathlib import Path
from typing import Any

import click
import pytest

from claude_proxy.cli.container_network import network_options, network_settings, until_interrupted
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError


def settings(*words: str) -> tuple[Settings, dict[str, Any]]:
    @click.command()
    @click.option("--other")
    @network_options
    @click.pass_context
    def command(context: click.Context, /, **given: Any) -> tuple[Settings, dict[str, Any]]:
        return network_settings(context, given), given

    found: tuple[Settings, dict[str, Any]] = command.main([*words], standalone_mode=False)
    return found


def test_options_of_the_proxy_are_taken_and_others_left(tmp_path: Path) -> None:
    found, left = settings(
        *("--confdir", str(tmp_path), "--statedir", str(tmp_path / "s"), "--other", "x"),
        *("--resolve", "a.example:443:10.1.2.3"),
    )

    assert left == {"other": "x"}
    assert found.statedir == tmp_path / "s"
    assert len(found.resolve) == 1
    assert found.policy is None


def test_config_yaml_names_the_way_out_and_no_policy(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("upstream_proxy: http://10.0.0.1:3128\naudit_days: 7\n")
    (tmp_path / "config.yaml").chmod(0o600)

    found, _ = settings("--confdir", str(tmp_path), "--statedir", str(tmp_path / "s"))

    assert found.upstream_proxy is not None
    assert found.audit_days == 7


def test_a_wrong_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        settings("--confdir", str(tmp_path), "--resolve", "nonsense")


def test_a_signal_ends_the_work_in_order() -> None:
    ended: list[str] = []

    def work() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.append("in order")
        return 0

    assert until_interrupted(work) == 128 + signal.SIGTERM
    assert ended == ["in order"]
    assert until_interrupted(lambda: 7) == 7
