"""Runs the attacks that standard input names, and prints the result of each."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, Any

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.doctor.attack.probes.control_sockets import control_sockets
from claude_proxy.doctor.attack.probes.credentials import (
    echoed_keys,
    foreign_keys,
    message_bodies,
    misplaced_placeholders,
    other_endpoints,
)
from claude_proxy.doctor.attack.probes.dns import name_lookups
from claude_proxy.doctor.attack.probes.fake_addresses import fake_addresses
from claude_proxy.doctor.attack.probes.files import (
    devices,
    host_files,
    system_settings,
    write_policy,
)
from claude_proxy.doctor.attack.probes.kernel import (
    foreign_calls,
    io_uring,
    kernel_interfaces,
    keyring,
    mounts,
    nested_namespaces,
)
from claude_proxy.doctor.attack.probes.netlink import netlink
from claude_proxy.doctor.attack.probes.network import (
    direct_tcp,
    direct_udp,
    host_loopback,
    other_families,
    packet_sockets,
    raw_ip,
    vsock,
)
from claude_proxy.doctor.attack.probes.outcome import Spec, Try
from claude_proxy.doctor.attack.probes.pod import (
    pod_names,
    pod_ping,
    pod_proxy,
    pod_raw,
    pod_tcp,
    pod_udp,
)
from claude_proxy.doctor.attack.probes.processes import (
    descriptors,
    environment,
    host_processes,
    inherited,
    kill,
    ptrace,
)
from claude_proxy.doctor.attack.probes.replaced import replaced
from claude_proxy.doctor.attack.probes.requests import (
    forged_origin,
    fronting_by_host,
    fronting_by_sni,
    other_requests,
    plain_bytes,
    smuggling,
)
from claude_proxy.doctor.attack.probes.targets import (
    broken_names,
    denied_hosts,
    documentation,
    honest,
    host_listeners,
    metadata,
    names_as_letters,
    odd_ports,
    proxy_itself,
    socks,
)
from claude_proxy.doctor.attack.probes.terminal import terminal
from claude_proxy.doctor.attack.probes.unix_sockets import unix_abstract, unix_paths
from claude_proxy.doctor.attack.probes.unix_ways import unix_ways

_ATTACK_S = 60.0
ATTACKS: dict[str, Callable[[Spec], Iterable[Try]]] = {
    "honest": honest,
    "direct-tcp": direct_tcp,
    "direct-udp": direct_udp,
    "raw-ip": raw_ip,
    "packet-sockets": packet_sockets,
    "vsock": vsock,
    "other-families": other_families,
    "netlink": netlink,
    "name-lookups": name_lookups,
    "host-loopback": host_loopback,
    "unix-abstract": unix_abstract,
    "unix-paths": unix_paths,
    "unix-ways": unix_ways,
    "control-sockets": control_sockets,
    "io-uring": io_uring,
    "foreign-calls": foreign_calls,
    "nested-namespaces": nested_namespaces,
    "mounts": mounts,
    "kernel-interfaces": kernel_interfaces,
    "keyring": keyring,
    "terminal": terminal,
    "ptrace": ptrace,
    "kill": kill,
    "host-processes": host_processes,
    "environment": environment,
    "descriptors": descriptors,
    "host-files": host_files,
    "write-policy": write_policy,
    "system-settings": system_settings,
    "devices": devices,
    "replaced-files": replaced,
    "denied-hosts": denied_hosts,
    "documentation": documentation,
    "metadata": metadata,
    "host-listeners": host_listeners,
    "proxy-itself": proxy_itself,
    "odd-ports": odd_ports,
    "fronting-by-sni": fronting_by_sni,
    "fronting-by-host": fronting_by_host,
    "other-requests": other_requests,
    "smuggling": smuggling,
    "plain-bytes": plain_bytes,
    "socks": socks,
    "broken-names": broken_names,
    "forged-origin": forged_origin,
    "names-as-letters": names_as_letters,
    "fake-addresses": fake_addresses,
    "foreign-keys": foreign_keys,
    "misplaced-placeholders": misplaced_placeholders,
    "echoed-keys": echoed_keys,
    "other-endpoints": other_endpoints,
    "message-bodies": message_bodies,
    "pod-proxy": pod_proxy,
    "pod-tcp": pod_tcp,
    "pod-udp": pod_udp,
    "pod-names": pod_names,
    "pod-ping": pod_ping,
    "pod-raw": pod_raw,
}


def run_attack(name: str, spec: Spec) -> dict[str, Any]:
    """Run one attack in its own process, and return its report."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # Not closed: the end of this process tells the other that the report is complete.
        report = os.fdopen(writing, "w", encoding="utf-8")
        _attack(name, spec, report)
        report.flush()
        os._exit(0)
    os.close(writing)
    data = _read_until_end(reading, time.monotonic() + _ATTACK_S)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"attack": name, **_report_of(data)}


def _attack(name: str, spec: Spec, report: IO[str]) -> None:
    """Report each try at once, so that one that hangs does not lose those before it."""
    try:
        for row in ATTACKS[name](spec):
            report.write(json.dumps(row) + "\n")
            report.flush()
    except BaseException as problem:  # noqa: BLE001 - reported as a crash
        end: dict[str, str | None] = {"crashed": f"{type(problem).__name__}: {problem}"}
    else:
        end = {"crashed": None}
    report.write(json.dumps(end) + "\n")


def _report_of(data: bytes) -> dict[str, Any]:
    lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
    tries = [line for line in lines if isinstance(line, list)]
    ends = [line["crashed"] for line in lines if isinstance(line, dict)]
    crashed = ends[0] if ends else "it did not finish"
    return {"tries": tries, "crashed": crashed}


def _read_until_end(reading: int, deadline: float) -> bytes:
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        if not ready or not (piece := os.read(reading, 65536)):
            break
        data += piece
    os.close(reading)
    return data


def main() -> None:
    """Run the attacks that standard input names, one after the other."""
    left = inherited()  # before this process opens any file
    spec: Spec = json.loads(sys.stdin.read())
    spec["inherited"] = left
    for name in spec["attacks"]:
        sys.stdout.write(json.dumps(run_attack(name, spec)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
