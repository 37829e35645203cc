"""A command is found with what it needs, and nothing in the project makes a path visible."""

import sys
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.executables import find_program
from tests.sandbox.boxes import Box, executable


def test_a_missing_command_is_an_error_with_the_exit_code_of_a_shell(project: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="'nothing-of-this-name' not found") as caught:
        find_program(("nothing-of-this-name",), {"PATH": "/usr/bin"}, project)

    assert caught.value.exit_code == 127


def test_a_command_that_path_has_without_permission_cannot_be_executed(
    tmp_path: Path, project: Path
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")

    with pytest.raises(ClaudeProxyError, match="'tool' is not executable") as caught:
        find_program(("tool",), {"PATH": str(tmp_path)}, project)

    assert caught.value.exit_code == 126


def test_a_node_package_is_shown_completely(tmp_path: Path, project: Path) -> None:
    tree = tmp_path / "x/node_modules"
    cli = executable(tree / "tool/node_modules/inner/cli.js", "#!/usr/bin/env -S node --x\n")
    (tree / ".bin").mkdir()
    (tree / ".bin/tool").symlink_to("../tool/node_modules/inner/cli.js")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").symlink_to(tree / ".bin/tool")
    executable(tmp_path / "bin/node", "binary")

    found = find_program(("tool",), {"PATH": str(tmp_path / "bin")}, project)

    assert found is not None
    assert found.path == tmp_path / "bin/tool"
    assert found.real == cli
    assert dict(found.links) == {
        tmp_path / "bin/tool": str(tree / ".bin/tool"),
        tree / ".bin/tool": str(cli),
    }
    assert set(found.trees) == {tree, tmp_path / "bin/node"}


def test_a_virtual_environment_is_shown_with_its_base_python(tmp_path: Path, project: Path) -> None:
    base = tmp_path / "base"
    (base / "lib/python3.12").mkdir(parents=True)
    (base / "lib/python3.12/os.py").touch()
    executable(base / "bin/python3.12", "binary")
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {base}/bin\n")
    (environment / "bin/python").symlink_to(base / "bin/python3.12")
    tool = executable(environment / "bin/tool", f"#!{environment}/bin/python\n")

    found = find_program((str(tool),), {"PATH": "/usr/bin"}, project)

    assert found is not None
    assert {environment, base} <= set(found.trees)


def test_a_virtual_environment_cannot_show_a_directory_that_is_no_python(
    tmp_path: Path, project: Path
) -> None:
    (tmp_path / "diary").mkdir()
    tool = executable(tmp_path / "venv/bin/tool")
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {tmp_path}/diary\n")

    found = find_program((str(tool),), {"PATH": "/usr/bin"}, project)

    assert found is not None
    assert tmp_path / "venv" in found.trees
    assert tmp_path not in found.trees


def test_a_file_in_the_project_makes_nothing_visible(tmp_path: Path, project: Path) -> None:
    diary = executable(tmp_path / "node_modules/diary", "dear diary")
    (project / "tool").symlink_to(diary)
    (project / "venv/bin").mkdir(parents=True)
    (project / "venv/pyvenv.cfg").write_text(f"home = {tmp_path}\n")
    executable(project / "venv/bin/tool", f"#!{diary}\n")

    for name in ("./tool", "venv/bin/tool"):
        found = find_program((name,), {"PATH": "/usr/bin"}, project)
        assert found is not None
        assert found.trees == ()
        assert found.links == ()


def test_a_program_that_leads_back_to_the_project_makes_nothing_visible(
    tmp_path: Path, project: Path
) -> None:
    executable(project / "tool", f"#!{tmp_path}/secret\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").symlink_to(project / "tool")

    found = find_program(("tool",), {"PATH": str(tmp_path / "bin")}, project)

    assert found is not None
    assert found.trees == ()


def test_a_cycle_of_shebangs_ends(tmp_path: Path, project: Path) -> None:
    tool = executable(tmp_path / "tool", f"#!{tmp_path}/tool\n")

    assert find_program((str(tool),), {"PATH": "/usr/bin"}, project) is not None


def test_a_program_from_elsewhere_runs_in_the_sandbox(box: Box, tmp_path: Path) -> None:
    tool = executable(tmp_path / "x/node_modules/tool/run.sh", "#!/bin/sh\ncat $(dirname $0)/y\n")
    (tool.parent / "y").write_text("beside it\n")
    (tmp_path / "x/node_modules/.bin").mkdir()
    link = tmp_path / "x/node_modules/.bin/tool"
    link.symlink_to("../tool/run.sh")

    assert box.run(str(tmp_path / "x/node_modules/tool/run.sh")).out == "beside it\n"
    assert box.run("/bin/sh", str(link)).code != 0, "it is not the command, so it is not shown"


def test_the_python_of_these_tests_runs_in_the_sandbox(box: Box) -> None:
    done = box.run(sys.executable, "-c", "import cryptography, ssl; print(1 + 1)")

    assert done.out == "2\n", done.err


def test_an_error_says_why_a_path_is_no_command(project: Path) -> None:
    (project / "notes").write_text("text")
    (project / "script").write_text("#!/bin/sh\n")
    (project / "folder").mkdir()

    for name, why, code in (
        ("./notes", "is not a program", 126),
        ("./script", "is not executable", 126),
        ("./folder", "is a directory", 126),
        ("./missing", "not found", 127),
    ):
        with pytest.raises(ClaudeProxyError, match=why) as caught:
            find_program((name,), {"PATH": "/usr/bin"}, project)
        assert caught.value.where == str(project / name)
        assert caught.value.exit_code == code


def test_a_shim_is_shown_with_the_programs_it_calls(tmp_path: Path, project: Path) -> None:
    (tmp_path / "versions/libexec").mkdir(parents=True)
    shim = executable(tmp_path / "versions/shims/python", "#!/usr/bin/env bash\n")

    found = find_program((str(shim),), {"PATH": "/usr/bin"}, project)

    assert found is not None
    assert tmp_path / "versions" in found.trees
