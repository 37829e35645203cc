"""An update changes a copy of the image; the container gets it when it starts next, or nothing."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import next_image, store, updates
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.container.updates import UpdateFailedError, UpdateRequest
from claude_proxy.sandbox.container.workbench import Reports

from .stand_in import StandIn

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of root's own")


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    (tmp_path / "engine").mkdir()
    return StandIn(tmp_path / "engine")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    store.make_directory(store.directory_of(tmp_path / "state", "web"))
    return Settings(tmp_path / "none.yaml", tmp_path / "conf", tmp_path / "state")


STORED = StoredContainer(
    name="web",
    engine=EngineKind.PODMAN,
    image="agents",
    image_id="01d",
    image_digest="",
    way=Way.ENTER,
    created=0,
    project="/p",
    command=("claude",),
    words=(),
    plan="",
)


def update(stand_in: StandIn, settings: Settings, *command: str) -> None:
    reports = Reports(lambda _: None, lambda _: None)
    updates.update(stand_in.engine, STORED, UpdateRequest(command), settings, reports)


def test_the_package_manager_of_the_image_is_run_as_root_in_a_copy(
    stand_in: StandIn, settings: Settings
) -> None:
    update(stand_in, settings)

    lines = stand_in.text("Containerfile").splitlines()
    assert lines[0].startswith("FROM localhost/claude-proxy-work-update-")
    assert "USER 0:0" in lines
    assert "apt-get" in next(line for line in lines if line.startswith("RUN "))
    assert lines[-1] == "USER 1000"


def test_a_command_of_the_users_is_run_as_it_is(stand_in: StandIn, settings: Settings) -> None:
    update(stand_in, settings, "apt-get", "install", "a b")

    assert 'RUN ["apt-get", "install", "a b"]' in stand_in.text("Containerfile")


def test_the_result_is_the_next_image_and_the_one_before_is_kept(
    stand_in: StandIn, settings: Settings
) -> None:
    update(stand_in, settings)

    newest = "localhost/claude-proxy-container-web:latest"
    assert next_image.of(settings.statedir, "web") == newest
    assert f"tag 0123abc {newest}" in stand_in.calls("tag")
    assert "tag 01d localhost/claude-proxy-container-web:previous" in stand_in.calls("tag")


def test_a_second_update_begins_with_the_image_of_the_first(
    stand_in: StandIn, settings: Settings
) -> None:
    update(stand_in, settings)
    update(stand_in, settings)

    tags = [call for call in stand_in.calls("tag") if "claude-proxy-work" in call]
    assert tags[1].split()[1] == "localhost/claude-proxy-container-web:latest"


def test_a_command_that_fails_changes_nothing_and_its_exit_code_is_returned(
    stand_in: StandIn, settings: Settings
) -> None:
    stand_in.let("fails", "100")

    with pytest.raises(UpdateFailedError) as caught:
        update(stand_in, settings)

    assert caught.value.exit_code == 100
    assert next_image.of(settings.statedir, "web") is None


def test_the_name_of_the_copy_is_taken_away_alone(stand_in: StandIn, settings: Settings) -> None:
    update(stand_in, settings)

    _, image, name = stand_in.calls("untag")[0].split()
    assert image == name  # without the second word, podman takes away every name of the image


def test_an_image_in_which_the_agent_fails_is_not_taken(
    stand_in: StandIn, settings: Settings
) -> None:
    stand_in.let("broken")

    with pytest.raises(ClaudeProxyError, match=r"`claude --version` fails"):
        update(stand_in, settings, "true")

    assert next_image.of(settings.statedir, "web") is None
    assert stand_in.calls("rmi")[0] == "rmi --force 0123abc"


def test_without_a_package_manager_the_command_has_to_be_named(
    stand_in: StandIn, settings: Settings
) -> None:
    stand_in.let("broken")

    with pytest.raises(ClaudeProxyError, match="no package manager"):
        update(stand_in, settings)
