"""Laws of `allow`: the file is written whole or not at all, and only if it loads."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.config import policy_files


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the owner's list is, in a configuration of its own."""
    confdir = tmp_path / "conf"
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    return confdir / "allowlist.yaml"


def hosts_in(path: Path) -> list[str]:
    return list(policy_files.load(path).policy.hosts())


def test_the_first_host_begins_a_copy_of_the_shipped_list(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "docs.test"]) == 0

    assert {"api.anthropic.com", "docs.test"} <= set(hosts_in(own))
    assert own.stat().st_mode & 0o777 == 0o600
    assert f"Allowed in {own}: docs.test" in capsys.readouterr().out


def test_the_owners_list_keeps_its_mode_and_its_comments(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("# mine\nallow: [] # none yet\n")
    own.chmod(0o640)

    assert main(["allow", "a.test", "b.test:8443"]) == 0

    assert own.read_text().startswith("# mine\nallow:")
    assert hosts_in(own) == ["a.test", "b.test"]
    assert own.stat().st_mode & 0o777 == 0o640


def test_a_host_that_is_there_is_not_added_again(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "a.test"]) == main(["allow", "a.test"]) == 0

    assert "Nothing to add" in capsys.readouterr().out
    assert hosts_in(own).count("a.test") == 1


def test_one_host_that_is_wrong_leaves_the_file_as_it_was(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["allow", "a.test", "*.com"]) == 2

    assert not own.exists()
    assert "where: *.com" in capsys.readouterr().err


def test_a_list_with_an_included_file_can_be_added_to(own: Path) -> None:
    own.parent.mkdir(mode=0o700)
    own.with_name("more.yaml").write_text("allow: [m.test]\n")
    own.write_text("include: [more.yaml]\nallow:\n  - a.test\n")

    assert main(["allow", "b.test"]) == 0

    assert hosts_in(own) == ["a.test", "b.test", "m.test"]


def test_a_list_between_brackets_is_not_edited(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.parent.mkdir(mode=0o700)
    own.write_text("allow: [a.test]\n")

    assert main(["allow", "b.test"]) == 2
    assert "each entry on a line of its own" in capsys.readouterr().err
