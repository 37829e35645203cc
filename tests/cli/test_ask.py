"""`ask` where nothing runs: it lists nothing, and an answer to nothing is an error."""

from pathlib import Path

import pytest

from claude_proxy.cli.main import main


@pytest.fixture(autouse=True)
def _own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_where_nothing_asks_nothing_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--list"]) == 0
    assert main(["ask", "--json"]) == 0

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--answer", "3", "once"), "no question 3 is open"),
        (("--answer", "3", "perhaps"), "that is no answer"),
        (("--answer", "3", "skip"), "no answer was given"),
        (("nobody", "--list"), 'no proxy called "nobody" runs'),
    ],
)
def test_what_cannot_be_answered_is_said(
    words: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", *words]) != 0

    assert what in capsys.readouterr().err
