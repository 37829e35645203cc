"""A build runs the engine in a closed network; the name moves to an image that works."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import image_build
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.image_build import BuildRequest, BuildRules
from claude_proxy.sandbox.container.plan.model import EngineKind
from claude_proxy.sandbox.container.workbench import Reports

from .stand_in import StandIn

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of root's own")

REQUEST = BuildRequest("agents:latest", checks=(("claude", "--version"),))


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    (tmp_path / "engine").mkdir()
    return StandIn(tmp_path / "engine")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "none.yaml", tmp_path / "conf", tmp_path / "state")


def build(stand_in: StandIn, settings: Settings, request: BuildRequest = REQUEST) -> str:
    said: list[str] = []
    image_build.build(stand_in.engine, request, settings, Reports(said.append, lambda _: None))
    return "\n".join(said)


def test_the_engine_builds_in_a_network_of_its_own(stand_in: StandIn, settings: Settings) -> None:
    build(stand_in, settings)

    assert stand_in.text("network").strip() != str(Path("/proc/self/ns/net").readlink())
    assert "HTTPS_PROXY=http://127.0.0.1:3128" in stand_in.text("environment").splitlines()


def test_an_image_gets_its_name_after_its_checks(stand_in: StandIn, settings: Settings) -> None:
    said = build(stand_in, settings)

    assert stand_in.calls("tag") == ["tag 0123abc agents:latest"]
    assert stand_in.calls("run")[0].endswith("--entrypoint claude 0123abc --version")
    assert "checked: claude --version: 1.2.3 (program)" in said


def test_an_image_that_fails_its_checks_gets_no_name(stand_in: StandIn, settings: Settings) -> None:
    stand_in.let("broken")

    with pytest.raises(ClaudeProxyError, match=r"`claude --version` fails in it"):
        build(stand_in, settings)

    assert not stand_in.calls("tag")
    assert "rmi 0123abc" in stand_in.calls("rmi")


def test_a_build_that_fails_keeps_its_log_and_nothing_else(
    stand_in: StandIn, settings: Settings
) -> None:
    stand_in.let("fails", "42")

    with pytest.raises(ClaudeProxyError, match=r"exit code 42") as caught:
        build(stand_in, settings)

    assert Path(str(caught.value.where)).read_text() == "STEP 1\n"
    assert not stand_in.calls("tag")
    assert [path for path in (settings.statedir / "builds").iterdir() if path.is_dir()] == []


def test_a_build_that_succeeds_leaves_no_log(stand_in: StandIn, settings: Settings) -> None:
    build(stand_in, settings)

    assert [path.name for path in (settings.statedir / "builds").iterdir()] == [".lock"]


def test_a_containerfile_is_built_with_its_directory_as_the_context(
    stand_in: StandIn, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("FROM scratch\nRUN x\n")

    build(stand_in, settings, replace(REQUEST, file=file, checks=()))

    assert stand_in.calls("build")[0].endswith(f" {tmp_path}")
    assert "\nARG " in stand_in.text("Containerfile")
    assert not stand_in.calls("run")


def test_the_packaged_containerfile_sees_no_files_of_the_host(
    stand_in: StandIn, settings: Settings
) -> None:
    build(stand_in, settings)

    context = Path(stand_in.calls("build")[0].split()[-1])
    assert context.is_relative_to(settings.statedir)


def test_docker_builds_elsewhere_and_is_refused(settings: Settings) -> None:
    docker = Engine(EngineKind.DOCKER, Path("/usr/bin/docker"), {})

    with pytest.raises(ConfigError, match="a network of its own"):
        image_build.build(docker, REQUEST, settings, Reports(print, print))


def test_a_containerfile_that_is_no_text_is_an_error(
    stand_in: StandIn, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "Containerfile"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not utf-8"):
        build(stand_in, settings, replace(REQUEST, file=file))


def test_a_policy_that_does_not_exist_stops_the_build(
    stand_in: StandIn, settings: Settings
) -> None:
    with pytest.raises(ConfigError):
        build(stand_in, settings, replace(REQUEST, rules=BuildRules(policy="none")))


def test_what_a_killed_build_left_is_removed_by_the_next(
    stand_in: StandIn, settings: Settings
) -> None:
    dead = settings.statedir / "builds" / "build-dead"
    dead.mkdir(parents=True)
    (dead / "image-id").write_text("sha256:0123abc")
    (dead / "mark").write_text("/run/of-the-dead/trust")
    stand_in.let("containers", '[{"Id": "77"}, {"Id": "88"}, {"Id": "99"}]')
    stand_in.keep("77", '{"Volumes": ["/run/of-the-dead/trust:/run/claude-proxy:ro"]}')
    stand_in.keep("88", '{"Volumes": ["/run/of-another/trust:/run/claude-proxy:ro"]}')

    build(stand_in, settings)

    assert stand_in.calls("rm") == ["rm --force 77"]
    assert "rmi 0123abc" in stand_in.calls("rmi")
    assert not dead.exists()
