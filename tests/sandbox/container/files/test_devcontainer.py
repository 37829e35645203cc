"""devcontainer.json: no network, no privileges, and the relay is started before anything else."""

import json
import subprocess
from dataclasses import replace
from typing import Any

from claude_proxy.sandbox.container.files.devcontainer import render
from claude_proxy.sandbox.container.files.model import EngineChoice, FileKind, FileRequest

REQUEST = FileRequest(FileKind.DEVCONTAINER, "thing", guarded=(".git/hooks", ".devcontainer"))


def devcontainer(request: FileRequest = REQUEST) -> dict[str, Any]:
    (file,) = render(request).files
    lines = [line for line in file.text.splitlines() if not line.startswith("//")]
    found: dict[str, Any] = json.loads("\n".join(lines))
    return found


def test_it_has_no_network_and_no_privileges() -> None:
    found = devcontainer()

    assert {"--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(
        found["runArgs"]
    )
    assert found["privileged"] is False
    assert not {"capAdd", "securityOpt", "appPort", "forwardPorts", "features"} & set(found)


def test_only_the_project_is_writable_and_what_the_host_obeys_is_not() -> None:
    found = devcontainer()

    assert "readonly" not in found["workspaceMount"]
    assert [mount for mount in found["mounts"] if not mount.endswith(",readonly")] == []
    targets = [mount.split(",")[1] for mount in found["mounts"]]
    assert targets.count("target=/workspaces/thing/.devcontainer") == 1
    assert "target=/workspaces/thing/.git/hooks" in targets


def test_the_relay_is_started_at_the_first_command_and_at_each_start() -> None:
    found = devcontainer()

    assert found["onCreateCommand"] == found["postStartCommand"]
    assert found["waitFor"] == "postStartCommand"
    syntax = subprocess.run(["sh", "-n", "-c", found["onCreateCommand"]], check=False)
    assert syntax.returncode == 0


def test_the_host_is_asked_whether_the_proxy_runs() -> None:
    command = devcontainer()["initializeCommand"]

    assert command == ["claude-proxy", "container", "way-out", "--ready"]


def test_the_names_of_the_hosts_agents_are_emptied() -> None:
    assert set(devcontainer()["remoteEnv"].values()) == {""}


def test_only_podman_without_root_gets_a_user_namespace() -> None:
    podman, root, docker = (
        devcontainer(replace(REQUEST, engine=engine))["runArgs"]
        for engine in (EngineChoice.PODMAN, EngineChoice.PODMAN_ROOT, EngineChoice.DOCKER)
    )

    assert "--userns=keep-id:uid=1000,gid=1000" in podman
    assert not [word for word in (*root, *docker) if "userns" in word]


def test_the_user_is_the_one_whom_the_proxy_serves() -> None:
    found = devcontainer(replace(REQUEST, engine=EngineChoice.PODMAN_ROOT))

    assert (found["containerUser"], found["remoteUser"]) == ("0", "0")
