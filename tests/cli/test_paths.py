"""Where files are: only a missing list leads to the shipped one; config.yaml may name others."""

import sys
from pathlib import Path

import platformdirs
import pytest

from claude_proxy.cli import paths
from claude_proxy.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_the_configuration_directory_is_where_xdg_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths.default_confdir() == home / ".config" / "claude-proxy"

    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert paths.default_confdir() == Path("/xdg/claude-proxy")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert paths.default_confdir() == home / ".config" / "claude-proxy"


def test_only_a_missing_list_leads_to_the_shipped_one(home: Path) -> None:
    assert paths.allowlist_path(home) == paths.shipped_allowlist()

    own = home / "allowlist.yaml"
    own.symlink_to("gone")
    assert paths.allowlist_path(home) == own
    with pytest.raises(ConfigError, match="cannot be read"):
        paths.read_allowlist(own)


def test_the_state_is_where_config_yaml_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.statedir_in_force() == paths.default_statedir()

    other = home / "conf"
    other.mkdir(mode=0o700)
    (other / "config.yaml").write_text("statedir: state\n")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(other))
    assert paths.statedir_in_force() == other / "state"

    (other / "config.yaml").write_text("statedr: state\n")
    with pytest.raises(ConfigError, match="unknown key"):
        paths.statedir_in_force()


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("given", [None, "", "/data/state"])
def test_the_state_is_where_platformdirs_has_it(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_STATE_HOME", given)

    wanted = platformdirs.user_state_dir("claude-proxy", appauthor=False)

    assert paths.default_statedir() == Path(wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_relative_directory_for_states_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "state")

    assert paths.default_statedir() == Path("/home/me/.local/state/claude-proxy")
