"""The host goes on working in the project of a run: what is protected stays protected."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.launch import Launches

# Does what its standard input says: a line is a script, whose output is one line.
SHELL = 'while read -r line; do eval "$line" 2>&1 | tr "\\n" " "; echo; done'
PROTECTED = (".mcp.json", ".envrc", ".claude-proxy.yaml", ".vscode/tasks.json", ".husky/hook")
SECRET = ".env"
RESTRICTIONS = "hide: [.env]\n"


class Agent:
    """A shell in a sandbox, as an agent uses it."""

    def __init__(self, runs: Launches) -> None:
        options = ["--no-network"]
        self.process = runs.start("sh", "-c", SHELL, options=options)
        assert self.sh("echo up") == "up"

    def sh(self, script: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{script}\n".encode())
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def can_write(self, name: str) -> bool:
        """Tell whether a file could be written, without opening it."""
        return self.sh(f"test -w {name} && echo writable") == "writable"

    def end(self) -> tuple[int, str]:
        """End the shell; return the exit code of the run and what it said to the user."""
        _, said = self.process.communicate()
        return self.process.returncode, said.decode()


@pytest.fixture
def host(runs: Launches, program: FindProgram) -> Callable[[str], None]:
    """Return a function that runs a script in the project, outside, as its owner does."""
    program("git")

    def run(script: str) -> None:
        done = subprocess.run(
            runs.argv(["sh", "-euc", script], cwd=runs.project),
            env=runs.environment(
                GIT_AUTHOR_NAME="a",
                GIT_AUTHOR_EMAIL="a@example.com",
                GIT_COMMITTER_NAME="a",
                GIT_COMMITTER_EMAIL="a@example.com",
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def agent(runs: Launches, host: Callable[[str], None]) -> Iterator[Agent]:
    """An agent in a repository with everything that is protected."""
    for name in (*PROTECTED, SECRET):
        path = runs.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("old\n" if name != ".claude-proxy.yaml" else RESTRICTIONS)
    host("git init -q . && git add -A && git commit -qm one")
    host("git checkout -qb other && git rm -qr . && git commit -qm none --allow-empty")
    host("git checkout -q -")
    # Its file restricts the run, which is agreed to where that is asked.
    host(f"{' '.join(map(str, runs.program()))} agree >/dev/null 2>&1 || :")
    agent = Agent(runs)
    yield agent
    agent.process.kill()
    agent.process.communicate()


EVERYTHING = f"{' '.join(PROTECTED)} {SECRET}"
MOVES = {
    "an editor that renames its new file over the old one": (
        f"for f in {EVERYTHING}; do cp $f $f.new; mv $f.new $f; done"
    ),
    "an editor that keeps a backup": (f"for f in {EVERYTHING}; do mv $f $f~; cp $f~ $f; done"),
    "sed -i": f"sed -i '' {EVERYTHING} 2>/dev/null || sed -i p {EVERYTHING}",
    "rm and a new file": f'for f in {EVERYTHING}; do c=$(cat $f); rm $f; echo "$c" >$f; done',
    "a checkout of another branch and back": "git checkout -q other; git checkout -q -",
    "directories that are moved away and back": (
        "for d in .vscode .husky; do mv $d away; mkdir $d; rmdir $d; mv away $d; done"
    ),
    "directories that are made again": (
        "for d in .vscode .husky; do cp -r $d away; rm -r $d; mv away $d; done"
    ),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_what_the_host_replaces_is_protected_again(
    runs: Launches, agent: Agent, host: Callable[[str], None], move: str
) -> None:
    host(move)
    for name in PROTECTED:
        until(lambda name=name: not agent.can_write(name), name)  # type: ignore[misc]
    until(lambda: agent.sh(f"test -s {SECRET} || echo hidden") == "hidden", SECRET)

    for name in PROTECTED:
        assert "Read-only" in agent.sh(f"echo evil >> {name}"), name
    assert agent.end()[0] == 0

    for name in (*PROTECTED, SECRET):
        assert "evil" not in (runs.project / name).read_text()


def test_the_user_learns_what_was_replaced_at_once_and_at_the_end(
    runs: Launches, agent: Agent, host: Callable[[str], None]
) -> None:
    host("echo new >.envrc.new; mv .envrc.new .envrc")
    until(lambda: not agent.can_write(".envrc"), "protection")
    assert agent.process.stderr is not None
    at_once = ""
    while ".envrc" not in at_once:
        at_once = agent.process.stderr.readline().decode()

    code, at_the_end = agent.end()

    assert f"{runs.project}/.envrc was replaced outside at " in at_once
    assert f"{runs.project}/.envrc was replaced once during this run" in at_the_end
    assert code == 0


def test_a_run_whose_protection_cannot_be_put_back_ends(
    runs: Launches, agent: Agent, host: Callable[[str], None]
) -> None:
    host("ln -sfn elsewhere .envrc")

    code, said = agent.end()

    assert code == 137
    assert f"where: {runs.project}/.envrc" in said
    assert not Path(runs.project / "elsewhere").exists()


def test_an_entry_that_is_replaced_all_the_time_is_protected_or_the_run_ends(
    agent: Agent, host: Callable[[str], None]
) -> None:
    host("i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i >x; mv x .envrc; done")

    until(lambda: not agent.can_write(".envrc"), "protection")
    assert agent.sh("cat .envrc") == "300"
    code, said = agent.end()

    assert code == 0
    assert ".envrc was replaced" in said


def test_files_of_any_user_are_protected_again(anybody: Launches) -> None:
    (anybody.project / ".envrc").write_text("old\n")
    (anybody.project / ".vscode").mkdir()
    anybody.give(anybody.project)
    agent = Agent(anybody)

    script = "echo new >x; mv x .envrc; mv .vscode old; mkdir .vscode; : >.vscode/tasks.json"
    subprocess.run(anybody.argv(["sh", "-euc", script], cwd=anybody.project), check=True)

    until(lambda: not agent.can_write(".envrc"), ".envrc")
    until(lambda: not agent.can_write(".vscode/tasks.json"), ".vscode")
    assert agent.end()[0] == 0


def test_the_runs_own_git_directory_comes_back(agent: Agent, host: Callable[[str], None]) -> None:
    agent.sh("git config mark.inside yes")

    host("mv .git away; git init -q .")

    until(lambda: agent.sh("git config mark.inside") == "yes", "its own directory")
    host("! git config mark.inside")
    host("rm -r .git; mv away .git; ! git config mark.inside")
