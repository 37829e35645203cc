"""The composite action, step by step, with the runner's files, as an ordinary user."""

import sys
from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from tests.conftest import FindProgram

from .conftest import Launch
from .rig.action_runner import SECRET, ActionRun, ActionRunner
from .rig.internet import Internet

ACTION = ".github/actions/claude-proxy/action.yml"
GIVEN = {"package": "./claude_proxy.whl", "python": sys.executable}
ALLOWED = "curl -sS -o /dev/null -w '%{http_code}\\n' https://origin.test/in"
NO_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'


@pytest.fixture
def runner(launch: Launch, tmp_path: Path) -> ActionRunner:
    assert main(["container", "init", "github-action", str(tmp_path)]) == 0
    return ActionRunner(launch(ordinary=True), tmp_path / ACTION)


def run(runner: ActionRunner, script: str, **more: str) -> ActionRun:
    runs = runner.runs
    options = f"--upstream-ca\n{runs.root_file}"
    return runner.run(
        {**GIVEN, "run": script, "allowlist": str(runs.allowlist), "options": options, **more}
    )


def test_a_script_reaches_what_is_allowed_and_the_summary_says_so(
    runner: ActionRunner, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = run(runner, ALLOWED)

    assert ran.codes == dict.fromkeys(("install", "check", "run", "report"), 0), ran.said
    assert seen.targets() == ["/in"]
    assert "### claude-proxy: 0 denied" in ran.summary
    assert "    origin.test" in ran.summary
    assert ran.outputs["report"] == {"denied": "0"}


def test_what_a_script_leaves_in_the_checkout_is_no_module_of_the_steps(
    runner: ActionRunner,
) -> None:
    script = "for name in json secrets sys venv; do echo 'raise SystemExit(77)' > $name.py; done"

    for _ in range(2):  # the second time they are there from the first step on
        ran = run(runner, script)

        assert ran.codes == dict.fromkeys(("install", "check", "run", "report"), 0), ran.said


def test_a_denial_fails_the_step_and_is_in_the_summary(runner: ActionRunner) -> None:
    ran = run(runner, "curl -sS https://denied.test/ || true")

    assert ran.codes == {"install": 0, "check": 0, "run": 0, "report": 1}
    assert "### claude-proxy: 1 denied" in ran.summary
    assert "    denied.test" in ran.summary


def test_a_denial_can_be_only_reported(runner: ActionRunner) -> None:
    ran = run(runner, "curl -sS https://denied.test/ || true", **{"fail-on-denied": "false"})

    assert ran.codes["report"] == 0


def test_the_exit_code_is_that_of_the_script(runner: ActionRunner) -> None:
    ran = run(runner, "false | true; exit 3")

    assert ran.codes["report"] != 0
    assert ran.outputs["run"]["exit-code"] == "1"  # -o pipefail, as in every step


def test_a_script_cannot_speak_to_the_runner(runner: ActionRunner) -> None:
    script = (
        'env; ls "$(dirname "$PWD")/_temp" 2>&1 || true; '
        "echo ::add-mask::a; echo '::set-output name=x::y'; "
        'for name in ENV PATH OUTPUT STEP_SUMMARY; do test -z "$(eval echo \\$GITHUB_$name)"; done'
    )

    ran = run(runner, script)

    assert ran.codes["report"] == 0, ran.said
    assert SECRET not in ran.said
    start = ran.said.index("::stop-commands::")
    token = ran.said[start + len("::stop-commands::") :].split("\n", 1)[0]
    end = ran.said.index(f"\n::{token}::\n")
    assert start < ran.said.index("::add-mask::a") < end
    assert token not in ran.said[start + len("::stop-commands::") + len(token) : end]
    assert ran.variables == {}


def test_an_input_is_never_a_command_of_the_steps(runner: ActionRunner) -> None:
    odd = '$(touch /tmp/escaped-$$) `id` "; exit 0 #'

    ran = run(runner, "true", name=odd)

    assert ran.codes["run"] == 2  # it is no name for a run
    assert "uid=" not in ran.said


def test_a_run_without_a_network_has_nothing_to_report(runner: ActionRunner) -> None:
    ran = runner.run({**GIVEN, "run": "echo RAN", "options": "--no-network"})

    assert ran.codes == dict.fromkeys(("install", "check", "run", "report"), 0), ran.said
    assert "RAN" in ran.said


def test_a_port_that_is_taken_is_not_led_to(runner: ActionRunner) -> None:
    listen = (
        "import socket; s = socket.create_server(('127.0.0.1', 19052)); "
        "print(1, flush=True); s.accept()"
    )
    with runner.runs.popen([sys.executable, "-c", listen]) as other:
        assert other.stdout is not None
        other.stdout.readline()

        ran = runner.run({**GIVEN, "mode": "start", "port": "19052"})

        other.kill()

    assert ran.codes["start"] == 1
    assert "did not start" in ran.said
    assert ran.variables == {}


def test_where_no_sandbox_can_be_made_nothing_runs_and_the_fix_is_said(
    runner: ActionRunner, program: FindProgram
) -> None:
    unshare = program("unshare")
    prefix = (
        unshare,
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        NO_NAMESPACES,
        "-",
    )

    ran = runner.run({**GIVEN, "run": "echo RAN", "policy": "shell"}, *prefix)

    assert ran.codes == {"install": 0, "check": 1}
    assert "RAN" not in ran.said
    assert "max_user_namespaces is 0" in ran.summary
    assert "sudo sysctl -w user.max_user_namespaces" in ran.summary


def test_a_proxy_serves_the_steps_after_it_until_the_report(
    runner: ActionRunner, internet: Internet
) -> None:
    started = run(runner, "", mode="start", port="19051")
    assert started.codes == {"install": 0, "start": 0}, started.said
    variables = started.variables
    try:
        ran = runner.runs.place.run(
            "sh", "-c", ALLOWED, environment=variables_of(runner, variables)
        )
        with internet.watch() as seen:
            denied = runner.runs.place.run(
                *("curl", "-sS", "https://denied.test/"),
                environment=variables_of(runner, variables),
            )
    finally:
        reported = run(runner, "", mode="report")

    assert ran.stdout == "200\n", ran.stderr
    assert denied.returncode == 56
    assert seen.nothing()
    assert reported.codes == {"install": 0, "report": 1}
    assert "    denied.test" in reported.summary


def variables_of(runner: ActionRunner, variables: dict[str, str]) -> dict[str, str]:
    assert variables["HTTPS_PROXY"] == "http://127.0.0.1:19051"
    return runner.runs.environment(**variables)
