"""Laws of `replay`: what would change is said by run, and the exit code tells whether anything."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.replay import Replay as Judged
from claude_proxy.audit.store import AuditStore
from claude_proxy.cli import main
from claude_proxy.cli.replay import _lines_of
from claude_proxy.policy.policy import Policy
from tests.audit.examples import MOMENT, a_decision, a_denial, an_outcome

FOREVER = 1_000_000  # days

type Replayed = Callable[..., int]


@pytest.fixture
def replay(tmp_path: Path) -> Replayed:
    statedir, policies = tmp_path / "state", tmp_path / "policies"
    policies.mkdir()
    (policies / "strict.yaml").write_text("allow: [{host: example.com, paths: [/a]}]\n", "utf-8")
    (policies / "same.yaml").write_text("allow: [example.com]\n", "utf-8")
    with closing(AuditStore(database_in(statedir), retention_days=FOREVER)) as store:
        for number, path in enumerate(("/a", "/b", "/b", "/\x1b[2J")):
            store.record(a_decision(MOMENT + number, path=path, run="one"))
            store.record(an_outcome(MOMENT + number, upstream="93.184.216.34:443"))
        store.record(
            a_denial(MOMENT + 9, target="example.com:80", scheme="http", path="/", run="two")
        )

    def run(*words: str) -> int:
        places = ("--statedir", str(statedir), "--confdir", str(tmp_path))
        return main.main(["replay", *places, *words])

    return run


def test_one_attempt_is_not_said_to_be_several() -> None:
    found = Judged(Policy(), attempts=1)

    assert next(_lines_of(found, "a.yaml", 5)).startswith("1 attempt recorded; ")


def test_what_would_change_is_said_by_run(
    replay: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--policy", "strict") == 1

    said = capsys.readouterr().out
    assert "5 attempts recorded" in said
    assert "run one: 3 would be denied" in said
    assert "2x GET https://example.com/b: was rule-matched, would be denied (path-not-" in said
    assert "\x1b" not in said


def test_nothing_that_changes_is_exit_code_0(
    replay: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--policy", "same", "--run", "one") == 0

    assert "0 would be decided differently" in capsys.readouterr().out


def test_json_has_the_same_figures(replay: Replayed, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay("--policy", "strict", "--json") == 1

    facts = json.loads(capsys.readouterr().out)
    assert (facts["attempts"], facts["denied"], facts["allowed"]) == (5, 3, 0)
    (one, two) = facts["runs"]
    assert (one["run"], one["denied"], two["other_reason"]) == ("one", 3, 1)
    assert one["requests"][0]["subject"] == "GET https://example.com/b"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--policy", "stirct"], "there is no policy"),
        (["--run", "nobody"], 'there was no run "nobody"'),
        (["--since", "soon"], "neither an age nor a time"),
    ],
)
def test_a_mistake_is_no_answer(
    replay: Replayed, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(*words) == 2

    assert what in capsys.readouterr().err
