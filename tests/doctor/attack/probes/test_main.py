"""Attacks run one by one; one without a conclusion is never reported as stopped."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.doctor.attack.probes.__main__ import ATTACKS
from claude_proxy.sandbox.run_directory import start_time_of
from tests.doctor.cage import (
    reports,
    tight,
)

KERNELS = [
    "direct-tcp",
    "direct-udp",
    "raw-ip",
    "packet-sockets",
    "vsock",
    "other-families",
    "netlink",
    "name-lookups",
    "host-loopback",
    "unix-abstract",
    "nested-namespaces",
    "foreign-calls",
    "io-uring",
    "mounts",
    "kernel-interfaces",
    "keyring",
    "terminal",
    "ptrace",
    "kill",
    "host-processes",
    "environment",
]


def test_a_tight_sandbox_stops_every_attack(canaries: Canaries) -> None:
    facts: dict[str, Any] = {"canaries": canaries.facts(), "secret": canaries.token}
    processes = [["the launcher", os.getpid(), str(start_time_of(os.getpid()))]]

    with tight() as (around, descriptors):
        found = reports(KERNELS, around=around, pass_fds=descriptors, processes=processes, **facts)

    assert [report for report in found if report["crashed"]] == []
    through = [row for report in found for row in report["tries"] if row[1] != "stopped"]
    assert through == []
    assert canaries.seen("loopback") == canaries.seen("unix") == ()


def test_an_attack_that_crashes_does_not_count_as_stopped() -> None:
    [unknown, killed] = [*reports(["unheard-of"]), *reports(["kill"], processes=[["x"]])]

    assert unknown["crashed"].startswith("KeyError")
    assert killed["crashed"].startswith("ValueError")


def test_every_attack_says_what_it_does() -> None:
    assert all(attack.__doc__ for attack in ATTACKS.values())


def test_it_needs_only_the_standard_library() -> None:
    """Nothing else of this project is imported, and nothing that is installed."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import claude_proxy.doctor.attack.probes.__main__; "
        "print([n for n, m in sys.modules.items() if 'site-packages' in str(getattr(m, "
        "'__file__', ''))], [n for n in sys.modules if n.startswith('claude_proxy.') and not "
        "n.startswith('claude_proxy.doctor')])"
    )
    root = str(Path(__file__).resolve().parents[4])

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, root],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["[]", "[]"]


def test_an_attack_that_does_not_end_is_ended_and_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = list(silent.getsockname())
        [report] = reports(["denied-hosts"], proxy=place, change="__main__._ATTACK_S = 0.3")

    assert report["crashed"] == "it did not finish"
