"""What a container shows is judged as for a run, without the user's home and without bwrap."""

import os
import socket
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.project_plan import plan_of_run
from claude_proxy.sandbox.plan import trust_store
from claude_proxy.sandbox.plan.model import MountKind, Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec


@pytest.fixture
def run_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    (tmp_path / "home" / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/nowhere")  # there is no bwrap
    (tmp_path / "allowlist.yaml").write_text("allow: [one.test]\n")
    settings = Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")
    sandbox = SandboxSpec(("claude",), tmp_path / "home" / "project", Profile("shell"))
    return RunSpec(sandbox, settings)


def test_the_project_is_shown_and_the_home_is_not(run_spec: RunSpec, tmp_path: Path) -> None:
    planned, _ = plan_of_run(run_spec, (), dry=True)

    shown = {str(mount.source) for mount in planned.mounts if mount.shows}
    assert str(run_spec.sandbox.project) in shown
    assert not [path for path in shown if path == str(tmp_path / "home")]


def test_roots_of_the_host_that_are_named_are_shown_as_they_are(
    run_spec: RunSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from claude_proxy.deferred.data_classes import replace  # noqa: PLC0415 - of this test

    roots = tmp_path / "certs"
    roots.mkdir()
    (roots / "one.pem").write_text("a root", "utf-8")
    monkeypatch.setattr(trust_store, "DIRECTORIES", (roots,))
    named = replace(run_spec, sandbox=replace(run_spec.sandbox, allow_ro=(roots,)))

    planned, _ = plan_of_run(named, (), dry=True)

    found = [mount for mount in planned.mounts if mount.at.is_relative_to(roots)]
    assert [(mount.kind, mount.source) for mount in found] == [(MountKind.READ, roots)]


def test_a_socket_in_the_project_is_covered(run_spec: RunSpec) -> None:
    place = run_spec.sandbox.project / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))

        planned, _ = plan_of_run(run_spec, (), dry=True)

    assert place in {mount.at for mount in planned.mounts}
    assert any("agent.sock" in note for note in planned.notes)


def test_what_a_run_never_shows_a_container_does_not_either(run_spec: RunSpec) -> None:
    from claude_proxy.deferred.data_classes import replace  # noqa: PLC0415 - of this test

    keys = Path(os.environ["HOME"]) / ".ssh"
    keys.mkdir()
    named = replace(run_spec, sandbox=replace(run_spec.sandbox, allow_ro=(keys,)))

    with pytest.raises(ConfigError, match="never shown"):
        plan_of_run(named, (), dry=True)
