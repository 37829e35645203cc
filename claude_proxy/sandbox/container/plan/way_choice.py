"""Choice of the way into a container, by what its engine allows; pure.

The best way is the one that puts least into a container: nothing (enter), a second container
beside it (pause), a relay as its first process (inside). Law kept: no quiet downgrade: a way that
is asked for and cannot be is an error, which says what each way lacks here.
"""

from collections.abc import Mapping

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import EngineFacts, EngineKind, Way

ORDER = (Way.ENTER, Way.PAUSE, Way.INSIDE)

# Runtimes whose containers are processes of this machine's kernel, with its namespaces.
_OF_THIS_KERNEL = frozenset({"", "runc", "crun", "youki", "io.containerd.runc.v2"})


def choose(facts: EngineFacts, asked: Way | None, *, can_wait: bool) -> Way:
    """Return the way that is asked for, or the first that the engine allows.

    `can_wait`: there is a program for this kind of processor that does nothing but hold a network.
    ConfigError if there is no way.
    """
    lacking = lacks(facts, can_wait=can_wait)
    allowed = [way for way in ORDER if way not in lacking]
    if asked is None and allowed:
        return allowed[0]
    if asked is not None and asked not in lacking:
        return asked
    reasons = "; ".join(f"{way}: {reason}" for way, reason in lacking.items())
    raise ConfigError(
        "there is no way to give the container a network that is the proxy alone"
        if asked is None
        else f"the way {asked} cannot be used: {lacking[asked]}",
        where=f"{facts.kind} {facts.version} ({reasons})",
        fix=f"leave --way out: {allowed[0]} can be used" if allowed else _fix(facts),
    )


def lacks(facts: EngineFacts, *, can_wait: bool) -> Mapping[Way, str]:
    """Return what is missing for each way that cannot be used, in the order of the ways."""
    found: dict[Way, str] = {}
    if facts.elsewhere:
        return dict.fromkeys(ORDER, f"its containers run on another kernel ({facts.elsewhere})")
    if facts.runtime not in _OF_THIS_KERNEL:
        own = f"the runtime {facts.runtime} has a network of its own, which nobody can enter"
        found |= {Way.ENTER: own, Way.PAUSE: own}
    elif facts.kind is EngineKind.DOCKER:
        if facts.uid != 0 and not facts.rootless:
            found[Way.ENTER] = "only root may enter the namespaces that the daemon makes"
        elif not can_wait:
            found[Way.ENTER] = "there is no program for this processor that holds a network"
    elif facts.uid != 0 and not facts.rootless:
        found[Way.ENTER] = "only root may enter the namespaces of root's podman"
    if facts.selinux:
        found[Way.INSIDE] = "SELinux lets no container connect to a socket of the host's"
    return found


def _fix(facts: EngineFacts) -> str:
    if facts.elsewhere:
        return "use podman, or a Docker Engine without a virtual machine; or `claude-proxy run`"
    return "use podman with the runtime runc or crun; or `claude-proxy run`"
