"""The scripts that hooks, servers and shells start are found in what names them."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.named_scripts import scripts_named_in


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        '{"hooks": {"a": [{"command": "\\"$CLAUDE_PROJECT_DIR\\"/tools/x.sh --fast"}]}}',
        "command = $CLAUDE_PROJECT_DIR/tools/x.sh",
        '{"command": "${CLAUDE_PROJECT_DIR}/tools/x.sh"}',
        '{"mcpServers": {"a": {"command": "node", "args": ["./tools/x.sh"]}}}',
        "source tools/x.sh; echo",
        "dotenv_if_exists\n. ./tools/x.sh\n",
        "entry: bash tools/x.sh",
    ],
)
def test_a_script_is_found_however_it_is_named(project: Path, text: str) -> None:
    script = written(project / "tools/x.sh")
    source = written(project / "settings", text)

    assert scripts_named_in([source], project) == {script: source}


def test_the_files_of_a_directory_count(project: Path) -> None:
    script = written(project / "check.py")
    hook = written(project / ".husky/pre-commit", "python check.py")

    assert scripts_named_in([project / ".husky"], project) == {script: hook}


def test_words_that_are_no_files_of_the_project_are_left_out(project: Path, tmp_path: Path) -> None:
    written(tmp_path / "outside.sh")
    (project / "src").mkdir()
    source = written(project / "settings", "../outside.sh /etc/passwd src/ npm gone.sh settings")

    assert scripts_named_in([source, project / "gone"], project) == {}


def test_a_pipe_is_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "pipe")

    assert scripts_named_in([project / "pipe"], project) == {}
