"""A shell completes commands and options, by a script for each shell."""

import pytest

from claude_proxy.cli import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0

    assert "_CLAUDE_PROXY_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [("claude-proxy pres", "presets"), ("claude-proxy --po", "--port")],
)
def test_a_shell_completes_commands_and_the_options_of_serve(
    words: str,
    offered: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "1")

    assert main.main([]) == 0

    assert offered in capsys.readouterr().out
