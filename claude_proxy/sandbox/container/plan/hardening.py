"""Hardening of a container: no network, no capabilities, read-only, limits, system calls; pure.

Laws kept: fail closed, no quiet downgrade. The engine's own filter of system calls is only ever
narrowed: a call that it refuses stays refused. Raw and packet sockets are refused by the kind that
is left when the flags are taken off (`SOCK_RAW | SOCK_CLOEXEC` is a raw socket, too).
"""

import errno
import json
from collections.abc import Iterator
from typing import Any

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import EngineFacts, EngineKind
from claude_proxy.sandbox.plan.model import ResourceLimits

# socket(2): families and kinds that programs need. Not AF_PACKET, AF_VSOCK or AF_ALG.
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _RAW, _SEQUENCE = 1, 2, 3, 5
_KIND_MASK = 0xF  # SOCK_TYPE_MASK of the kernel; what is above are flags
_NETLINK_ROUTE = 0  # netlink(7): what lists interfaces

# Calls that get around the filter, or that no agent needs and that had holes.
_REFUSED = frozenset(
    {
        "socketcall",  # its arguments are in memory, where no filter sees them
        # io_uring makes sockets without a call to socket(2).
        *("io_uring_setup", "io_uring_enter", "io_uring_register"),
        *("add_key", "keyctl", "request_key"),  # keys of the kernel, which no namespace divides
        *("bpf", "perf_event_open", "userfaultfd", "lookup_dcookie", "fanotify_init"),
        *("mount", "umount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "fspick"),
        *("move_mount", "open_tree", "mount_setattr", "setns", "open_by_handle_at"),
        *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
        *("vhangup", "acct", "quotactl", "swapon", "swapoff", "reboot", "syslog", "nfsservctl"),
    }
)
# What can make a namespace; clone(2) without flags for that is allowed again.
_MAKES_NAMESPACES = frozenset({"unshare", "clone", "clone3"})
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_WITHOUT_NAMESPACES = {
    "names": ["clone"],
    "action": "SCMP_ACT_ALLOW",
    "args": [{"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
    "excludes": {"arches": ["s390", "s390x"]},  # where the flags are the second argument
}
_SOCKET = "socket"
_ALLOW = "SCMP_ACT_ALLOW"
_NOT_PERMITTED = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
_PLAIN_ERROR = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD")


def options(
    facts: EngineFacts, limits: ResourceLimits, *, seccomp: str, cpus: float | None
) -> Iterator[str]:
    """Yield the options of create that harden it; `seccomp` is the path of the filter's file."""
    yield from ("--network", "none")
    yield from ("--cap-drop", "ALL")
    yield from ("--security-opt", "no-new-privileges")
    yield from ("--security-opt", f"seccomp={seccomp}")
    yield "--read-only"
    if facts.kind is EngineKind.PODMAN:
        yield "--read-only-tmpfs=false"  # those that are there have options of ours
        yield "--http-proxy=false"  # not the host's variables
        yield "--no-hosts"
    yield from ("--ipc", "private")
    if not facts.limits:
        return
    if limits.memory is not None:
        yield from ("--memory", str(limits.memory), "--memory-swap", str(limits.memory))
    if limits.processes is not None:
        yield from ("--pids-limit", str(limits.processes))
    if cpus is not None:
        yield from ("--cpus", f"{cpus:g}")


def seccomp_profile(given: bytes) -> bytes:
    """Return an engine's profile of system calls, narrowed; ConfigError if it cannot be read.

    CMD makes no namespaces, as in a run: docker's own profile refuses that, and podman's does not.
    Nor are there calls of other architectures, such as those of 32 bits.
    """
    try:
        profile = json.loads(given)
        calls = profile["syscalls"]
        _PLAIN_ERROR.index(profile["defaultAction"])  # ValueError: not a list of what is allowed
        narrowed = [*_narrowed(calls), *_socket_rules(), _CLONE_WITHOUT_NAMESPACES]
        machines = [{**one, "subArchitectures": []} for one in profile.get("archMap") or ()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "the engine's profile of system calls cannot be narrowed: it is not one that lists "
            "what is allowed",
            where="seccomp",
            fix="have the engine use its default profile (seccomp_profile in containers.conf)",
        ) from error
    own = {"archMap": machines} if machines else {}
    return json.dumps({**profile, **own, "syscalls": narrowed}).encode()


def _narrowed(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rules without what is refused here, and without those about socket(2)."""
    refused = _REFUSED | _MAKES_NAMESPACES
    for rule in calls:
        names = rule["names"] if "names" in rule else [rule["name"]]
        kept = [name for name in names if name != _SOCKET]
        if rule["action"] == _ALLOW:
            kept = [name for name in kept if name not in refused]
        if kept:
            yield {**{key: value for key, value in rule.items() if key != "name"}, "names": kept}


def _socket_rules() -> Iterator[dict[str, Any]]:
    """Yield the sockets that are allowed, by family and kind, without flags."""
    for family in (_UNIX, _INET, _INET6):
        for kind in (_STREAM, _DATAGRAM, _SEQUENCE):
            yield _allowed(_equal(0, family), _masked(1, kind))
    yield _allowed(_equal(0, _NETLINK), _equal(2, _NETLINK_ROUTE))
    # Refused by default as well; a program that tries is told what it expects to hear.
    for family in (_INET, _INET6):
        yield {**_allowed(_equal(0, family), _masked(1, _RAW)), **_NOT_PERMITTED}


def _allowed(*tests: dict[str, Any]) -> dict[str, Any]:
    return {"names": [_SOCKET], "action": _ALLOW, "args": list(tests)}


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}


def _masked(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": _KIND_MASK, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
