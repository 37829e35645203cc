"""Attack catalogue, and the results of attacks: from inside, and by the canaries outside; pure.

Law kept: fail closed. An attack is stopped only if every try of it was stopped. An attack without
tries, or one that crashed, is an error; and if what is allowed does not work, no denial proves
anything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

ALLOWED: Final = "honest"
_STOPPED: Final = "stopped"  # as the probes report it
ALLOWED_AGAIN: Final = "honest-again"
_MOST_REASONS: Final = 3


class Outcome(StrEnum):
    """The outcome of one attack."""

    STOPPED = "stopped"
    THROUGH = "THROUGH"  # in capitals, so that nobody overlooks it
    ERROR = "error"  # not known
    WORKS = "works"  # for what is allowed


class AttackGroup(StrEnum):
    """What an attack targets."""

    ALLOWED = "what is allowed"
    NETWORK = "the network"
    KERNEL = "the kernel and other processes"
    FILES = "files and devices"
    PROJECT = "protected files of the project"
    PROXY = "the proxy"
    KEYS = "keys, and requests with them"
    CANARIES = "seen outside"


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, as shown in the table."""

    name: str
    title: str
    group: AttackGroup


ATTACKS: tuple[Attack, ...] = (
    Attack("direct-tcp", "TCP to other machines", AttackGroup.NETWORK),
    Attack("direct-udp", "UDP to other machines", AttackGroup.NETWORK),
    Attack("raw-ip", "raw IP, ICMP, ping", AttackGroup.NETWORK),
    Attack("packet-sockets", "whole frames (AF_PACKET)", AttackGroup.NETWORK),
    Attack("vsock", "the host of a VM (AF_VSOCK)", AttackGroup.NETWORK),
    Attack("other-families", "sockets of other families", AttackGroup.NETWORK),
    Attack("netlink", "routes, addresses, devices", AttackGroup.NETWORK),
    Attack("name-lookups", "DNS, getaddrinfo", AttackGroup.NETWORK),
    Attack("host-loopback", "listeners on this machine", AttackGroup.NETWORK),
    Attack("unix-abstract", "abstract Unix sockets", AttackGroup.NETWORK),
    Attack("unix-paths", "Unix sockets: agents, docker, D-Bus", AttackGroup.NETWORK),
    Attack("unix-ways", "Unix sockets: links, races, binds", AttackGroup.NETWORK),
    Attack("control-sockets", "commands of the owner to proxies", AttackGroup.NETWORK),
    Attack("nested-namespaces", "new namespaces", AttackGroup.KERNEL),
    Attack("foreign-calls", "32-bit and x32 system calls", AttackGroup.KERNEL),
    Attack("io-uring", "sockets by io_uring", AttackGroup.KERNEL),
    Attack("mounts", "mount, unmount, change root", AttackGroup.KERNEL),
    Attack("kernel-interfaces", "bpf, perf, kexec and others", AttackGroup.KERNEL),
    Attack("keyring", "the kernel's keyrings", AttackGroup.KERNEL),
    Attack("terminal", "typing into the terminal", AttackGroup.KERNEL),
    Attack("ptrace", "other processes: trace, memory", AttackGroup.KERNEL),
    Attack("kill", "signals to proxy, relay, launcher", AttackGroup.KERNEL),
    Attack("host-processes", "command lines of other processes", AttackGroup.KERNEL),
    Attack("environment", "the launcher's environment", AttackGroup.KERNEL),
    Attack("descriptors", "open files left behind", AttackGroup.FILES),
    Attack("host-files", "keys, secrets, other files", AttackGroup.FILES),
    Attack("write-policy", "writing policy, CA, audit log", AttackGroup.FILES),
    Attack("system-settings", "settings of the system", AttackGroup.FILES),
    Attack("devices", "memory, disks, tunnels", AttackGroup.FILES),
    Attack("replaced-files", "files that the host replaces", AttackGroup.PROJECT),
    Attack("denied-hosts", "denied hosts and look-alikes", AttackGroup.PROXY),
    Attack("documentation", "bare addresses", AttackGroup.PROXY),
    Attack("metadata", "169.254.169.254 in all notations", AttackGroup.PROXY),
    Attack("host-listeners", "listeners on this machine", AttackGroup.PROXY),
    Attack("proxy-itself", "the proxy's own port", AttackGroup.PROXY),
    Attack("odd-ports", "odd ports", AttackGroup.PROXY),
    Attack("fronting-by-sni", "another name in TLS (SNI)", AttackGroup.PROXY),
    Attack("fronting-by-host", "another name in Host or URL", AttackGroup.PROXY),
    Attack("other-requests", "other paths and methods", AttackGroup.PROXY),
    Attack("smuggling", "requests hidden in requests", AttackGroup.PROXY),
    Attack("plain-bytes", "no TLS in a tunnel", AttackGroup.PROXY),
    Attack("socks", "SOCKS: NUL, CRLF, UDP, BIND", AttackGroup.PROXY),
    Attack("broken-names", "NUL and CRLF in CONNECT", AttackGroup.PROXY),
    Attack("forged-origin", "forged PROXY headers and fields", AttackGroup.PROXY),
    Attack("names-as-letters", "data in DNS names", AttackGroup.PROXY),
    Attack("fake-addresses", "names and addresses in the sandbox", AttackGroup.PROXY),
    Attack("foreign-keys", "foreign keys on a bound host", AttackGroup.KEYS),
    Attack("misplaced-placeholders", "the placeholder elsewhere", AttackGroup.KEYS),
    Attack("echoed-keys", "responses that contain the key", AttackGroup.KEYS),
    Attack("other-endpoints", "files, batches, skills of the API", AttackGroup.KEYS),
    Attack("message-bodies", "requests by the API to other hosts", AttackGroup.KEYS),
)

