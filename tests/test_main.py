"""`python -m claude_proxy` is the command line, with its output and exit code."""

import ast
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from claude_proxy import __main__
from claude_proxy.cli.main import main


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claude_proxy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_module_prints_what_the_command_line_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = run("--version")

    assert (ran.returncode, main(["--version"])) == (0, 0)
    assert ran.stdout == capsys.readouterr().out


def test_the_exit_code_is_the_command_lines() -> None:
    ran = run("no-such-command")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error: " in ran.stderr


def test_an_older_python_is_named_with_the_one_that_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "OLDEST", (99, 1))

    assert __main__.run() == 2

    assert "error: Python 99.1 or newer is needed, and this is " in capsys.readouterr().err


def test_an_output_that_cannot_be_written_at_the_end_is_said() -> None:
    command = [sys.executable, "-m", "claude_proxy", "--version"]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)

    assert ran.returncode != 0
    assert "No space left" in ran.stderr or "no space left" in ran.stderr


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_an_older_python_can_read_what_names_it(name: str) -> None:
    text = Path(__main__.__file__).with_name(name).read_text()

    assert ast.parse(text, feature_version=(3, 8)).body


def test_the_installed_program_enters_where_a_ctrl_c_is_handled() -> None:
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8")

    assert tomllib.loads(text)["project"]["scripts"] == {
        "claude-proxy": "claude_proxy.__main__:run"
    }


_INTERRUPTED = """
import os, signal, sys
from claude_proxy.__main__ import run

moment = sys.argv.pop(1)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
leave = os._exit

def leave_later(code):
    if moment == "the end":
        os.kill(os.getpid(), signal.SIGINT)
    leave(code)

os._exit = leave_later
sys.exit(run())
"""


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("claude_proxy.cli.main", -signal.SIGINT),
        ("click", -signal.SIGINT),
        ("claude_proxy.cli.presets", 130),
        ("the end", -signal.SIGINT),
    ],
)
def test_a_ctrl_c_at_any_moment_shows_no_traceback(moment: str, code: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, moment, "presets"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (code, "")


def test_a_ctrl_c_that_is_ignored_stays_ignored() -> None:
    words = [sys.executable, "-c", _INTERRUPTED, "click", "presets"]
    ran = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
