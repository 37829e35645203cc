"""Compose file: an agent in the network namespace of a service that has none but loopback; pure.

The service `way-out` has no network; it runs the relay that is mounted with its own Python, so any
image will do, and the agent's is used. The agent joins its network namespace: it finds the relay
on 127.0.0.1, and nothing else. It does not see the socket, and cannot end the relay.
"""

from pathlib import PurePosixPath
from typing import Any, Final

from claude_proxy.sandbox.container.files import walls, way_out
from claude_proxy.sandbox.container.files.model import (
    EngineChoice,
    FileRequest,
    FileSet,
    RenderedFile,
    head_of,
)
from claude_proxy.sandbox.container.files.yaml_text import document
from claude_proxy.sandbox.plan.environment import INSIDE

PATH: Final = PurePosixPath("compose.yaml")
_DEFAULT_IMAGE: Final = "localhost/agent:latest"
_WAY_OUT: Final = f"${{HOME}}/{way_out.BELOW_HOME}"
_USER: Final = f"{walls.AGENT_USER}:{walls.AGENT_USER}"

_GIVEN_HOME: Final = f"home:{walls.AGENT_HOME}:ro,U"

_COMMENT: Final = """\
On the host, `claude-proxy container way-out` serves these containers; without it they run, and
reach nothing. Start them with `{start}`.
"""
_DOCKER_USER: Final = """\
Files of the host are seen with their numbers: where you are not user 1000, set
CLAUDE_PROXY_USER to your own numbers, such as 1001:1001.
"""


def render(request: FileRequest) -> FileSet:
    """Return the compose file, and how to start it."""
    podman = request.engine is EngineChoice.PODMAN
    program = "podman-compose" if podman else "docker compose"
    start = f"{program} up -d"
    comment = _COMMENT.format(start=start) + ("" if podman else _DOCKER_USER)
    image = request.image or _DEFAULT_IMAGE
    value: dict[str, Any] = {"name": request.name}
    if podman:
        # A pod would bring a network of its own, and takes no user namespaces of its containers.
        value["x-podman"] = {"in_pod": False}
    value |= {
        "services": {
            "way-out": _way_out(request.name, image, podman=podman),
            "agent": _agent(request, image, podman=podman),
        },
        "volumes": {"home": {}},
    }
    return FileSet(
        (RenderedFile(PATH, head_of(request, comment) + document(value)),),
        (
            "claude-proxy container way-out, on this machine, and let it run",
            f"{start}, then: {program} exec agent COMMAND",
        ),
    )


def _way_out(name: str, image: str, *, podman: bool) -> dict[str, Any]:
    return {
        "image": image,
        "entrypoint": list(way_out.relay_words()),
        "command": [],
        "container_name": _holder_of(name),
        "user": _USER if podman else _docker_user(),
        **({"userns_mode": walls.USER_NAMESPACE} if podman else {}),
        "network_mode": "none",
        **_confined(memory="128m", processes=16, cpus="0.5"),
        # podman gives the agent's home to its user, which it can only where it makes the namespace.
        "volumes": [_bind(_WAY_OUT, way_out.INSIDE), *([_GIVEN_HOME] if podman else [])],
        "restart": "unless-stopped",
    }


def _agent(request: FileRequest, image: str, *, podman: bool) -> dict[str, Any]:
    label = ",Z" if request.selinux else ""
    project = [f".:{walls.WORKSPACE}:rw{label}"]
    # What tools of the host obey, and this file itself.
    guarded = dict.fromkeys((str(PATH), *request.guarded))
    project += [f"./{name}:{walls.WORKSPACE}/{name}:ro{label}" for name in guarded]
    # The same one, as who joins a network namespace of another may not mount /sys.
    namespace = {"userns_mode": f"container:{_holder_of(request.name)}"} if podman else {}
    return {
        "image": image,
        "depends_on": ["way-out"],
        "network_mode": "service:way-out",
        "user": _USER if podman else _docker_user(),
        **namespace,
        **_confined(memory=walls.MEMORY, processes=walls.PROCESSES, cpus=walls.CPUS),
        "working_dir": walls.WORKSPACE,
        "environment": walls.agent_environment() | {"HOME": walls.AGENT_HOME},
        "volumes": [
            *project,
            f"home:{walls.AGENT_HOME}",
            _bind(f"{_WAY_OUT}/{way_out.TRUST}", str(INSIDE)),
            # No resolver of the host's is shown.
            "/dev/null:/etc/resolv.conf:ro",
        ],
        # podman has no init program of its own.
        **({} if podman else {"init": True}),
        "stdin_open": True,
        "tty": True,
        "restart": "unless-stopped",
    }


def _holder_of(name: str) -> str:
    return f"{name}-way-out"


def _docker_user() -> str:
    return f"${{CLAUDE_PROXY_USER:-{_USER}}}"


def _confined(*, memory: str, processes: int, cpus: str) -> dict[str, Any]:
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "tmpfs": [
            *walls.TEMPORARY,
        ],
        "mem_limit": memory,
        "memswap_limit": memory,
        "pids_limit": processes,
        "cpus": cpus,
        "privileged": False,
        "ipc": "private",
    }


def _bind(source: str, target: str) -> dict[str, Any]:
    # Not the short form, which creates a directory where there is none.
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }
