"""Laws of `import`: files are written whole, others are left alone, losses are told."""

from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config import policy_files
from claude_proxy.config.owner_files import OwnerFiles

GROUPS = """\
[network.groups.a]
hosts = ["x.test", "a.y.test"]
hosts_deny = ["*.y.test"]
[policy.policies.p.network]
allow_groups = ["a"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "groups.toml"
    path.write_text(GROUPS, "utf-8")
    return path


def test_files_are_printed_and_losses_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["import", "bw-claude", str(file)]) == 0

    out, err = capsys.readouterr()
    assert "# --- presets/a.yaml\n" in out
    assert "# --- policies/p.yaml\n" in out
    assert err.startswith(f"not carried over: {file}:2: in the policy p a.y.test was allowed")


def test_files_that_are_written_are_used_as_they_are(file: Path, tmp_path: Path) -> None:
    confdir = tmp_path / "conf"

    assert main.main(["import", "bw-claude", str(file), "--output", str(confdir)]) == 0

    policy = policy_files.read_named(OwnerFiles(confdir), "p").policy
    assert list(policy.hosts()) == ["x.test", "a.y.test"]
    assert (confdir / "policies" / "p.yaml").stat().st_mode & 0o777 == 0o600


def test_nothing_is_overwritten_without_force(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "conf" / "policies" / "p.yaml"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    words = ["import", "bw-claude", str(file), "--output", str(tmp_path / "conf")]

    assert main.main(words) == 2
    assert "these files exist, and nothing was written: policies/p.yaml" in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert not (tmp_path / "conf" / "presets").exists()
    assert main.main([*words, "--force"]) == 0
    assert there.read_text().startswith("# Converted from")


@pytest.mark.parametrize("text", ["[", "x = 1", "\xff"])
def test_a_groups_file_with_mistakes_is_not_converted(
    file: Path, text: str, tmp_path: Path
) -> None:
    file.write_bytes(text.encode("latin-1"))
    output = tmp_path / "conf"

    assert main.main(["import", "bw-claude", str(file), "--output", str(output)]) == 2
    assert not output.exists()


def test_a_file_that_is_missing_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["import", "bw-claude", str(tmp_path / "gone")]) == 2
    assert "the groups file cannot be read" in capsys.readouterr().err
