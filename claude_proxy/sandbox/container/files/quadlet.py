"""Quadlet units: an agent in a container under systemd, with podman 4.4 and newer; pure.

Two containers, as in the compose file: one without a network that holds the relay, and the agent in
its network namespace. What quadlet 4.4 has no key for is among the arguments of podman
(podman-systemd.unit(5)).
"""

from pathlib import PurePosixPath
from typing import Final

from claude_proxy.sandbox.container.files import walls, way_out
from claude_proxy.sandbox.container.files.model import (
    EngineChoice,
    FileRequest,
    FileSet,
    RenderedFile,
    head_of,
)
from claude_proxy.sandbox.plan.environment import INSIDE
from claude_proxy.server.service import quoting

_DIRECTORY: Final = PurePosixPath("quadlet")
_DEFAULT_IMAGE: Final = "localhost/agent:latest"
_WAY_OUT: Final = f"%h/{way_out.BELOW_HOME}"
_SERVICE: Final = "claude-proxy-way-out.service"

_COMMENT: Final = """\
Copy the .container and .volume files to ~/.config/containers/systemd and the .service file to
~/.config/systemd/user, then: systemctl --user daemon-reload; systemctl --user start {name}
"""
_OF_PODMAN: Final = "For podman without root. For root: --engine podman-root.\n"
_OF_ROOT: Final = "For podman as root. For an ordinary user: --engine podman.\n"


def render(request: FileRequest) -> FileSet:
    """Return the units, and where to put them."""
    name, image = request.name, request.image or _DEFAULT_IMAGE
    root = request.engine is EngineChoice.PODMAN_ROOT
    head = head_of(request, _COMMENT.format(name=name) + (_OF_ROOT if root else _OF_PODMAN))
    files = {
        _SERVICE: _service(),
        f"{name}-way-out.container": _holder(name, image, root=root),
        f"{name}.container": _agent(request, image),
        f"{name}-home.volume": "[Volume]\n",
    }
    containers = "~/.config/containers/systemd"
    return FileSet(
        tuple(RenderedFile(_DIRECTORY / path, head + text) for path, text in files.items()),
        (
            f"install -Dt {containers} {_DIRECTORY}/*.container {_DIRECTORY}/*.volume",
            f"install -Dt ~/.config/systemd/user {_DIRECTORY}/{_SERVICE}",
            f"systemctl --user daemon-reload, then: systemctl --user start {name}",
            f"podman exec -it {name} COMMAND",
        ),
    )


def _service() -> str:
    return _sections(
        {
            "Unit": [("Description", "claude-proxy for containers that mount its way out")],
            "Service": [
                # It is looked for in the fixed path of systemd, and in ~/.local/bin by env.
                ("Environment", "PATH=%h/.local/bin:/usr/local/bin:/usr/bin:/bin"),
                ("ExecStart", "/usr/bin/env claude-proxy container way-out"),
                ("Restart", "on-failure"),
                ("NoNewPrivileges", "yes"),
            ],
            "Install": [("WantedBy", "default.target")],
        }
    )


def _holder(name: str, image: str, *, root: bool) -> str:
    loader, *words = way_out.relay_words()
    user = walls.ROOT_USER if root else walls.AGENT_USER
    namespace = "" if root else f"--userns={walls.USER_NAMESPACE} "
    # Gives the agent's home to its user, where the user namespace is made.
    home = [] if root else [("Volume", f"{name}-home.volume:{walls.AGENT_HOME}:ro,U")]
    return _sections(
        {
            "Unit": [
                ("Description", f"the way out of {name}: a relay, and no network"),
                ("Wants", _SERVICE),
                ("After", _SERVICE),
            ],
            "Container": [
                ("Image", image),
                ("ContainerName", f"{name}-way-out"),
                ("Exec", " ".join(quoting.word_of(word) for word in words)),
                ("Network", "none"),
                ("User", str(user)),
                ("Group", str(user)),
                *_confined(memory="128m", processes=16, cpus="0.5"),
                ("Volume", f"{_WAY_OUT}:{way_out.INSIDE}:ro"),
                *home,
                ("PodmanArgs", f"{namespace}--entrypoint={loader}"),
            ],
            "Service": [("Restart", "on-failure")],
        }
    )


def _agent(request: FileRequest, image: str) -> str:
    name, root = request.name, request.engine is EngineChoice.PODMAN_ROOT
    user = walls.ROOT_USER if root else walls.AGENT_USER
    # The same one: who joins a network namespace of another may not mount /sys.
    namespace = [] if root else [("PodmanArgs", f"--userns=container:{name}-way-out")]
    project = quoting.path_of(request.directory)
    label = ",Z" if request.selinux else ""
    volumes = [(project, walls.WORKSPACE, f"rw{label}")]
    for guarded in request.guarded:
        there = quoting.path_of(f"{request.directory}/{guarded}")
        volumes.append((there, f"{walls.WORKSPACE}/{quoting.path_of(guarded)}", f"ro{label}"))
    environment = walls.agent_environment() | {"HOME": walls.AGENT_HOME}
    return _sections(
        {
            "Unit": [
                ("Description", f"{name}, whose only network is claude-proxy"),
                ("BindsTo", f"{name}-way-out.service"),
                ("After", f"{name}-way-out.service"),
            ],
            "Container": [
                ("Image", image),
                ("ContainerName", name),
                ("Network", f"container:{name}-way-out"),
                ("User", str(user)),
                ("Group", str(user)),
                *_confined(memory=walls.MEMORY, processes=walls.PROCESSES, cpus=walls.CPUS),
                *(("Volume", ":".join(volume)) for volume in volumes),
                ("Volume", f"{name}-home.volume:{walls.AGENT_HOME}" + (":U" if root else "")),
                ("Volume", f"{_WAY_OUT}/{way_out.TRUST}:{INSIDE}:ro"),
                ("Volume", "/dev/null:/etc/resolv.conf:ro"),
                *(
                    ("Environment", quoting.word_of(f"{key}={value}"))
                    for key, value in environment.items()
                ),
                *namespace,
                ("PodmanArgs", f"--workdir={walls.WORKSPACE} --interactive --tty"),
            ],
            "Service": [("Restart", "on-failure")],
            "Install": [("WantedBy", "default.target")],
        }
    )


def _confined(*, memory: str, processes: int, cpus: str) -> list[tuple[str, str]]:
    limits = f"--memory={memory} --memory-swap={memory} --pids-limit={processes} --cpus={cpus}"
    temporary = " ".join(f"--tmpfs={place}" for place in walls.TEMPORARY)
    return [
        ("DropCapability", "all"),
        ("NoNewPrivileges", "true"),
        ("ReadOnly", "true"),
        ("PodmanArgs", f"{limits} --ipc=private --http-proxy=false"),
        ("PodmanArgs", f"--read-only-tmpfs=false {temporary}"),
    ]


def _sections(sections: dict[str, list[tuple[str, str]]]) -> str:
    parts = [
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in rows)
        for section, rows in sections.items()
    ]
    return "\n".join(parts)
