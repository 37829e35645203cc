"""`agree` shows what a project's file restricts, and a run takes it from then on."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.cli.project_agreement import pending


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    path = tmp_path / "project/.claude-proxy.yaml"
    path.write_text("deny: [a.test]\n")
    return path


def agree(file: Path) -> int:
    return main(["agree", "--statedir", str(file.parents[1] / "state"), str(file.parent)])


def test_the_content_is_shown_and_agreed_to(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agree(file) == 0

    assert "deny: [a.test]" in capsys.readouterr().out
    assert pending(file.parent, file.parents[1] / "state") == ("deny: [a.test]\n", None)


def test_only_what_has_changed_is_marked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agree(file)
    file.write_text("deny: [b.test]\n")

    assert agree(file) == 0

    out = capsys.readouterr().out
    assert "-deny: [a.test]" in out
    assert "+deny: [b.test]" in out


def test_a_file_that_is_gone_can_be_agreed_to(file: Path) -> None:
    agree(file)
    file.unlink()

    assert agree(file) == 0
    assert pending(file.parent, file.parents[1] / "state") == (None, None)


def test_the_second_time_there_is_nothing_to_do(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agree(file)
    capsys.readouterr()

    assert agree(file) == 0
    assert "already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no .claude-proxy.yaml"), ("allow: [a.test]\n", "")]
)
def test_what_cannot_be_agreed_to_is_an_error(
    file: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.unlink() if content is None else file.write_text(content)

    assert agree(file) == 2
    assert message in capsys.readouterr().err
