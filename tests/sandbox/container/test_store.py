"""What is kept of a container is its owner's alone, and comes back as it was."""

import stat
from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.store import StoredContainer

STORED = StoredContainer(
    name="web",
    engine=EngineKind.PODMAN,
    image="box",
    image_id="sha256:1d",
    image_digest="sha256:d16e57",
    way=Way.ENTER,
    created=1.5,
    project="/home/me/project",
    command=("sh", "-c", "true"),
    words=("/home/me/project", "--image=box", "--", "sh"),
    plan="p",
)


def kept(statedir: Path, stored: StoredContainer = STORED) -> Path:
    directory = store.directory_of(statedir, stored.name)
    store.make_directory(directory)
    store.save(statedir, stored)
    return directory


def test_a_container_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    kept(tmp_path)

    assert store.load(tmp_path, "web") == STORED


def test_nobody_else_may_look_at_what_is_kept(tmp_path: Path) -> None:
    directory = kept(tmp_path / "state")

    for path in (tmp_path / "state", directory.parent, directory, directory / store.RECORD):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_container_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match='no container "web"'):
        store.load(tmp_path, "web")


@pytest.mark.parametrize("text", ["", "[]", '{"name": "web"}', '{"name": "web", "engine": "x"}'])
def test_a_record_that_cannot_be_read_says_where_it_is(tmp_path: Path, text: str) -> None:
    directory = kept(tmp_path)
    (directory / store.RECORD).write_text(text)

    with pytest.raises(ClaudeProxyError, match="cannot be read") as caught:
        store.load(tmp_path, "web")

    assert caught.value.where == str(directory / store.RECORD)
    assert [*store.load_all(tmp_path)] == []


@pytest.mark.parametrize("name", ["", "../x", ".known", "a b", "x" * 33, "-x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        store.directory_of(tmp_path, name)


def test_all_containers_are_listed_by_name_and_nothing_else(tmp_path: Path) -> None:
    kept(tmp_path)
    kept(tmp_path, replace(STORED, name="api"))
    store.make_directory(store.cache_in(tmp_path))

    assert [one.name for one in store.load_all(tmp_path)] == ["api", "web"]


def test_a_field_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    directory = kept(tmp_path)
    text = (directory / store.RECORD).read_text().replace('{"name"', '{"later": 1, "name"')
    (directory / store.RECORD).write_text(text)

    assert store.load(tmp_path, "web") == STORED


def test_a_link_in_the_way_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("untouched")
    (tmp_path / "file").symlink_to(tmp_path / "other")

    store.write(tmp_path, "file", b"new")

    assert (tmp_path / "other").read_text() == "untouched"
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_container_is_forgotten_with_all_that_is_kept(tmp_path: Path) -> None:
    directory = kept(tmp_path)

    store.remove(tmp_path, "web")

    assert not directory.exists()
