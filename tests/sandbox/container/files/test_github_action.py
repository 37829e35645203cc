"""The composite action: no input reaches a script but as a variable, and nothing fails open."""

import re
from pathlib import Path
from subprocess import run as run_program
from typing import Any

import pytest
import yaml

from claude_proxy.sandbox.container.files.github_action import PATH, render
from claude_proxy.sandbox.container.files.model import FileKind, FileRequest

REQUEST = FileRequest(FileKind.GITHUB_ACTION, "x", command=("github-action",))


def action() -> dict[str, Any]:
    (file,) = render(REQUEST).files
    assert file.path == PATH
    found: dict[str, Any] = yaml.safe_load(file.text)
    return found


def test_no_expression_is_in_a_script() -> None:
    """The runner expands it before a shell reads it, so its value could be a command."""
    assert [step["id"] for step in action()["runs"]["steps"] if "${{" in step["run"]] == []


def test_every_expression_names_an_input_or_an_output_that_exists() -> None:
    found = action()
    text = render(REQUEST).files[0].text
    steps = {step["id"] for step in found["runs"]["steps"]}

    inputs = set(re.findall(r"\$\{\{ inputs\.([a-z-]+) \}\}", text))
    outputs = re.findall(r"\$\{\{ steps\.([a-z]+)\.outputs\.([a-z-]+) \}\}", text)

    assert inputs | {"mode"} == set(found["inputs"])
    assert {step for step, _ in outputs} <= steps
    by_id = {step["id"]: step["run"] for step in found["runs"]["steps"]}
    assert [pair for pair in outputs if f"{pair[1]}=" not in by_id[pair[0]]] == []


def test_a_variable_of_a_step_is_one_that_its_script_reads() -> None:
    unread = [
        (step["id"], name)
        for step in action()["runs"]["steps"]
        for name in step.get("env", {})
        if f"${name}" not in step["run"] and f"${{{name}" not in step["run"]
    ]

    assert unread == []


def test_nothing_asks_for_root_or_docker() -> None:
    scripts = "".join(step["run"] for step in action()["runs"]["steps"])

    assert not re.search(r"\b(sudo|docker|podman)\b", scripts)


def test_python_imports_nothing_of_the_checkout() -> None:
    """With -c and -m it looks for modules in the directory of the job, where the script writes."""
    scripts = "".join(step["run"] for step in action()["runs"]["steps"])

    started = re.findall(r'python"? (-.*)|\$PYTHON" (-.*)', scripts, re.IGNORECASE)

    assert len(started) >= 6
    assert [words for pair in started for words in pair if words and words[:3] != "-I "] == []


def test_the_sandbox_is_tried_before_the_script() -> None:
    names = [step["id"] for step in action()["runs"]["steps"]]

    assert names.index("check") < names.index("run")
    assert names[-1] == "report"


@pytest.mark.parametrize("package", ["claude-proxy", "claude-proxy==1", "", "claude_proxy"])
def test_a_name_of_the_public_index_is_not_installed(tmp_path: Path, package: str) -> None:
    script = tmp_path / "install.sh"
    script.write_text(action()["runs"]["steps"][0]["run"])

    done = run_program(
        ["bash", str(script)],
        env={"RUNNER_TEMP": str(tmp_path), "PACKAGE": package, "PYTHON": "false", "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "names no file or URL" in done.stdout
