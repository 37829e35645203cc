"""A container is stopped and removed only if it is ours, and removed as it runs only by force."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import ending, store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.sandbox.container.test_store import STORED, kept
from tests.support.container_parts import calls_of, fake_engine, inspected

GONE = (["container", "inspect"], "", "Error: no such container web\n", 125)


def engine(directory: Path, state: str | None = None) -> Engine:
    seen = GONE if state is None else (["container", "inspect"], state, "", 0)
    others = [([word], "", "", 0) for word in ("stop", "rm", "volume")]
    program = fake_engine(directory / "bin", seen, *others)
    return Engine(EngineKind.PODMAN, program, {"PATH": "/usr/bin:/bin"})


def first_words(engine: Engine) -> list[str]:
    return [words[0] for words in calls_of(engine.program)]


def said(_: str) -> None:
    """Take a line that nobody reads."""


def test_a_container_that_runs_is_stopped(tmp_path: Path) -> None:
    found = engine(tmp_path, inspected())

    assert ending.stop(found, STORED, tmp_path, timeout_s=1)
    assert "stop" in first_words(found)


def test_one_that_does_not_run_or_is_gone_is_left_as_it_is(tmp_path: Path) -> None:
    assert not ending.stop(
        engine(tmp_path / "a", inspected(status="exited")), STORED, tmp_path, timeout_s=1
    )
    assert not ending.stop(engine(tmp_path / "b"), STORED, tmp_path, timeout_s=1)


def test_one_that_somebody_else_made_is_never_stopped(tmp_path: Path) -> None:
    found = engine(tmp_path, inspected(plan="another"))

    with pytest.raises(ClaudeProxyError, match="was not made by"):
        ending.stop(found, STORED, tmp_path, timeout_s=1)
    assert "stop" not in first_words(found)


def test_one_of_rm_is_forgotten_when_it_is_gone(tmp_path: Path) -> None:
    directory = kept(tmp_path)

    ending.stop(engine(tmp_path), replace(STORED, remove=True), tmp_path, timeout_s=1)

    assert not directory.exists()


def test_one_that_runs_is_removed_only_by_force(tmp_path: Path) -> None:
    kept(tmp_path)
    found = engine(tmp_path, inspected())

    with pytest.raises(ClaudeProxyError, match="runs"):
        ending.remove(found, STORED, tmp_path, said, force=False)
    ending.remove(found, STORED, tmp_path, said, force=True)

    assert not store.directory_of(tmp_path, "web").exists()
