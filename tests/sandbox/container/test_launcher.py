"""Only a container that this program has made, and that is as it was made, is taken for ours."""

import sys
from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import launcher
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import (
    ContainerPlan,
    ContainerSpec,
    EngineKind,
    Way,
)
from tests.sandbox.container.test_store import STORED
from tests.support.container_parts import FACTS, Case, a_plan, a_spec, fake_engine, inspected


def engine(tmp_path: Path, said: str, *, code: int = 0) -> Engine:
    errors = "Error: no such container" if code else ""
    case: Case = (["container", "inspect"], said, errors, code)
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return Engine(EngineKind.PODMAN, fake_engine(tmp_path / "bin", case), environ)


def test_a_container_as_it_was_made_is_ours(tmp_path: Path) -> None:
    assert launcher.ours(engine(tmp_path, inspected(plan=STORED.plan)), STORED).name == "web"


def test_a_container_that_was_made_otherwise_is_not(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="not made by this"):
        launcher.ours(engine(tmp_path, inspected(plan="another")), STORED)


def test_a_command_at_a_terminal_without_an_init_is_started_with_how_to_end_it() -> None:
    spec = a_spec(terminal=True)
    with_init = replace(FACTS, init=Path("/usr/bin/tini-static"))
    inside = replace(a_plan(spec), way=Way.INSIDE)

    def ways_to_end(spec: ContainerSpec, plan: ContainerPlan) -> list[str]:
        return [note for note in launcher.notes_of(spec, plan) if "container stop web" in note]

    assert len(ways_to_end(spec, a_plan(spec))) == 1
    assert ways_to_end(spec, a_plan(spec, facts=with_init)) == []
    assert ways_to_end(spec, inside) == []
    assert ways_to_end(a_spec(), a_plan()) == []
    assert ways_to_end(a_spec(terminal=True, detach=True), a_plan(spec)) == []


def test_a_container_that_is_gone_can_be_forgotten(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="was removed") as caught:
        launcher.ours(engine(tmp_path, "[]", code=125), STORED)

    assert "container rm web" in str(caught.value.fix)
