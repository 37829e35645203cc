"""What every container of these files has, whatever writes it: variables, users, limits; pure."""

from typing import Final

from claude_proxy.sandbox.plan.environment import BUNDLE, CERTIFICATE, HTTP_PORT, SOCKS_PORT
from claude_proxy.trust.client_environment import environment
from claude_proxy.wire.authority import Authority

MEMORY: Final = "4g"
CPUS: Final = "2"
PROCESSES: Final = 1024
# File systems in memory, for what is written at run time beside the home and the project.
TEMPORARY: Final = (
    "/tmp:rw,exec,nosuid,nodev,mode=1777,size=1g",  # noqa: S108 - in the container
    "/run:rw,nosuid,nodev,noexec,mode=1777,size=64m",
)
# The user that Node's and the development images have.
AGENT_USER: Final = 1000
# Of rootless podman: the agent's user inside is you outside, as whom the proxy serves it.
USER_NAMESPACE: Final = f"keep-id:uid={AGENT_USER},gid={AGENT_USER}"
# podman makes that namespace for ordinary users only. Root's containers number users as the host
# does, and the proxy, which is root's, serves root; it has no capability inside.
ROOT_USER: Final = 0
WORKSPACE: Final = "/workspace"
AGENT_HOME: Final = "/home/agent"

# Telemetry and updates are not what an agent in a container is for.
_QUIET: Final = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DO_NOT_TRACK": "1",
}


def agent_environment(*, host: str = "127.0.0.1", port: int = HTTP_PORT) -> dict[str, str]:
    """Return the variables of an agent whose proxy is at an address."""
    found = environment(Authority.of(host, port), CERTIFICATE, BUNDLE)
    if port == HTTP_PORT:
        # Upper case only: httpx reads the lower-case one and fails on SOCKS without socksio.
        found["ALL_PROXY"] = f"socks5h://{host}:{SOCKS_PORT}"
    return found | _QUIET
