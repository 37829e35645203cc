"""The command lines of the programs beside a sandbox: quick, and without the user's environment."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox import own_programs, stream_pump
from claude_proxy.sandbox.bubblewrap import mount_guard, unix_sockets, watchdog
from claude_proxy.sandbox.relay import relay


def test_a_program_gets_its_words_and_its_exit_code_arrives() -> None:
    done = subprocess.run(
        own_programs.words_of(relay, "--listen", "nonsense", "--to", "unix:/tmp/none"),
        capture_output=True,
        check=False,
    )

    assert done.returncode == 2
    assert b"nonsense" in done.stderr


def test_a_program_sees_no_module_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "socket.py").write_text("raise SystemExit(77)")
    (tmp_path / "claude_proxy").mkdir()

    done = subprocess.run(
        own_programs.words_of(relay, "--help"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0


@pytest.mark.parametrize("program", [relay, stream_pump, mount_guard, unix_sockets, watchdog])
def test_every_program_can_be_run_by_its_name(program: object) -> None:
    assert callable(getattr(program, "run", None))
