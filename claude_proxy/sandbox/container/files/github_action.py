"""GitHub composite action that runs a step in a sandbox, without sudo and without Docker; pure.

Laws kept: no input is put into a script (expressions are expanded before a shell reads it), only
into its variables; where no sandbox can be made, nothing runs; what runs inside cannot speak to the
runner, neither by its files nor by what it prints.
"""

from pathlib import PurePosixPath
from typing import Any

from claude_proxy.sandbox.container.files.model import FileRequest, FileSet, RenderedFile, head_of
from claude_proxy.sandbox.container.files.scripts_text import script
from claude_proxy.sandbox.container.files.yaml_text import document

PATH = PurePosixPath(".github/actions/claude-proxy/action.yml")

_COMMENT = """\
Runs a step in a sandbox whose only network is claude-proxy. It needs bubblewrap and user
namespaces, and no sudo; where a sandbox cannot be made it fails, and the summary says the fix. On
GitHub's Ubuntu 24.04 the job itself permits them before this step:
  - run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
  - run: sudo apt-get install -y bubblewrap

  - uses: ./.github/actions/claude-proxy
    with:
      package: ./claude_proxy-0.1.0-py3-none-any.whl
      policy: shell
      run: npm test

A key that the policy's credentials name is given to this step as a variable (env:), not to
the script: the proxy adds it to requests, and inside there is a placeholder.
"""

_INPUTS: dict[str, dict[str, Any]] = {
    "package": {
        "description": "The wheel of claude-proxy: a file, or a URL for pip.",
        "required": True,
    },
    "mode": {
        "description": (
            "run: run the script in a sandbox. start: only start the proxy and set the variables "
            "that lead to it, for the steps after this one, which could ignore it. report: end "
            "that proxy and write the summary."
        ),
        "default": "run",
    },
    "run": {"description": "The script, for bash.", "default": ""},
    "allowlist": {"description": "A policy file.", "default": ""},
    "policy": {"description": "A policy by name, such as shell or claude.", "default": ""},
    "pass-env": {
        "description": "Names of variables that the script may see, with spaces between them.",
        "default": "",
    },
    "options": {
        "description": "More options of `claude-proxy run` (or `serve`), one word a line.",
        "default": "",
    },
    "name": {"description": "The name of the run in the audit log.", "default": "ci"},
    "fail-on-denied": {
        "description": "Whether the step fails if anything was denied.",
        "default": "true",
    },
    "port": {"description": "With mode start: the port of the proxy.", "default": "9051"},
    "python": {
        "description": "The Python to install it with, 3.12 or newer.",
        "default": "python3",
    },
    "working-directory": {"description": "The project directory.", "default": "."},
}


def render(request: FileRequest) -> FileSet:
    """Return the action, and how a workflow uses it."""
    action = {
        "name": "claude-proxy",
        "description": "Run a step with no network but an allowlist.",
        "inputs": _INPUTS,
        "outputs": {
            "exit-code": _output("The exit code of the script.", "run", "exit-code"),
            "denied": _output("How many attempts were denied.", "report", "denied"),
            "proxy": _output("With mode start: the URL of the proxy.", "start", "proxy"),
        },
        "runs": {"using": "composite", "steps": list(_steps())},
    }
    text = head_of(request, _COMMENT) + document(action)
    return FileSet(
        (RenderedFile(PATH, text),),
        (
            "commit it, and put the wheel of claude-proxy where the workflow finds it",
            f"in a workflow, after actions/checkout: uses: ./{PATH.parent}",
        ),
    )


def _output(description: str, step: str, name: str) -> dict[str, str]:
    return {
        "description": description,
        "value": f"${{{{ steps.{step}.outputs.{name} }}}}",
    }


def _input(name: str) -> str:
    return f"${{{{ inputs.{name} }}}}"


def _steps() -> tuple[dict[str, Any], ...]:
    python = {"PYTHON": _input("python")}
    policy = {
        "ALLOWLIST": _input("allowlist"),
        "POLICY": _input("policy"),
        "OPTIONS": _input("options"),
    }
    place = {"working-directory": _input("working-directory")}
    is_run, is_start = "inputs.mode == 'run'", "inputs.mode == 'start'"
    return (
        {"id": "install", "shell": "bash", "env": {**python, "PACKAGE": _input("package")}}
        | place
        | {"run": script("install.sh")},
        {"id": "check", "if": is_run, "shell": "bash", "run": script("check.sh")},
        {
            "id": "run",
            "if": is_run,
            "shell": "bash",
            "env": {
                **python,
                **policy,
                "PASS_ENV": _input("pass-env"),
                "RUN_NAME": _input("name"),
                "SCRIPT": _input("run"),
            },
        }
        | place
        | {"run": script("run.sh")},
        {
            "id": "start",
            "if": is_start,
            "shell": "bash",
            "env": {**python, **policy, "PORT": _input("port")},
        }
        | place
        | {"run": script("start.sh")},
        {
            "id": "report",
            "if": "inputs.mode == 'run' || inputs.mode == 'report'",
            "shell": "bash",
            "env": {
                **python,
                "MODE": _input("mode"),
                "RUN_NAME": "${{ steps.run.outputs.run-name }}",
                "EXIT_CODE": "${{ steps.run.outputs.exit-code }}",
                "FAIL_ON_DENIED": _input("fail-on-denied"),
            },
            "run": script("report.sh"),
        },
    )
