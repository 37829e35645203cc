"""System call filter of a sandbox: the BPF program that bwrap loads, shipped per architecture.

Law kept: no quiet downgrade. If there is no filter for the machine's architecture, a run fails.

The rules, and the reason for each, are in tools/seccomp_filter.py, which builds the shipped files.
"""

import os
from enum import Enum
from pathlib import Path

from claude_proxy.errors import ConfigError

ARCHITECTURES = ("x86_64", "aarch64")  # as uname(2) names them

_FILES = "filters"


class Reported(Enum):
    """Which calls are reported to a program outside; the values end the files' names."""

    NOTHING = ""
    PAIRS = "-pairs"  # the creation of datagram pairs
    SOCKETS = "-sockets"  # and connect and bind, so that Unix sockets can be created


def problem() -> ConfigError | None:
    """Return why this machine has no filter; None if it has one."""
    try:
        program()
    except ConfigError as error:
        return error
    return None


def program(architecture: str | None = None, reported: Reported = Reported.NOTHING) -> bytes:
    """Return the filter of an architecture, this machine's by default; ConfigError without one.

    `reported`: the calls that it leaves to a filter which `seccomp_notify` has installed before.
    """
    machine = architecture or os.uname().machine
    if machine not in ARCHITECTURES:
        raise ConfigError(
            f"there is no system call filter for {machine or 'this architecture'}",
            where="seccomp",
            fix=f"use a machine with {' or '.join(ARCHITECTURES)}; or run without the filter, which"
            " weakens the sandbox: --without-seccomp",
        )
    name = f"{machine}{reported.value}.bpf"
    file = Path(__file__).with_name(_FILES) / name
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the system call filter cannot be read: {(error.strerror or '').lower()}",
            where=str(file),
            fix="install claude-proxy again",
        ) from error