# Of a pod, by a program in it; what seccomp and mounts refuse is the cluster's own matter.
POD_PROXY: Final = Attack("pod-proxy", "the proxy answers", AttackGroup.ALLOWED)
_POD_ALONE: Final = (
    Attack("pod-tcp", "TCP past the proxy", AttackGroup.NETWORK),
    Attack("pod-udp", "UDP past the proxy", AttackGroup.NETWORK),
    Attack("pod-names", "getaddrinfo", AttackGroup.NETWORK),
    Attack("pod-ping", "ping", AttackGroup.NETWORK),
    Attack("pod-raw", "raw IP", AttackGroup.NETWORK),
)
_POD_TOO: Final = (
    *("packet-sockets", "vsock", "netlink"),
    *("denied-hosts", "documentation", "metadata", "proxy-itself", "names-as-letters"),
)
POD_ATTACKS: Final = (*_POD_ALONE, *(each for each in ATTACKS if each.name in _POD_TOO))


# Of a container with its own policy, by a program beside its command: those that need a server of
# ours which the policy allows are left out, and so are those that replace files of the project. A
# terminal is the container's own: what is typed into it is read there, not outside.
_NOT_OF_CONTAINERS: Final = frozenset(
    {"odd-ports", "fronting-by-sni", "fronting-by-host", "other-requests", "smuggling"}
    | {"plain-bytes", "forged-origin", "fake-addresses", "terminal"}
)
CONTAINER_ATTACKS: Final = tuple(
    each
    for each in ATTACKS
    if each.group not in {AttackGroup.KEYS, AttackGroup.PROJECT}
    and each.name not in _NOT_OF_CONTAINERS
)


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One row of the table: an attack and its result."""

    name: str
    title: str
    group: AttackGroup
    result: Outcome
    tries: int
    by: tuple[str, ...] = ()  # what stopped it
    saw: tuple[str, ...] = ()  # the errors and reasons that it met
    through: tuple[str, ...] = ()  # each try that nothing stopped


@dataclass(frozen=True, slots=True)
class Observation:
    """A canary outside, and what reached it."""

    name: str
    title: str
    seen: tuple[str, ...]


type AttackReport = Mapping[str, Any]

_BY_NETWORK = frozenset({AttackGroup.PROXY, AttackGroup.KEYS})


def _left_out(*, network: bool, project: bool) -> frozenset[AttackGroup]:
    """Return the groups that cannot be tried: without a network, or in the user's own project."""
    without = _BY_NETWORK if not network else frozenset()
    return without if project else without | {AttackGroup.PROJECT}


def names(*, network: bool, project: bool) -> list[str]:
    """Return the attacks to run, in order; what is allowed comes first and last.

    `project`: there is a project whose files may be replaced.
    """
    left_out = _left_out(network=network, project=project)
    found = [each.name for each in ATTACKS if each.group not in left_out]
    return [ALLOWED, *found, ALLOWED] if network else found


