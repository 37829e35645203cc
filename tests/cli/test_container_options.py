"""What the commands of `container` share is where the user says it is."""

from pathlib import Path

import pytest

from claude_proxy.cli import container_options
from tests.sandbox.container.test_store import STORED, kept


def test_the_directory_that_is_named_wins(tmp_path: Path) -> None:
    assert container_options.statedir(str(tmp_path)) == tmp_path


def test_by_default_it_is_that_of_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert container_options.statedir(None) == tmp_path / "claude-proxy"


def test_the_engine_is_the_one_that_made_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "podman").write_text("")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert container_options.engine_of(STORED).program == tmp_path / "podman"


def test_names_are_completed(tmp_path: Path) -> None:
    import click  # noqa: PLC0415 - of this test

    kept(tmp_path)
    context = click.Context(click.Command("stop"))
    context.params = {"statedir": str(tmp_path)}

    found = container_options.complete_names(context, click.Option(["--x"]), "w")

    assert [item.value for item in found] == ["web"]
