"""What is removed with a container: its holder after it, what has joined it before it."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container import removal, store
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.plan.update_words import image_tags
from tests.sandbox.container.test_store import STORED
from tests.support.container_parts import calls_of, fake_engine

HOLDER = "claude-proxy-network-of-web"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return fake_engine(tmp_path / "bin", (["rm"], "", "", 0), (["volume", "rm"], "", "", 0))


@pytest.fixture
def engine(program: Path) -> Engine:
    return Engine(EngineKind.PODMAN, program, {"PATH": "/usr/bin:/bin"})


def removed(program: Path) -> list[str]:
    """Return the names of what was removed, in order."""
    return [words[-1] for words in calls_of(program) if "rm" in words]


def test_what_has_joined_a_container_is_removed_before_it(engine: Engine, program: Path) -> None:
    removal.remove_container(engine, replace(STORED, way=Way.PAUSE))

    assert removed(program) == [f"{HOLDER}-again", "web"]


def test_a_holder_a_home_and_the_record_are_removed_with_it(
    tmp_path: Path, engine: Engine, program: Path
) -> None:
    stored = replace(STORED, way=Way.PAUSE, volume="claude-proxy-web")
    store.make_directory(store.directory_of(tmp_path, "web"))

    removal.forget(tmp_path, stored, engine)

    assert removed(program) == ["claude-proxy-web", HOLDER]
    assert not store.directory_of(tmp_path, "web").exists()


def test_a_container_that_is_entered_by_podman_has_no_holder(
    tmp_path: Path, engine: Engine, program: Path
) -> None:
    removal.remove_container(engine, STORED)
    removal.forget(tmp_path, STORED, engine)

    assert removed(program) == ["web"]


def test_the_images_that_updates_made_lose_their_names(tmp_path: Path) -> None:
    program = fake_engine(tmp_path / "bin", (["rmi"], "", "", 0), (["volume", "rm"], "", "", 0))
    engine = Engine(EngineKind.PODMAN, program, {"PATH": "/usr/bin:/bin"})
    tags = image_tags("web")

    removal.forget(tmp_path, replace(STORED, image=tags["latest"]), engine)

    assert [words[-1] for words in calls_of(program) if "rmi" in words] == [*tags.values()]