def judge(
    reports: Sequence[AttackReport],
    observations: Iterable[Observation],
    *,
    network: bool,
    project: bool,
) -> list[AttackResult]:
    """Return the rows of the table."""
    left_out = _left_out(network=network, project=project)
    rows = list(_allowed_rows(reports)) if network else []
    by_name = {report["attack"]: report for report in reports if report["attack"] != ALLOWED}
    for attack in ATTACKS:
        if attack.group not in left_out:
            rows.append(_row_of(attack, by_name.get(attack.name)))
    rows += [_row_of_canary(observation) for observation in observations]
    return rows


def judge_pod(reports: Sequence[AttackReport]) -> list[AttackResult]:
    """Return the rows of the table of a pod."""
    by_name = {report["attack"]: report for report in reports}
    first = _row_of_proxy(by_name.get(POD_PROXY.name))
    return [first, *(_row_of(attack, by_name.get(attack.name)) for attack in POD_ATTACKS)]


def judge_container(
    reports: Sequence[AttackReport], observations: Iterable[Observation]
) -> list[AttackResult]:
    """Return the rows of the table of a container."""
    by_name = {report["attack"]: report for report in reports}
    rows = [_row_of_proxy(by_name.get(POD_PROXY.name))]
    rows += [_row_of(attack, by_name.get(attack.name)) for attack in CONTAINER_ATTACKS]
    return [*rows, *map(_row_of_canary, observations)]


def _row_of_proxy(report: AttackReport | None) -> AttackResult:
    tries = (report or {}).get("tries", [])
    facts = (POD_PROXY.name, POD_PROXY.title, POD_PROXY.group)
    saw = tuple(said for _, _, _, said in tries) or (_why(report),)
    works = bool(tries) and all(outcome != _STOPPED for _, outcome, _, _ in tries)
    return AttackResult(*facts, Outcome.WORKS if works else Outcome.ERROR, len(tries), saw=saw)


def exit_code(rows: Iterable[AttackResult]) -> int:
    """Return 1 if anything got through, else 2 if any outcome is unknown, else 0."""
    results = {row.result for row in rows}
    if Outcome.THROUGH in results:
        return 1
    return 2 if Outcome.ERROR in results else 0


def _allowed_rows(reports: Sequence[AttackReport]) -> Iterator[AttackResult]:
    """Yield whether what is allowed works, before and after the attacks."""
    found = [report for report in reports if report["attack"] == ALLOWED]
    wanted = ((ALLOWED, "an allowed site, before"), (ALLOWED_AGAIN, "an allowed site, after"))
    for number, (name, title) in enumerate(wanted):
        report = found[number] if number < len(found) else None
        tries = (report or {}).get("tries", [])
        if tries and all(outcome != _STOPPED for _, outcome, _, _ in tries):
            yield AttackResult(name, title, AttackGroup.ALLOWED, Outcome.WORKS, len(tries))
        else:
            saw = [said for _, _, _, said in tries] or [_why(report)]
            yield AttackResult(
                name, title, AttackGroup.ALLOWED, Outcome.ERROR, len(tries), (), tuple(saw)
            )


def _row_of(attack: Attack, report: AttackReport | None) -> AttackResult:
    tries = (report or {}).get("tries", [])
    facts = (attack.name, attack.title, attack.group)
    if ways := tuple(
        f"{what}: {saw}" if saw else what for what, out, _, saw in tries if out != _STOPPED
    ):
        return AttackResult(*facts, Outcome.THROUGH, len(tries), through=ways)
    if not tries or report is None or report.get("crashed"):
        return AttackResult(*facts, Outcome.ERROR, len(tries), saw=(_why(report),))
    by = tuple(dict.fromkeys(by for _, _, by, _ in tries))
    saw = tuple(dict.fromkeys(saw for _, _, _, saw in tries))
    return AttackResult(*facts, Outcome.STOPPED, len(tries), by, _shortened(saw))


def _row_of_canary(observation: Observation) -> AttackResult:
    facts = (observation.name, observation.title, AttackGroup.CANARIES)
    if observation.seen:
        return AttackResult(*facts, Outcome.THROUGH, 0, through=observation.seen)
    return AttackResult(*facts, Outcome.STOPPED, 0, saw=("saw nothing",))


def _why(report: AttackReport | None) -> str:
    if report is None:
        return "it was not run"
    return str(report.get("crashed") or "it tried nothing")


def _shortened(saw: tuple[str, ...]) -> tuple[str, ...]:
    more = len(saw) - _MOST_REASONS
    return saw if more <= 0 else (*saw[:_MOST_REASONS], f"{more} more")
