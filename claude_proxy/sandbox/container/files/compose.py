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

_ROOT: Final = f"{walls.ROOT_USER}:{walls.ROOT_USER}"
_GIVEN_HOME: Final = f"home:{walls.AGENT_HOME}:ro,U"

_COMMENT: Final = """\
On the host, `claude-proxy container way-out` serves these containers; without it they run, and
reach nothing. Start them with `{start}`.
"""
_OF_PODMAN: Final = """\
For podman without root: root's podman refuses userns_mode. For root: --engine podman-root.
"""
_OF_ROOT: Final = """\
For podman as root, with the way-out of root. For an ordinary user: --engine podman.
Files of the host are seen with their numbers: where the project is another user's, set
CLAUDE_PROXY_USER to the numbers of that user, such as 1000:1000.
"""
_DOCKER_USER: Final = """\
Files of the host are seen with their numbers: where you are not user 1000, set
CLAUDE_PROXY_USER to your own numbers, such as 1001:1001.
"""
_USERS: Final = {
    EngineChoice.PODMAN: _OF_PODMAN,
    EngineChoice.PODMAN_ROOT: _OF_ROOT,
    EngineChoice.DOCKER: _DOCKER_USER,
}
_AS: Final = {
    EngineChoice.PODMAN: ", as an ordinary user",
    EngineChoice.PODMAN_ROOT: ", as root",
    EngineChoice.DOCKER: "",
}


def render(request: FileRequest) -> FileSet:
    """Return the compose file, and how to start it."""
    engine = request.engine
    podman = engine is not EngineChoice.DOCKER
    program = "podman-compose" if podman else "docker compose"
    start = f"{program} up -d"
    comment = _COMMENT.format(start=start) + _USERS[engine]
    image = request.image or _DEFAULT_IMAGE
    value: dict[str, Any] = {"name": request.name}
    if podman:
        # A pod would bring a network of its own, and takes no user namespaces of its containers.
        value["x-podman"] = {"in_pod": False}
    value |= {
        "services": {
            "way-out": _way_out(request.name, image, engine),
            "agent": _agent(request, image),
        },
        "volumes": {"home": {}},
    }
    return FileSet(
        (RenderedFile(PATH, head_of(request, comment) + document(value)),),
        (
            f"claude-proxy container way-out, on this machine{_AS[engine]}, and let it run",
            f"{start}{_AS[engine]}, then: {program} exec agent COMMAND",
        ),
    )


def _way_out(name: str, image: str, engine: EngineChoice) -> dict[str, Any]:
    rootless = engine is EngineChoice.PODMAN
    return {
        "image": image,
        "entrypoint": list(way_out.relay_words()),
        "command": [],
        "container_name": _holder_of(name),
        "user": _ROOT if engine is EngineChoice.PODMAN_ROOT else _user_of(engine),
        **({"userns_mode": walls.USER_NAMESPACE} if rootless else {}),
        "network_mode": "none",
        **_confined(memory="128m", processes=16, cpus="0.5"),
        # podman gives the agent's home to its user, which it can only where it makes the namespace.
        "volumes": [_bind(_WAY_OUT, way_out.INSIDE), *([_GIVEN_HOME] if rootless else [])],
        "restart": "unless-stopped",
    }


def _agent(request: FileRequest, image: str) -> dict[str, Any]:
    engine = request.engine
    label = ",Z" if request.selinux else ""
    project = [f".:{walls.WORKSPACE}:rw{label}"]
    # What tools of the host obey, and this file itself.
    guarded = dict.fromkeys((str(PATH), *request.guarded))
    project += [f"./{name}:{walls.WORKSPACE}/{name}:ro{label}" for name in guarded]
    # The same one, as who joins a network namespace of another may not mount /sys.
    namespace = (
        {"userns_mode": f"container:{_holder_of(request.name)}"}
        if engine is EngineChoice.PODMAN
        else {}
    )
    given = ":U" if engine is EngineChoice.PODMAN_ROOT else ""
    return {
        "image": image,
        "depends_on": ["way-out"],
        "network_mode": "service:way-out",
        "user": _user_of(engine),
        **namespace,
        **_confined(memory=walls.MEMORY, processes=walls.PROCESSES, cpus=walls.CPUS),
        "working_dir": walls.WORKSPACE,
        "environment": walls.agent_environment() | {"HOME": walls.AGENT_HOME},
        "volumes": [
            *project,
            f"home:{walls.AGENT_HOME}{given}",
            _bind(f"{_WAY_OUT}/{way_out.TRUST}", str(INSIDE)),
            # No resolver of the host's is shown.
            "/dev/null:/etc/resolv.conf:ro",
        ],
        # podman has no init program of its own.
        **({"init": True} if engine is EngineChoice.DOCKER else {}),
        "stdin_open": True,
        "tty": True,
        "restart": "unless-stopped",
    }


def _holder_of(name: str) -> str:
    return f"{name}-way-out"


def _user_of(engine: EngineChoice) -> str:
    if engine is EngineChoice.PODMAN:
        return _USER
    usual = _ROOT if engine is EngineChoice.PODMAN_ROOT else _USER
    return f"${{CLAUDE_PROXY_USER:-{usual}}}"


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
