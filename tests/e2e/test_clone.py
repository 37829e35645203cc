"""`run --clone`: the host does as it likes, the agent has its clone, and nothing is lost."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.internet import Internet
from .rig.launch import Launches, trusted
from .rig.messages_api import SPOKEN

KEY = "sk-ant-api03-imitation"  # the imitated service takes any
CLONE = ("--clone", "--name", "refactor")
COMMIT = "git -c user.name=a -c user.email=a@example.com commit -qm"


class Project:
    """A user's repository, and the commands about its clone."""

    def __init__(self, user: Launches) -> None:
        self.user = user
        self.path = user.project
        self.git("init", "-q", "-b", "main")
        (self.path / "one").write_text("one\n", encoding="utf-8")
        user.give(self.path)
        self.git("add", ".")
        self.git("-c", "user.name=u", "-c", "user.email=u@example.com", "commit", "-qm", "one")

    def git(self, *words: str) -> str:
        done = self._done(["git", *words])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ours(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self._done([*self.user.program(), *words])

    def _done(self, words: list[str | Path]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.user.argv(words),
            env=self.user.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def test_work_in_a_clone_is_shown_and_taken(anybody: Launches, program: FindProgram) -> None:
    program("git")
    project = Project(anybody)
    script = (
        "mkdir .vscode && echo {} >.vscode/tasks.json && echo two >>one && git add . && "
        f"{COMMIT} two && echo >left && git config core.fsmonitor /bin/false && cat .git/HEAD"
    )

    ran = anybody.run("sh", "-c", script, options=CLONE)
    shown = project.ours("changes", "refactor")
    before = (project.path / "one").read_text(encoding="utf-8")
    taken = project.ours("take", "refactor")

    assert (ran.returncode, ran.stdout) == (0, "ref: refs/heads/main\n"), ran.stderr
    assert "1 commit and 1 file with uncommitted work" in ran.stderr
    assert ".vscode/tasks.json: obeyed outside by" in shown.stdout
    assert "+two" in shown.stdout
    assert (before, taken.returncode) == ("one\n", 0), taken.stderr
    assert (project.path / "one").read_text(encoding="utf-8") == "one\ntwo\n"
    assert project.git("status", "--porcelain") == ""
    assert "fsmonitor" not in (project.path / ".git/config").read_text(encoding="utf-8")


def test_the_host_works_on_while_the_agent_does_and_both_keep_theirs(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    project = Project(runs)
    (project.path / "mine").write_text("mine", encoding="utf-8")
    go, done = "/tmp/go", f"{COMMIT} agent --allow-empty"
    script = f"echo begun; while ! test -e {go}; do read line && touch {go}; done; {done}; cat *"
    agent = runs.start("sh", "-c", script, options=CLONE)
    assert agent.stdout
    assert agent.stdin
    assert agent.stdout.readline() == b"begun\n"

    project.git("config", "user.name", "u")
    project.git("config", "user.email", "u@example.com")
    project.git("checkout", "-q", "-b", "other")
    (project.path / ".envrc").write_text("host", encoding="utf-8")
    project.git("commit", "-q", "--allow-empty", "-m", "host")
    project.git("checkout", "-q", "main")
    running = project.ours("clones")
    refused = project.ours("clones", "--remove", "refactor", "--force")
    second = runs.run("true", options=CLONE)
    out, err = agent.communicate(b"go\n")

    assert (agent.returncode, out) == (0, b"one\n"), err
    assert "running" in running.stdout
    assert (refused.returncode, second.returncode) == (1, 2)
    assert project.ours("take", "refactor").returncode == 0
    assert project.git("log", "--format=%s", "main").split() == ["agent", "one"]
    assert project.git("log", "--format=%s", "other").split() == ["host", "one"]
    assert (project.path / "mine").read_text(encoding="utf-8") == "mine"


def test_a_clone_outlives_a_killed_launcher(runs: Launches, program: FindProgram) -> None:
    program("git")
    project = Project(runs)
    agent = runs.start("sh", "-c", "echo kept >two; echo; exec cat", options=CLONE)
    assert agent.stdout
    agent.stdout.readline()

    runs.kill("launcher")
    agent.communicate()
    until(lambda: not runs.all_processes(), "the end of the sandbox")
    again = runs.run("cat", "two", options=CLONE)

    assert (again.returncode, again.stdout) == (0, "kept\n"), again.stderr
    assert project.git("status", "--porcelain") == ""


def test_a_commit_of_a_live_run_is_taken_while_it_goes_on(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    project = Project(runs)
    script = f"{COMMIT} agent --allow-empty; echo; exec cat"
    agent = runs.start("sh", "-c", script, options=["--name", "live"])
    assert agent.stdout
    agent.stdout.readline()

    taken = project.ours("take", "live")
    subjects = project.git("log", "--format=%s", "main").split()
    agent.communicate()

    assert (taken.returncode, subjects) == (0, ["agent", "one"]), taken.stderr


def test_claude_code_goes_on_in_a_clone_with_its_session(
    runs: Launches, internet: Internet, program: FindProgram
) -> None:
    Project(runs)
    claude = program("claude")
    trusted(runs, KEY)
    key = {"ANTHROPIC_API_KEY": KEY}

    first = runs.run(
        claude, "-p", "the first question", options=["--pass-env", *key], variables=key
    )
    with internet.watch() as seen:
        second = runs.run(
            *(claude, "-p", "and then", "--continue"),
            options=[*CLONE, "--pass-env", *key],
            variables=key,
        )

    assert (first.returncode, SPOKEN in second.stdout) == (0, True), second.stderr
    asked = [each.body for each in seen.exchanges if each.target.startswith("/v1/messages")]
    assert b"the first question" in b"".join(asked)


@pytest.mark.parametrize("option", ["--allow-ro", "--allow-rw"])
def test_no_option_shows_the_project_besides_its_clone(
    runs: Launches, program: FindProgram, option: str
) -> None:
    program("git")
    Project(runs)

    refused = runs.run("true", options=[*CLONE, option, runs.project / ".git"])

    assert refused.returncode == 2
    assert "nothing of the project itself is shown" in refused.stderr


def test_what_the_owner_hides_stays_hidden_in_a_clone_whatever_the_host_replaces(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    project = Project(runs)
    (project.path / ".env").write_text("SECRET", encoding="utf-8")
    (project.path / ".claude-proxy.yaml").write_text("hide: [.env]\n", encoding="utf-8")
    project.git("add", "-f", ".")
    project.git("-c", "user.name=u", "-c", "user.email=u@example.com", "commit", "-qm", "env")
    assert project.ours("agree", str(project.path)).returncode == 0
    agent = runs.start(
        "sh", "-c", "cat .env; echo begun; read line; cat .env; mv .env x; cat x", options=CLONE
    )
    assert agent.stdout
    assert agent.stdout.readline() == b"begun\n"

    (project.path / "new").write_text("SECRET", encoding="utf-8")
    (project.path / "new").rename(project.path / ".env")
    project.git("checkout", "-q", "--", ".")
    out, err = agent.communicate(b"\n")

    assert out == b"", err
    assert "replaced" not in err.decode()
