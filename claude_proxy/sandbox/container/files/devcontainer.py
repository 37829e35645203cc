"""Dev container: for VS Code and the devcontainer program, on podman or Docker; pure.

The container has no network. The relay is mounted with its own Python, and the first command that
runs in the container starts it; nothing has to be in the image but a shell. There is no sudo, no
NET_ADMIN and no list of addresses.
"""

import json
import shlex
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
from claude_proxy.sandbox.plan.environment import HTTP_PORT, INSIDE

PATH: Final = PurePosixPath(".devcontainer/devcontainer.json")
_DEFAULT_IMAGE: Final = "mcr.microsoft.com/devcontainers/base:debian"
_WAY_OUT: Final = f"${{localEnv:HOME}}/{way_out.BELOW_HOME}"
_LOG: Final = "/tmp/way-out.log"  # noqa: S108 - in the container
_WAIT: Final = f"""\
import socket, sys, time
for left in reversed(range(int(sys.argv[1]))):
    try:
        socket.socket().connect(("127.0.0.1", {HTTP_PORT}))
        sys.exit()
    except OSError:
        time.sleep(0.1 if left else 0)
sys.exit(1)
"""

_COMMENT: Final = """\
On the host, `claude-proxy container way-out` has to run: initializeCommand says so otherwise.
No network, and no capability at all: sudo does not work in it. With VS Code, set in your own
settings "dev.containers.copyGitConfig": false and
"dev.containers.gitCredentialHelperConfigLocation": "none", as a project cannot switch off that it
passes these on, nor that it passes on your ssh-agent: start it where none runs.
"""
_USERS: Final = {
    EngineChoice.PODMAN: "For podman without root. For root: --engine podman-root.\n",
    EngineChoice.PODMAN_ROOT: "For podman as root. For an ordinary user: --engine podman.\n",
    EngineChoice.DOCKER: "",
}


def render(request: FileRequest) -> FileSet:
    """Return devcontainer.json, and how to start it."""
    text = "".join(
        f"//{line[1:]}\n"
        for line in head_of(request, _COMMENT + _USERS[request.engine]).splitlines()
    ) + json.dumps(_value(request), indent=2)
    program = "" if request.engine is EngineChoice.DOCKER else "--docker-path podman "
    return FileSet(
        (RenderedFile(PATH, f"{text}\n"),),
        (
            "claude-proxy container way-out, on this machine, and let it run",
            f"in VS Code: Reopen in Container; or: devcontainer up {program}--workspace-folder .",
        ),
    )


def _value(request: FileRequest) -> dict[str, Any]:
    root = request.engine is EngineChoice.PODMAN_ROOT
    user = str(walls.ROOT_USER if root else walls.AGENT_USER)
    workspace = f"/workspaces/{request.name}"
    start = _start()
    return {
        "name": request.name,
        "image": request.image or _DEFAULT_IMAGE,
        "initializeCommand": ["claude-proxy", "container", "way-out", "--ready"],
        "workspaceFolder": workspace,
        "workspaceMount": _mount("${localWorkspaceFolder}", workspace, read_only=False),
        "mounts": _mounts(request, workspace),
        "runArgs": _run_words(request),
        "containerEnv": walls.agent_environment(),
        # An editor passes on the sockets of agents and displays by these names.
        "remoteEnv": {"SSH_AUTH_SOCK": "", "GPG_AGENT_INFO": "", "WAYLAND_DISPLAY": ""},
        "containerUser": user,
        "remoteUser": user,
        "updateRemoteUserUID": False,
        "privileged": False,
        "overrideCommand": True,
        "onCreateCommand": start,
        "postStartCommand": start,
        "waitFor": "postStartCommand",
        "otherPortsAttributes": {"onAutoForward": "ignore"},
    }


def _start() -> str:
    """Return the command that starts the relay, unless it runs; a shell is all that it needs."""
    relay = shlex.join(way_out.relay_words())
    python = shlex.join((*way_out.python_words(), "-c", _WAIT))
    # It outlives the shell of this command, and its terminal.
    started = f"(trap '' HUP; exec {relay} >{_LOG} 2>&1 </dev/null) &"
    return f"{python} 1 || {{ {started} {python} 100 || {{ cat {_LOG} >&2; exit 1; }}; }}"


def _mounts(request: FileRequest, workspace: str) -> list[str]:
    found = [
        _mount(_WAY_OUT, way_out.INSIDE),
        _mount(f"{_WAY_OUT}/{way_out.TRUST}", str(INSIDE)),
        _mount("/dev/null", "/etc/resolv.conf"),
    ]
    # This file is obeyed on the host the next time: initializeCommand, mounts, runArgs.
    guarded = dict.fromkeys((str(PATH.parent), *request.guarded))
    project = "${localWorkspaceFolder}"
    return [*found, *(_mount(f"{project}/{name}", f"{workspace}/{name}") for name in guarded)]


def _mount(source: str, target: str, *, read_only: bool = True) -> str:
    return f"source={source},target={target},type=bind" + (",readonly" if read_only else "")


def _run_words(request: FileRequest) -> list[str]:
    words = [
        "--network=none",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--ipc=private",
        *(f"--tmpfs={place}" for place in walls.TEMPORARY),
        f"--memory={walls.MEMORY}",
        f"--memory-swap={walls.MEMORY}",
        f"--pids-limit={walls.PROCESSES}",
        f"--cpus={walls.CPUS}",
    ]
    if request.engine is EngineChoice.PODMAN:
        words.append(f"--userns={walls.USER_NAMESPACE}")
    return words
