"""What a way adds to the plan of a container, and what it takes away: as little as there is."""

from pathlib import Path, PurePosixPath

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import (
    ContainerMount,
    ContainerPlan,
    EngineFacts,
    EngineKind,
    ImageFacts,
    Way,
)
from claude_proxy.sandbox.container.plan.way_plans import (
    HolderContent,
    holder,
    holder_name,
    joined,
    with_relay,
)

FACTS = EngineFacts(
    EngineKind.DOCKER, Path("/usr/bin/docker"), "20", rootless=False, uid=1000, gid=1000
)
OPTIONS = (
    *("--name", "web", "--hostname", "web", "--network", "none", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--security-opt", "seccomp=/s.json"),
    *("--read-only", "--init", "--label", "claude-proxy.name=web"),
)
PLAN = ContainerPlan(
    way=Way.ENTER,
    engine=Path("/usr/bin/docker"),
    kind=EngineKind.DOCKER,
    name="web",
    options=OPTIONS,
    mounts=(),
    mount_options=("--volume", "/p:/workspace:rw"),
    image="sha256:1",
    image_name="box",
    image_digest="sha256:1",
    command=("sleep", "1"),
    environment={},
    secrets=frozenset(),
    directory=Path("/state/web"),
    files={},
    home=PurePosixPath("/home/agent"),
    volume="",
    user="1000:1000",
)
CONTENT = HolderContent(
    "empty", ("/p/python", "holder"), "65534:65534", (ContainerMount(PurePosixPath("/p"), "/lent"),)
)
IMAGE = ImageFacts("box", "sha256:1", "sha256:1", entrypoint=("/entry",), command=("serve",))
LENT = ContainerMount(PurePosixPath("/run/python"), Path("/state/lent"))


def pairs(words: tuple[str, ...], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_a_holder_has_no_network_no_rights_and_little_else() -> None:
    found = holder(PLAN, FACTS, CONTENT)

    assert found.words == (
        *("--name", holder_name("web"), "--pull", "never", "--user", "65534:65534"),
        *("--workdir", "/", "--stop-signal", "KILL", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--read-only"),
        *("--label", "claude-proxy.holds=web", "--network", "none"),
        *("--security-opt", "seccomp=/s.json", "--hostname", "web"),
        *("--sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
        *("--pids-limit", "8", "--memory", "67108864"),
        *("--volume", "/lent:/p:ro", "empty", "/p/python", "holder"),
    )


def test_a_holder_is_limited_as_far_as_the_engine_can() -> None:
    words = holder(PLAN, replace(FACTS, limits=False), CONTENT).words

    assert "--memory" not in words
    assert "--cap-drop" in words


def test_a_holder_may_reach_the_keeper_below_selinux() -> None:
    words = holder(PLAN, replace(FACTS, selinux=True), CONTENT).words

    assert "label=disable" in pairs(words, "--security-opt")


def test_a_holder_for_a_running_container_joins_that_one_and_does_not_stay() -> None:
    found = holder(PLAN, FACTS, CONTENT, network="container:web")

    assert found.name == f"{holder_name('web')}-again"
    assert pairs(found.words, "--network") == ["container:web"]
    assert "--rm" in found.words
    assert "--hostname" not in found.words
    assert "--sysctl" not in found.words


def test_a_container_joins_its_holder_and_keeps_every_other_option() -> None:
    held = holder(PLAN, FACTS, CONTENT)

    plan = joined(PLAN, held, way=Way.PAUSE)

    # An engine takes no name of a host for a container that has another one's network.
    kept = [word for word in OPTIONS if word not in {"--network", "none", "--hostname"}]
    kept.remove("web")
    assert plan.options == ("--network", f"container:{held.name}", *kept)
    assert (plan.way, plan.mounts, plan.command) == (Way.PAUSE, PLAN.mounts, PLAN.command)
    assert any(" ".join(held.words[:2]) in line for line in plan.lines())


def test_a_container_with_users_of_its_own_shares_them_with_its_holder() -> None:
    """/sys can be mounted only by the owner of the network namespace."""
    plan = replace(PLAN, options=(*OPTIONS, "--userns=keep-id"))
    held = holder(plan, FACTS, CONTENT)

    assert "--userns=keep-id" in held.words
    assert f"--userns=container:{held.name}" in joined(plan, held, way=Way.PAUSE).options
    again = holder(plan, FACTS, CONTENT, network="container:web")
    assert "--userns=container:web" in again.words


def relayed(plan: ContainerPlan = PLAN, image: ImageFacts = IMAGE) -> ContainerPlan:
    relay = ("/run/python/ld.so", "python", "init.py")
    return with_relay(plan, image, relay=relay, lent=LENT, way_out=Path("/state/web/way-out"))


def test_the_relay_is_the_first_process_and_starts_what_the_image_would() -> None:
    plan = relayed()

    assert pairs(plan.options, "--network") == ["none"]
    assert pairs(plan.options, "--entrypoint") == ["/run/python/ld.so"]
    assert "--init" not in plan.options
    assert plan.command == (
        *("python", "init.py", "--listen", "127.0.0.1:3128", "--listen", "127.0.0.1:1080"),
        *("--to", "unix:/run/claude-proxy-way-out/proxy.sock", "--", "/entry", "sleep", "1"),
    )
    assert plan.mount_options[2:] == (
        *("--volume", "/state/lent:/run/python:ro"),
        *("--volume", "/state/web/way-out:/run/claude-proxy-way-out:ro"),
    )


def test_without_cmd_the_relay_starts_the_images_own() -> None:
    assert relayed(replace(PLAN, command=())).command[-2:] == ("/entry", "serve")


def test_a_relay_needs_a_command() -> None:
    with pytest.raises(ConfigError, match="no command"):
        relayed(replace(PLAN, command=()), ImageFacts("box", "1", "1"))
