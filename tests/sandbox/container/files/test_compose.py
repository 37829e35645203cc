"""The compose file: no network, no capability, and nothing of the host's that is not meant."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from claude_proxy.sandbox.container.files.compose import render
from claude_proxy.sandbox.container.files.model import EngineChoice, FileKind, FileRequest

REQUEST = FileRequest(FileKind.COMPOSE, "thing", "docker.io/x/agent:1", guarded=(".git/hooks",))


def compose(request: FileRequest = REQUEST) -> dict[str, Any]:
    (file,) = render(request).files
    found: dict[str, Any] = yaml.safe_load(file.text)
    return found


@pytest.mark.parametrize("engine", EngineChoice)
def test_every_service_is_confined(engine: EngineChoice) -> None:
    for service in compose(replace(REQUEST, engine=engine))["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["privileged"] is False
        assert service["mem_limit"] == service["memswap_limit"]
        assert service["pids_limit"] > 0
        assert not {"ports", "networks", "cap_add", "devices", "pid"} & set(service)


def test_one_has_no_network_and_the_other_joins_it() -> None:
    services = compose()["services"]

    assert services["way-out"]["network_mode"] == "none"
    assert services["agent"]["network_mode"] == "service:way-out"


def test_the_agent_sees_certificates_and_not_the_socket() -> None:
    sources = [
        one["source"] for one in compose()["services"]["agent"]["volumes"] if isinstance(one, dict)
    ]

    assert sources == ["${HOME}/.cache/claude-proxy/way-out/trust"]


def test_a_mount_that_is_missing_is_not_created() -> None:
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            if isinstance(volume, dict):
                assert volume["bind"] == {"create_host_path": False}
                assert volume["read_only"] is True


def test_what_the_host_obeys_is_read_only_and_so_is_the_file_itself() -> None:
    volumes = compose()["services"]["agent"]["volumes"]

    assert "./.git/hooks:/workspace/.git/hooks:ro" in volumes
    assert "./compose.yaml:/workspace/compose.yaml:ro" in volumes


def test_no_resolver_of_the_host_is_shown() -> None:
    assert "/dev/null:/etc/resolv.conf:ro" in compose()["services"]["agent"]["volumes"]


def test_labels_are_only_where_selinux_is() -> None:
    labelled = compose(replace(REQUEST, selinux=True))["services"]["agent"]["volumes"]

    assert ".:/workspace:rw,Z" in labelled
    assert ".:/workspace:rw" in compose()["services"]["agent"]["volumes"]


def test_with_podman_both_share_the_user_namespace_and_no_pod() -> None:
    found = compose()
    holder, agent = found["services"]["way-out"], found["services"]["agent"]

    assert found["x-podman"] == {"in_pod": False}
    assert holder["userns_mode"] == "keep-id:uid=1000,gid=1000"
    assert agent["userns_mode"] == f"container:{holder['container_name']}"


def test_with_docker_the_user_can_be_named() -> None:
    found = compose(replace(REQUEST, engine=EngineChoice.DOCKER))

    assert "x-podman" not in found
    users = {service["user"] for service in found["services"].values()}
    assert users == {"${CLAUDE_PROXY_USER:-1000:1000}"}


def test_root_gets_no_user_namespace_and_the_relay_is_root_as_the_proxy_is() -> None:
    found = compose(replace(REQUEST, engine=EngineChoice.PODMAN_ROOT))
    holder, agent = (found["services"][name] for name in ("way-out", "agent"))

    assert "userns_mode" not in holder | agent
    assert holder["user"] == "0:0"
    assert agent["user"] == "${CLAUDE_PROXY_USER:-0:0}"
    assert "home:/home/agent:U" in agent["volumes"]


@pytest.mark.parametrize(
    ("engine", "who"),
    [(EngineChoice.PODMAN, ", as an ordinary user"), (EngineChoice.PODMAN_ROOT, ", as root")],
)
def test_the_steps_and_the_head_say_who_starts_it(engine: EngineChoice, who: str) -> None:
    found = render(replace(REQUEST, engine=engine))

    assert all(who in step for step in found.steps)
    assert "# For podman " in found.files[0].text
