"""Plans of a container for the ways that need more than its engine: holder, joined, relay; pure.

The planner plans a container without network. Here it becomes one that joins the namespace of
another, which holds the network and is planned here too, or one whose first process is the relay.
Laws kept: fail closed: without the other container, this one cannot start. Nothing of the host's
but the relay and its Python is shown, and that only where there is no other way.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.bind_words import bind_words
from claude_proxy.sandbox.container.plan.model import (
    LABEL,
    ContainerMount,
    ContainerPlan,
    EngineFacts,
    ImageFacts,
    Way,
)
from claude_proxy.sandbox.plan.environment import HTTP_PORT, SOCKS_PORT

HOLDS_LABEL = f"{LABEL}.holds"
KEEPER_INSIDE = PurePosixPath("/run/claude-proxy-keeper")
WAY_OUT_INSIDE = PurePosixPath("/run/claude-proxy-way-out")
PROXY_SOCKET, GATEWAY_SOCKET = "proxy.sock", "gateway.sock"

NO_NETWORK = "none"

_OWN_USERS = "--userns=keep-id"  # of the planner, for podman without root

_HOLDER_PROCESSES = 8
_HOLDER_MEMORY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HolderPlan:
    """A container that holds the network of another one, and does nothing else."""

    name: str
    options: tuple[str, ...]
    mounts: tuple[ContainerMount, ...]
    image: str
    command: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What follows `create` or `run`."""
        return (*self.options, *_bound(self.mounts), self.image, *self.command)


def holder_name(name: str, *, again: bool = False) -> str:
    """Return the name of the container that holds the network of another.

    `again`: of the one that joins it, to make sockets in a namespace that has lost its holder.
    """
    return f"{LABEL}-network-of-{name}{'-again' if again else ''}"


@dataclass(frozen=True, slots=True)
class HolderContent:
    """What is in a container that holds a network, and who it runs as."""

    image: str
    command: tuple[str, ...]
    user: str
    mounts: tuple[ContainerMount, ...] = ()


def holder(
    plan: ContainerPlan, facts: EngineFacts, content: HolderContent, *, network: str = NO_NETWORK
) -> HolderPlan:
    """Return the plan of the container that holds the network of `plan`, as hard as that is.

    `network` is another one only to make sockets in a namespace that lost its holder.
    """
    name = holder_name(plan.name, again=network != NO_NETWORK)
    options = ("--name", name, *_holder_options(plan, facts, content.user, network))
    return HolderPlan(name, options, content.mounts, content.image, content.command)


def _holder_options(
    plan: ContainerPlan, facts: EngineFacts, user: str, network: str
) -> Iterator[str]:
    yield from ("--pull", "never", "--user", user, "--workdir", "/", "--stop-signal", "KILL")
    yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
    yield from ("--label", f"{HOLDS_LABEL}={plan.name}", "--network", network)
    for value in _values(plan.options, "--security-opt"):
        if value.startswith("seccomp="):
            yield from ("--security-opt", value)
    if _OWN_USERS in plan.options:
        # /sys is mounted by the owner of the network, so both have the same users.
        yield _OWN_USERS if network == NO_NETWORK else f"--userns={network}"
    if network != NO_NETWORK:
        yield "--rm"
    else:
        yield from ("--hostname", plan.name)
        # The holder is not root, and the listener that notes name lookups has port 53.
        yield from ("--sysctl", "net.ipv4.ip_unprivileged_port_start=0")
    if facts.limits:
        yield from ("--pids-limit", str(_HOLDER_PROCESSES), "--memory", str(_HOLDER_MEMORY))
    if facts.selinux:
        yield from ("--security-opt", "label=disable")  # it connects to the keeper


def joined(plan: ContainerPlan, holder: HolderPlan, *, way: Way) -> ContainerPlan:
    """Return the plan of a container that joins the network of its holder."""
    network = f"container:{holder.name}"
    options = tuple(
        f"--userns={network}" if option == _OWN_USERS else option
        for option in _without(plan.options, "--network", "--hostname")
    )
    return replace(plan, way=way, options=("--network", network, *options), beside=holder.words)


def with_relay(
    plan: ContainerPlan,
    image: ImageFacts,
    *,
    relay: tuple[str, ...],
    lent: ContainerMount,
    way_out: Path,
) -> ContainerPlan:
    """Return the plan of a container whose first process is the relay, and starts CMD.

    `relay` begins its command line. ConfigError if neither CMD nor the image names a command.
    """
    command = (*image.entrypoint, *(plan.command or image.command))
    if not command:
        raise ConfigError(
            "there is no command: neither CMD nor the image names one",
            where=f"image {image.name}",
            fix="add -- and a command",
        )
    listening = [
        *("--listen", f"127.0.0.1:{HTTP_PORT}", "--listen", f"127.0.0.1:{SOCKS_PORT}"),
        *("--to", f"unix:{WAY_OUT_INSIDE}/{PROXY_SOCKET}"),
    ]
    first, *rest = relay
    shown = (lent, ContainerMount(WAY_OUT_INSIDE, way_out))
    return replace(
        plan,
        way=Way.INSIDE,
        options=(*_without_flag(plan.options, "--init"), "--entrypoint", first),
        mounts=(*plan.mounts, *shown),
        mount_options=(*plan.mount_options, *_bound(shown)),
        command=(*rest, *listening, "--", *command),
    )


def _bound(mounts: Iterable[ContainerMount]) -> Iterator[str]:
    """Yield the words that mount paths of the host, read-only."""
    for one in mounts:
        yield from bind_words(one.source or "", one.at, writable=False)


def _values(options: Sequence[str], name: str) -> list[str]:
    """Return the values of an option that may be given several times."""
    return [options[at + 1] for at, option in enumerate(options) if option == name]


def _without(options: Sequence[str], *names: str) -> tuple[str, ...]:
    """Return the options without those that have a value."""
    kept: list[str] = []
    rest = iter(options)
    for option in rest:
        if option in names:
            next(rest)
        else:
            kept.append(option)
    return tuple(kept)


def _without_flag(options: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(option for option in options if option != name)
