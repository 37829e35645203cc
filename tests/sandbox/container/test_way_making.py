"""The way is chosen by what the engine allows, and everything for it is planned before a start."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.lent_python import INSIDE
from claude_proxy.sandbox.container.plan.model import EngineFacts, EngineKind, ImageFacts, Way
from claude_proxy.sandbox.container.plan.way_plans import holder_name
from claude_proxy.sandbox.container.way_making import WayMaker
from tests.sandbox.container.plan.test_way_plans import FACTS, IMAGE, PLAN

PODMAN = replace(FACTS, kind=EngineKind.PODMAN, rootless=True)
ROOT = replace(FACTS, uid=0)


def maker(facts: EngineFacts, statedir: Path, *, image: ImageFacts = IMAGE) -> WayMaker:
    return WayMaker(facts, image, statedir, has_gateway=False, dry=True)


def test_podman_is_entered_by_its_hook_and_its_plan_stays(tmp_path: Path) -> None:
    assert maker(PODMAN, tmp_path).plan(PLAN, None) == (PLAN, None)


def test_docker_has_a_holder_of_one_program_where_it_can_be_entered(tmp_path: Path) -> None:
    plan, task = maker(ROOT, tmp_path).plan(PLAN, None)

    assert task is not None
    assert task.holder is not None
    assert (plan.way, task.way) == (Way.ENTER, Way.ENTER)
    assert task.holder.mounts == ()  # nothing of the host's
    assert task.holder.command[0] == "/wait"
    assert f"container:{holder_name('web')}" in plan.options


def test_two_containers_are_told_apart_by_the_second_word_of_their_holders(tmp_path: Path) -> None:
    first = maker(ROOT, tmp_path).plan(PLAN, None)[1]
    other = maker(ROOT, tmp_path).plan(replace(PLAN, directory=Path("/state/other")), None)[1]

    assert first is not None
    assert other is not None
    assert first.holder is not None
    assert other.holder is not None
    assert first.holder.command != other.holder.command


def test_a_user_of_the_docker_group_has_a_holder_that_hands_over(tmp_path: Path) -> None:
    plan, task = maker(FACTS, tmp_path).plan(PLAN, None)

    assert task is not None
    assert task.holder is not None
    assert plan.way is Way.PAUSE
    # What is lent and the keeper's directory are in the holder, and not in the container.
    assert INSIDE in {mount.at for mount in task.holder.mounts}
    assert plan.mounts == PLAN.mounts
    assert plan.mount_options == PLAN.mount_options


def test_a_runtime_with_a_network_of_its_own_has_the_relay_inside(tmp_path: Path) -> None:
    plan, task = maker(replace(FACTS, runtime="runsc"), tmp_path).plan(PLAN, None)

    assert task is not None
    assert task.holder is None
    assert (plan.way, task.way) == (Way.INSIDE, Way.INSIDE)
    assert "container_init.py" in " ".join(plan.command)


@pytest.mark.parametrize(
    ("option", "ways"),
    [
        ("has_gateway", (Way.ENTER, Way.PAUSE)),
        ("forwards", (Way.ENTER, Way.PAUSE)),
        ("publishes", (Way.ENTER,)),
    ],
)
def test_nothing_that_a_way_does_not_have_is_left_out_in_silence(
    tmp_path: Path, option: str, ways: tuple[Way, ...]
) -> None:
    wanting = replace(maker(ROOT, tmp_path), **{option: True})  # type: ignore[arg-type]

    for way in Way:
        if way in ways:
            assert wanting.way(way) is way
        else:
            with pytest.raises(ConfigError, match=f"with the way {way}"):
                wanting.way(way)


@pytest.mark.parametrize(
    ("way", "joins"), [(Way.ENTER, None), (Way.PAUSE, "container:web"), (Way.INSIDE, "")]
)
def test_a_running_container_gets_its_network_back_where_it_is(
    tmp_path: Path, way: Way, joins: str | None
) -> None:
    task = maker(ROOT, tmp_path).again(PLAN, way)

    if joins is None:
        assert task is None
        return
    assert task is not None
    words = () if task.holder is None else task.holder.words
    network = "".join(word for word in words if word.startswith("container:"))
    assert network == joins


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    maker(FACTS, tmp_path).plan(PLAN, Way.PAUSE)
    maker(FACTS, tmp_path).plan(PLAN, Way.INSIDE)

    assert not [*tmp_path.iterdir()]


def test_names_have_addresses_only_where_the_network_is_entered_from_outside(
    tmp_path: Path,
) -> None:
    def way(facts: EngineFacts, asked: Way | None = None) -> Way:
        return WayMaker(facts, IMAGE, tmp_path, has_gateway=False, transparent=True).way(asked)

    assert way(PODMAN) is Way.ENTER
    for facts, asked in ((PODMAN, Way.PAUSE), (PODMAN, Way.INSIDE), (ROOT, None), (FACTS, None)):
        with pytest.raises(ConfigError, match="names addresses"):
            way(facts, asked)
