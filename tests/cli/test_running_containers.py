"""Containers that run without a proxy are found by one question to their engine."""

from pathlib import Path

import pytest

from claude_proxy.cli import running_containers
from claude_proxy.control.client import Proxy
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.store import StoredContainer
from tests.support.control import facts

ENGINE = """#!/bin/sh
echo "$@" >> {log}
echo web
echo other
"""


def stored(name: str) -> StoredContainer:
    return StoredContainer(
        name, EngineKind.PODMAN, "i", "i", "i", Way.ENTER, 1.0, "/code", (), (), "plan"
    )


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log, program = tmp_path / "log", tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(ENGINE.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def kept(statedir: Path, *names: str) -> Path:
    for name in names:
        store.make_directory(store.directory_of(statedir, name))
        store.save(statedir, stored(name))
    return statedir


def test_a_container_whose_engine_runs_it_and_that_has_no_proxy_is_named(
    tmp_path: Path, engine: Path
) -> None:
    statedir = kept(tmp_path / "state", "web", "stopped")

    assert running_containers.without_proxy(statedir, [], []) == ["web"]
    assert engine.read_text().count("\n") == 1


def test_no_engine_is_asked_about_containers_that_have_their_proxy(
    tmp_path: Path, engine: Path
) -> None:
    statedir = kept(tmp_path / "state", "web")
    served = [Proxy(facts("web", project="/code"), Path("/run"))]

    assert running_containers.without_proxy(statedir, served, []) == []
    assert not engine.exists()


def test_an_engine_that_fails_is_no_obstacle(tmp_path: Path, engine: Path) -> None:
    statedir = kept(tmp_path / "state", "web")
    (engine.parent / "bin" / "podman").write_text("#!/bin/sh\nexit 1\n")

    assert running_containers.without_proxy(statedir, [], []) == []
