"""Writable places where programs outside look are found from PATH and from the profile."""

from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.sandbox.plan.watched_trees import of_agent, programs_in_path

PROJECT = Path("/home/ann/project")


def found(path: str) -> set[Path]:
    layout = Layout()
    layout.put(Mount(MountKind.WRITE, PROJECT, PROJECT))
    layout.put(Mount(MountKind.READ, PROJECT / "kept", PROJECT / "kept"))
    return {tree.path for tree in programs_in_path(path, PROJECT, layout)}


def test_directories_of_path_that_the_run_may_write_are_watched() -> None:
    assert found(f"/usr/bin:{PROJECT}/bin:{PROJECT}/kept") == {PROJECT / "bin"}


def test_a_relative_directory_of_path_is_one_of_the_project() -> None:
    assert found("./node_modules/.bin:tools") == {
        *(PROJECT / "node_modules/.bin", PROJECT / "tools")
    }


def test_an_empty_entry_of_path_is_the_project_itself() -> None:
    assert found("/usr/bin:") == {PROJECT}


def test_a_path_upwards_is_left_out() -> None:
    assert found("../bin") == set()


def test_an_agents_own_directory_is_known_by_its_name() -> None:
    assert of_agent(Path("/home/ann/.claude")).by == "Claude Code"
    assert of_agent(Path("/home/ann/.claude.json")).by == "Claude Code"
    assert of_agent(Path("/home/ann/.other")).by == "programs outside"
