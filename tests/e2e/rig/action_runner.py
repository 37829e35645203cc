"""Runs the steps of a composite action as GitHub's runner does: its files, variables, conditions.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .launch import Launches

_EXPRESSION = re.compile(r"\$\{\{ (inputs|steps)\.([a-z-]+)(?:\.outputs\.([a-z-]+))? \}\}")
_FILES = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
SECRET = "token-of-the-runner"


@dataclass
class ActionRun:
    """What the steps came to."""

    codes: dict[str, int] = field(default_factory=dict)
    said: str = ""
    summary: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)


class ActionRunner:
    """One job of a runner, for one user."""

    def __init__(self, runs: Launches, action: Path) -> None:
        self.runs = runs
        self._action: dict[str, Any] = yaml.safe_load(action.read_text())
        self.temporary = runs.directory / "_temp"
        self.temporary.mkdir(exist_ok=True)
        installed = self.temporary / "claude-proxy/venv/bin"
        installed.mkdir(parents=True, exist_ok=True)
        # What the first step would install.
        program = installed / "claude-proxy"
        words = " ".join(map(str, runs.program()))
        program.write_text(f'#!/bin/sh\nexport PYTHONSAFEPATH=1\nexec {words} "$@"\n')
        program.chmod(0o755)
        for place in (self.temporary / "claude-proxy", *installed.parents[:2], installed):
            place.chmod(0o700 if place.name == "claude-proxy" else 0o755)
        runs.give(self.temporary)

    def run(self, inputs: Mapping[str, str], *prefix: str) -> ActionRun:
        """Run every step whose condition holds, until one fails; `prefix`: words before bash."""
        given = {name: str(one.get("default", "")) for name, one in self._action["inputs"].items()}
        given |= inputs
        found = ActionRun()
        for step in self._action["runs"]["steps"]:
            condition = step.get("if", "")
            if condition and f"inputs.mode == '{given['mode']}'" not in condition:
                continue
            code = self._step(step, given, found, prefix)
            found.codes[step["id"]] = code
            if code:
                break
        return found

    def _step(
        self,
        step: Mapping[str, Any],
        given: Mapping[str, str],
        found: ActionRun,
        prefix: Sequence[str],
    ) -> int:
        def filled(text: str) -> str:
            return _EXPRESSION.sub(
                lambda one: (
                    given[one[2]]
                    if one[1] == "inputs"
                    else found.outputs.get(one[2], {}).get(one[3], "")
                ),
                text,
            )

        files = {name: self.temporary / f"{name}-{step['id']}" for name in _FILES}
        script = self.temporary / f"{step['id']}.sh"
        script.write_text(step["run"])
        for path in files.values():
            path.write_text("")
            self.runs.give(path)
        variables = {name: filled(value) for name, value in step.get("env", {}).items()}
        named = {name: str(path) for name, path in files.items()}
        where = filled(step.get("working-directory", "."))
        words = [*prefix, "bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(
            self.runs.argv(words, cwd=self.runs.project / where),
            env=self.runs.environment(
                **variables,
                **named,
                RUNNER_TEMP=str(self.temporary),
                PYTHONSAFEPATH="",  # a runner does not set it
                ACTIONS_RUNTIME_TOKEN=SECRET,
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        found.said += done.stdout + done.stderr
        found.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        found.outputs[step["id"]] = dict(line.split("=", 1) for line in lines)
        found.variables |= _variables(files["GITHUB_ENV"].read_text())
        return done.returncode


def _variables(text: str) -> dict[str, str]:
    """Return the variables of a file of the form NAME<<END, value, END."""
    found = re.findall(r"^(\w+)<<(\w+)\n(.*?)\n\2$", text, flags=re.MULTILINE | re.DOTALL)
    return {name: value for name, _, value in found}
