"""The home of a run is its project's own: a session goes on in the next run, and nothing leaks."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .conftest import Launch
from .rig.internet import Internet
from .rig.launch import Launches, trusted
from .rig.messages_api import SPOKEN

KEY = "sk-ant-api03-imitation"  # the imitated service takes any

# What the user's next session outside would obey, or an open one.
ATTACK = """
mkdir -p ~/.claude/shell-snapshots ~/.claude/hooks ~/.claude/local
for file in settings.json shell-snapshots/snapshot.sh hooks/x local/claude plugins; do
  echo BAD >> ~/.claude/$file
done
echo '{"mcpServers": {"BAD": {"command": "BAD"}}}' > ~/.claude.json
echo BAD >> ~/.bashrc
cat ~/.claude/projects/*/*.jsonl
true
"""


@pytest.fixture
def claude(runs: Launches, program: FindProgram) -> "Claude":
    return Claude(trusted(runs, KEY), program("claude"))


class Claude:
    """Claude Code in runs of one user's project."""

    def __init__(self, runs: Launches, program: str) -> None:
        self.runs, self._program = runs, program
        self.own = runs.place.home / ".claude"

    def prints(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Have it answer a prompt in a run."""
        return self.runs.run(
            self._program,
            *("-p", *words),
            options=["--pass-env", "ANTHROPIC_API_KEY"],
            variables={"ANTHROPIC_API_KEY": KEY},
        )

    def prints_outside(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Have it answer a prompt without a sandbox."""
        place = self.runs.place
        ran: subprocess.CompletedProcess[str] = place.run(
            self._program,
            *("-p", *words),
            environment=self.runs.environment(
                ANTHROPIC_API_KEY=KEY, NODE_EXTRA_CA_CERTS=str(self.runs.root_file)
            ),
            cwd=self.runs.project,
        )
        return ran

    def transcripts(self) -> list[Path]:
        """Return the transcripts in the user's own directory."""
        return sorted(self.own.glob("projects/*/*.jsonl"))


def asked(internet: Internet, claude: Claude, *words: str) -> str:
    """Have it answer in a run; return all that it told the service."""
    with internet.watch() as seen:
        ran = claude.prints(*words)
    assert (ran.returncode, SPOKEN in ran.stdout) == (0, True), ran.stderr
    bodies = [each.body for each in seen.exchanges if each.target.startswith("/v1/messages")]
    return b"".join(bodies).decode()


def test_claude_code_continues_its_session_in_the_next_run(
    claude: Claude, internet: Internet
) -> None:
    first = claude.prints("the first question", "--output-format", "json")
    session = json.loads(first.stdout)["session_id"]

    continued = asked(internet, claude, "and then", "--continue")
    resumed = asked(internet, claude, "and at last", "--resume", session)

    for body in (continued, resumed):
        assert "the first question" in body
        assert SPOKEN in body
    assert "and then" in resumed
    assert claude.transcripts() == []


def test_a_session_of_this_project_outside_goes_on_inside_and_no_other_is_seen(
    claude: Claude, internet: Internet
) -> None:
    assert claude.prints_outside("asked outside").returncode == 0
    other = claude.own / "projects/-other-project/one.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text('{"text": "OTHER PROJECT"}\n')
    before = {path: path.read_bytes() for path in claude.transcripts()}

    body = asked(internet, claude, "and inside", "--continue")
    seen = claude.runs.run(
        "sh", "-c", "cat ~/.claude/projects/*/*", options=["--profile", "claude"]
    )

    assert "asked outside" in body
    assert "OTHER PROJECT" not in seen.stdout
    assert {path: path.read_bytes() for path in claude.transcripts()} == before


def test_what_a_run_writes_reaches_no_session_outside(launch: Launch) -> None:
    runs = trusted(launch(ordinary=True))
    own = runs.place.home / ".claude"
    own.mkdir()
    (own / "settings.json").write_text('{"theme": "dark"}')
    runs.give(runs.place.home)

    def outside() -> dict[Path, bytes]:
        home = runs.place.home
        return {
            path: path.read_bytes()
            for path in home.rglob("*")
            if path.is_file() and ".local/state" not in str(path) and ".config" not in str(path)
        }

    before = outside()

    ran = runs.run("sh", "-c", ATTACK, options=["--profile", "claude"])

    assert ran.returncode == 0, ran.stderr
    assert outside() == before


def test_runs_that_begin_at_once_have_one_home(launch: Launch) -> None:
    runs = trusted(launch())
    skills = runs.place.home / ".claude/skills"
    skills.mkdir(parents=True)
    for number in range(200):
        (skills / str(number)).write_text("x")
    script = "ls ~/.claude/skills | wc -l"

    started = [runs.start("sh", "-c", script, options=["--profile", "claude"]) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in started]

    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert [int(out) for out, _ in ended] == [200, 200, 200]
    assert len([err for _, err in ended if b"of its own from now on" in err]) == 1
