"""The filter of system calls is the engine's, narrowed: no flag hides a raw socket."""

import json
import socket

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.hardening import seccomp_profile
from tests.support.container_parts import PROFILE


def narrowed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(seccomp_profile(json.dumps(PROFILE).encode()))[
        "syscalls"
    ]
    return found


def outcome(family: int, kind: int, protocol: int = 0) -> str:
    """Return what the filter does with a call of socket(2)."""
    values = (family, kind, protocol)
    for rule in narrowed():
        tests = rule.get("args") or []
        assert isinstance(tests, list)
        if rule["names"] == ["socket"] and all(_holds(test, values) for test in tests):
            return str(rule["action"])
    return str(PROFILE["defaultAction"])


def _holds(test: dict[str, int | str], values: tuple[int, ...]) -> bool:
    value = values[int(test["index"])]
    if test["op"] == "SCMP_CMP_MASKED_EQ":
        return value & int(test["value"]) == test["valueTwo"]
    return value == test["value"]


FLAGS = (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_PACKET])
def test_raw_and_packet_sockets_are_refused_whatever_the_flags(family: int, flags: int) -> None:
    assert outcome(family, socket.SOCK_RAW | flags) == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_ordinary_sockets_are_allowed(family: int, kind: int, flags: int) -> None:
    assert outcome(family, kind | flags) == "SCMP_ACT_ALLOW"


def test_interfaces_can_be_listed_and_the_audit_of_the_kernel_not_reached() -> None:
    route, audit = 0, 9

    assert outcome(socket.AF_NETLINK, socket.SOCK_RAW, route) == "SCMP_ACT_ALLOW"
    assert outcome(socket.AF_NETLINK, socket.SOCK_RAW, audit) == "SCMP_ACT_ERRNO"


def test_datagrams_to_packet_sockets_are_refused() -> None:
    assert outcome(socket.AF_PACKET, socket.SOCK_DGRAM) == "SCMP_ACT_ERRNO"


def test_ways_around_the_filter_are_closed() -> None:
    allowed = names_of("SCMP_ACT_ALLOW")

    assert not {"socketcall", "io_uring_setup", "mount"} & allowed
    assert "read" in allowed


def names_of(action: str) -> set[str]:
    found: set[str] = set()
    for rule in narrowed():
        names = rule["names"] if rule["action"] == action else []
        assert isinstance(names, list)
        found |= set(names)
    return found


def test_what_the_engine_refuses_stays_refused() -> None:
    refused = names_of("SCMP_ACT_ERRNO")

    assert {"bpf", "mount"} <= refused


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}']
)
def test_a_profile_that_does_not_list_what_is_allowed_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError, match="cannot be narrowed"):
        seccomp_profile(text)


def test_no_call_makes_a_namespace() -> None:
    calls = [{"names": ["read", "clone", "clone3", "unshare"], "action": "SCMP_ACT_ALLOW"}]
    given = json.dumps({**PROFILE, "syscalls": calls}).encode()

    narrowed = json.loads(seccomp_profile(given))["syscalls"]

    named = [(rule["names"], bool(rule.get("args"))) for rule in narrowed]
    assert named[0] == (["read"], False)
    assert (["clone"], True) in named  # with flags for a process or a thread
    assert [names for names, _ in named if {"clone3", "unshare"} & {*names}] == []


def test_calls_of_other_architectures_are_refused() -> None:
    machine = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}
    given = json.dumps({**PROFILE, "archMap": [machine]}).encode()

    assert json.loads(seccomp_profile(given))["archMap"] == [{**machine, "subArchitectures": []}]
