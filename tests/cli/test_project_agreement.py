"""The owner is asked once per change of a project's file; unseen, a change ends the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.cli.project_agreement import lines_of, settle
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.agreements import Change

OLD, NEW = "hide: [a]\n", "hide: []\n"


class Owner:
    """A project, and its owner, who answers if there is a terminal."""

    def __init__(self, directory: Path) -> None:
        self.project = directory / "project"
        self.project.mkdir()
        self.file = self.project / ".claude-proxy.yaml"
        self.statedir = directory / "state"
        self.said: list[str] = []
        self.asked = 0

    def starts(self, *, answer: bool | None = None) -> str | None:
        def ask(_: str) -> bool:
            self.asked += 1
            return bool(answer)

        given: Callable[[str], bool] | None = None if answer is None else ask
        return settle(self.project, self.statedir, self.said.append, given)


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def test_a_project_without_a_file_asks_nothing_and_keeps_nothing(owner: Owner) -> None:
    assert owner.starts() is None
    assert owner.said == []
    assert not owner.statedir.exists()


def test_a_change_is_shown_and_asked_once(owner: Owner) -> None:
    owner.file.write_text(OLD)

    assert [owner.starts(answer=True) for _ in range(3)] == [OLD] * 3
    assert owner.asked == 1
    assert any("hide: [a]" in line for line in owner.said)


def test_without_a_terminal_the_first_file_is_taken_and_kept(owner: Owner) -> None:
    owner.file.write_text(OLD)

    assert owner.starts() == OLD
    assert owner.starts() == OLD
    assert len(owner.said) == 1


def removed(owner: Owner) -> None:
    owner.file.unlink()


def rewritten(owner: Owner) -> None:
    owner.file.write_text(NEW)


def shadowed(owner: Owner) -> None:
    owner.project = owner.project / "below"
    owner.project.mkdir()
    (owner.project / owner.file.name).write_text(NEW)


@pytest.mark.parametrize("change", [removed, rewritten, shadowed])
def test_a_change_that_nobody_has_seen_ends_the_run(
    owner: Owner, change: Callable[[Owner], None]
) -> None:
    owner.file.write_text(OLD)
    owner.starts()
    change(owner)

    with pytest.raises(ConfigError, match="has changed since its owner has seen it") as caught:
        owner.starts()
    assert "claude-proxy agree " in (caught.value.fix or "")
    with pytest.raises(ConfigError, match="was not agreed to"):
        owner.starts(answer=False)

    owner.starts(answer=True)
    owner.starts()


def test_what_an_agent_wrote_is_shown_without_its_control_characters() -> None:
    change = Change(Path("/p/.claude-proxy.yaml"), "a: \x1b[2J\n", "b: \x1b[2J\n")

    assert not any("\x1b" in line for line in lines_of(change))
