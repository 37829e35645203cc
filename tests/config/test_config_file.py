"""config.yaml on disk: the owner's alone, read whole or refused."""

from pathlib import Path

import pytest

from claude_proxy.config import config_file
from claude_proxy.errors import ConfigError


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def test_a_file_that_is_not_there_says_nothing(confdir: Path) -> None:
    config = config_file.read(confdir / "gone")

    assert not config.exists
    assert config.entries == {}


def test_what_the_file_says_is_read(confdir: Path) -> None:
    write(confdir / "config.yaml", "audit_days: 3\n", 0o644)

    assert config_file.read(confdir).value("audit_days") == 3


@pytest.mark.parametrize("name", ["config.yaml", "gateway.yaml"])
@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_a_file_that_others_can_write_is_refused(confdir: Path, name: str, mode: int) -> None:
    write(confdir / name, "providers: {}\n", mode)

    with pytest.raises(ConfigError, match="can be changed by other users"):
        config_file.read(confdir)


def test_a_file_that_others_can_replace_is_refused(confdir: Path) -> None:
    write(confdir / "config.yaml", "audit_days: 3\n")
    confdir.chmod(0o777)

    with pytest.raises(ConfigError, match="can be changed by other users"):
        config_file.read(confdir)


def test_a_link_that_leads_nowhere_is_not_a_missing_file(confdir: Path) -> None:
    (confdir / "config.yaml").symlink_to("gone")

    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(confdir)


def test_a_directory_of_its_name_is_refused(confdir: Path) -> None:
    (confdir / "config.yaml").mkdir()

    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.read(confdir)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_password_that_others_can_read_is_refused_and_not_quoted(
    confdir: Path, mode: int
) -> None:
    text = "upstream_proxy: http://me:hunter2@proxy.test:3128\n"
    path = write(confdir / "config.yaml", text)
    assert config_file.read(confdir).value("upstream_proxy").credentials == "me:hunter2"

    path.chmod(mode)
    with pytest.raises(ConfigError, match="can read the password") as caught:
        config_file.read(confdir)

    assert "hunter2" not in "".join(caught.value.lines())


def test_an_older_gateway_yaml_is_read_beside_it(confdir: Path) -> None:
    write(confdir / "config.yaml", "audit_days: 3\n")
    write(confdir / "gateway.yaml", "mode: strict\n")

    config = config_file.read(confdir)

    assert config.value("audit_days") == 3
    assert config.value("gateway.mode") == "strict"


@pytest.mark.parametrize(
    "text",
    ["gateway: {mode: strict}\n", "providers: {a: {endpoint: https://a.test, from: {env: A}}}"],
)
def test_a_gateway_that_two_files_configure_is_refused(confdir: Path, text: str) -> None:
    write(confdir / "config.yaml", text)
    write(confdir / "gateway.yaml", "mode: claude\n")

    with pytest.raises(ConfigError, match="two files") as caught:
        config_file.read(confdir)

    assert "then delete gateway.yaml" in str(caught.value.fix)
