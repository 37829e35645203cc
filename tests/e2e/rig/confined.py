"""Puts a program below the limits that a unit asks systemd for, and becomes it.

    confined.py UNIT -- COMMAND ...

No service manager is needed: the lines of the unit that are system call filters, resource limits
and privileges are obeyed here as systemd.exec(5) describes them; mounts and control groups are not.
"""

import ctypes
import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.libseccomp import ALLOW, Filter, call_number, equal, errno_action, masked, not_equal

_PROT_WRITE, _PROT_EXEC = 2, 4
_SHM_EXEC = 0o100000
_NAMESPACE_FLAGS = (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000)
_NEW_NET = 0x4000_0000
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
_FAMILIES = range(1, 46)  # to below AF_MAX

type Settings = dict[str, list[str]]
type Refusal = tuple[Any, ...]  # an error number, a system call, and tests of its arguments


def settings_of(unit: Path) -> Settings:
    """Return the settings of a unit, each with all of its values."""
    found: Settings = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    return found


def calls_of(filters: Sequence[str]) -> set[str]:
    """Return the system calls that a list of SystemCallFilter= lets through."""
    allowed: set[str] = set()
    for line in filters:
        calls = set(expanded(line.removeprefix("~").split()))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    # systemd.exec(5): these are always there, as nothing starts or ends without them.
    return allowed | set(expanded(["@default"])) | {"execve", "exit", "exit_group"}


def expanded(words: Sequence[str]) -> Iterator[str]:
    """Yield the calls of each group, as this machine's systemd knows it."""
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        asked = ["systemd-analyze", "syscall-filter", "--no-pager", word]
        listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        inner = [line.strip() for line in listed.splitlines() if line.startswith("    ")]
        yield from expanded([name for name in inner if not name.startswith("#")])


def keep_to_calls(settings: Settings) -> None:
    """Let no other call through."""
    with Filter(errno_action(errno.EPERM)) as rules:
        for name in sorted(calls_of(settings["SystemCallFilter"])):
            try:
                number = call_number(name)
            except LookupError:
                continue  # too new for this library
            if number >= 0:  # else it is of another architecture
                rules.add(ALLOW, number)
        rules.load()


def refuse_by_argument(settings: Settings) -> None:
    """Refuse what is told by its arguments: memory, namespaces, families, modes, the scheduler."""
    with Filter(ALLOW) as rules:
        for number, name, *tests in (*_refusals_of_code(settings), *_refusals(settings)):
            rules.add(errno_action(number), name, *tests)
        rules.load()


def _refusals_of_code(settings: Settings) -> Iterator[Refusal]:
    if settings.get("MemoryDenyWriteExecute") != ["yes"]:
        return
    both = _PROT_WRITE | _PROT_EXEC
    yield errno.EPERM, "mmap", masked(2, both, both)
    for name in ("mprotect", "pkey_mprotect"):
        yield errno.EPERM, name, masked(2, _PROT_EXEC, _PROT_EXEC)
    yield errno.EPERM, "shmat", masked(2, _SHM_EXEC, _SHM_EXEC)


def _refusals(settings: Settings) -> Iterator[Refusal]:
    yield errno.ENOSYS, "clone3"  # its flags lie in memory
    for flag in (*_NAMESPACE_FLAGS, _NEW_NET):
        yield errno.EPERM, "clone", masked(0, flag, flag)
        yield errno.EPERM, "unshare", masked(0, flag, flag)
    yield errno.EPERM, "setns"
    families = {
        int(getattr(socket, name)) for name in settings["RestrictAddressFamilies"][0].split()
    }
    for family in _FAMILIES:
        if family not in families:
            yield errno.EAFNOSUPPORT, "socket", equal(0, family)
    for name, at in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
        for bit in (stat.S_ISUID, stat.S_ISGID):
            yield errno.EPERM, name, masked(at, bit, bit)
    for policy in (os.SCHED_FIFO, os.SCHED_RR):
        yield errno.EPERM, "sched_setscheduler", equal(1, policy)
    yield errno.EPERM, "personality", not_equal(0, 0)


def set_limits(settings: Settings) -> None:
    """Set the limits that the kernel keeps for each process."""
    files = int(settings["LimitNOFILE"][0])
    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    core = int(settings["LimitCORE"][0])
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    os.umask(int(settings["UMask"][0], 8))


def main(arguments: list[str]) -> None:
    """Obey the unit, then become the command."""
    settings = settings_of(Path(arguments[0]))
    command = arguments[arguments.index("--") + 1 :]
    set_limits(settings)
    if settings.get("MemoryDenyWriteExecute") == ["yes"]:
        # Newer versions of systemd use this as well; older kernels do not have it.
        ctypes.CDLL(None).prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    refuse_by_argument(settings)
    keep_to_calls(settings)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
