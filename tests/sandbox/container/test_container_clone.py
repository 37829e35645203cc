"""The clone of a container is held while it is used, goes on by name, and is lost with no work."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import container_clone
from claude_proxy.sandbox.container.plan import project_mounts
from claude_proxy.sandbox.container.plan.model import ContainerSpec
from claude_proxy.sandbox.container.project_plan import plan_of_run
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec
from tests.conftest import FindProgram
from tests.sandbox.container.test_store import STORED
from tests.sandbox.git.repositories import repository


@pytest.fixture
def spec(tmp_path: Path, program: FindProgram, monkeypatch: pytest.MonkeyPatch) -> ContainerSpec:
    program("git")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "allowlist.yaml").write_text("allow: [one.test]\n")
    settings = Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")
    sandbox = SandboxSpec(("true",), repository(tmp_path / "project"), Profile("shell"))
    return ContainerSpec(
        RunSpec(sandbox, settings, name="web", clone=True), image="box", name="web"
    )


def owner_of(spec: ContainerSpec) -> tuple[int, int]:
    seen = spec.run.sandbox.project.stat()
    return seen.st_uid, seen.st_gid


def _fail(tree: Path, *, worked: bool) -> None:
    if worked:
        (tree / "left").touch()
    raise ClaudeProxyError("no engine")


def heard(_: str) -> None:
    """Take a line that nobody reads."""


def test_a_container_shows_the_clone_and_nothing_of_the_project(spec: ContainerSpec) -> None:
    with container_clone.held(spec, owner_of(spec), heard) as clone:
        run = clone.spec.run
        planned, _ = plan_of_run(run, (), dry=True)

    made = clones.named(run.settings.statedir, "web")
    shown = project_mounts.inside(planned, run.sandbox, GitMounts()).mounts
    sources = {str(mount.at): mount.source for mount in shown if mount.shows}
    assert sources["/workspace"] == made.tree
    assert sources["/workspace/.git"] == made.git
    project = run.sandbox.project
    assert not [at for at in sources.values() if Path(str(at)).is_relative_to(project)]


def test_it_is_held_until_it_is_left_and_goes_on_by_name(spec: ContainerSpec) -> None:
    said: list[str] = []
    with container_clone.held(spec, owner_of(spec), heard) as clone:
        made = clones.named(spec.run.settings.statedir, "web")
        assert clones.is_in_use(made)
        clone.leave()
        assert not clones.is_in_use(made)

    with container_clone.held(spec, owner_of(spec), said.append, again=True):
        pass
    assert said == ["note: going on in the clone web (branch main)"]


@pytest.mark.parametrize("worked", [False, True])
def test_one_made_for_a_container_that_failed_goes_unless_it_has_work(
    spec: ContainerSpec,
    worked: bool,  # noqa: FBT001 - a case
) -> None:
    statedir = spec.run.settings.statedir
    with (
        pytest.raises(ClaudeProxyError, match="no engine"),
        container_clone.held(spec, owner_of(spec), heard),
    ):
        _fail(clones.named(statedir, "web").tree, worked=worked)

    assert (clones.find(statedir, "web") is not None) == worked


def test_one_that_was_there_before_stays_when_a_start_fails(spec: ContainerSpec) -> None:
    with container_clone.held(spec, owner_of(spec), heard):
        pass
    with (
        pytest.raises(ClaudeProxyError, match="no engine"),
        container_clone.held(spec, owner_of(spec), heard),
    ):
        raise ClaudeProxyError("no engine")

    assert clones.find(spec.run.settings.statedir, "web") is not None


def test_one_that_was_removed_is_made_again_and_that_is_said(spec: ContainerSpec) -> None:
    said: list[str] = []
    with container_clone.held(spec, owner_of(spec), said.append, again=True):
        pass

    assert said == ["note: the clone web was removed; a new one is made"]


def test_a_container_without_a_clone_has_none(spec: ContainerSpec) -> None:
    plain = replace(spec, run=replace(spec.run, clone=False))
    with container_clone.held(plain, owner_of(spec), heard) as clone:
        assert clone.spec is plain

    assert container_clone.as_planned(plain) is plain
    assert clones.all_in(spec.run.settings.statedir) == []


def test_what_a_clone_holds_is_said_with_the_way_to_take_it(spec: ContainerSpec) -> None:
    said: list[str] = []
    statedir = spec.run.settings.statedir
    with container_clone.held(spec, owner_of(spec), heard):
        (clones.named(statedir, "web").tree / "left").touch()

    container_clone.report(statedir, STORED, said.append)  # works in the project
    assert said == []
    container_clone.report(statedir, replace(STORED, clone=True), said.append)
    assert "the container web worked in the clone web: 0 commits and 1 file" in said[0]
    assert "claude-proxy take web" in said[1]
