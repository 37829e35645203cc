"""Which way an engine allows, and that none is taken in place of the one asked for."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import EngineFacts, EngineKind, Way
from claude_proxy.sandbox.container.plan.way_choice import ORDER, choose, lacks

PODMAN, DOCKER = EngineKind.PODMAN, EngineKind.DOCKER
DESKTOP = "Docker Desktop"


def facts(
    kind: EngineKind,
    *,
    uid: int = 1000,
    rootless: bool = False,
    runtime: str = "runc",
    selinux: bool = False,
    elsewhere: str = "",
) -> EngineFacts:
    program = Path("/usr/bin", kind.value)
    return EngineFacts(
        kind,
        program,
        "1.2",
        rootless=rootless,
        uid=uid,
        gid=uid,
        runtime=runtime,
        selinux=selinux,
        elsewhere=elsewhere,
    )


@pytest.mark.parametrize(
    ("engine", "allowed"),
    [
        (facts(PODMAN, rootless=True), "enter pause inside"),
        (facts(PODMAN, rootless=True, runtime="crun"), "enter pause inside"),
        (facts(PODMAN, uid=0), "enter pause inside"),
        (facts(PODMAN), "pause inside"),  # root's podman, by a socket that this user may use
        (facts(DOCKER, rootless=True), "enter pause inside"),
        (facts(DOCKER, uid=0), "enter pause inside"),
        (facts(DOCKER), "pause inside"),  # a user in the group docker
        (facts(DOCKER, runtime="io.containerd.runc.v2"), "pause inside"),
        (facts(DOCKER, uid=0, runtime="runsc"), "inside"),
        (facts(DOCKER, rootless=True, runtime="kata-runtime"), "inside"),
        (facts(PODMAN, rootless=True, runtime="krun"), "inside"),
        (facts(DOCKER, selinux=True), "pause"),
        (facts(PODMAN, rootless=True, selinux=True), "enter pause"),
        (facts(DOCKER, selinux=True, runtime="runsc"), ""),
        (facts(DOCKER, elsewhere=DESKTOP), ""),
        (facts(DOCKER, uid=0, elsewhere=DESKTOP), ""),
        (facts(PODMAN, rootless=True, elsewhere="podman machine"), ""),
    ],
)
def test_each_engine_allows_its_ways(engine: EngineFacts, allowed: str) -> None:
    ways = [Way(word) for word in allowed.split()]

    assert [way for way in ORDER if way not in lacks(engine, can_wait=True)] == ways
    for way in ORDER:
        if way in ways:
            assert choose(engine, way, can_wait=True) is way
        else:
            with pytest.raises(ConfigError):
                choose(engine, way, can_wait=True)
    if ways:
        assert choose(engine, None, can_wait=True) is ways[0]
    else:
        with pytest.raises(ConfigError, match="no way"):
            choose(engine, None, can_wait=True)


def test_a_processor_without_a_waiting_program_needs_the_lent_python() -> None:
    assert choose(facts(DOCKER, uid=0), None, can_wait=False) is Way.PAUSE
    assert choose(facts(PODMAN, uid=0), None, can_wait=False) is Way.ENTER


def test_an_error_says_what_each_way_lacks_and_which_can_be_used() -> None:
    with pytest.raises(ConfigError) as raised:
        choose(facts(DOCKER), Way.ENTER, can_wait=True)

    assert raised.value.what == (
        "the way enter cannot be used: only root may enter the namespaces that the daemon makes"
    )
    assert raised.value.where == (
        "docker 1.2 (enter: only root may enter the namespaces that the daemon makes)"
    )
    assert raised.value.fix == "leave --way out: pause can be used"


def test_an_engine_that_allows_none_says_what_would() -> None:
    with pytest.raises(ConfigError) as raised:
        choose(facts(DOCKER, elsewhere=DESKTOP), None, can_wait=True)

    assert raised.value.where is not None
    for way in Way:
        assert f"{way}: its containers run on another kernel ({DESKTOP})" in raised.value.where
    assert raised.value.fix is not None
    assert "use podman" in raised.value.fix
