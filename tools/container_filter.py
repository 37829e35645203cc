"""The profile of system calls for containers whose engine has none that can be read.

`make seccomp` writes claude_proxy/sandbox/container/own_seccomp.json. Docker keeps its profile in
its program, so a machine with docker alone has no other. It lists what is allowed: every call that
libseccomp knows for the two architectures, without those that are named here;
`sandbox.container.plan.hardening` then narrows it, and adds sockets and new processes.
"""

import json
import sys
from pathlib import Path

from tools.libseccomp import ARCHITECTURES, call_name
from tools.seccomp_filter import DENIED

PATH = Path(__file__).resolve().parents[1] / "claude_proxy/sandbox/container/own_seccomp.json"

_NUMBERS = range(451)  # up to Linux 5.17: C libraries do without what is newer
# Beyond what a run denies: the reason, and the calls.
_REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("arguments decide about them", ("socket", "clone", "unshare", "personality")),
    ("they are for root, and say much about the machine", ("fanotify_init", "kcmp", "sysfs")),
    (
        "they move the memory of other processes",
        ("migrate_pages", "move_pages", "process_madvise", "set_mempolicy_home_node", "vmsplice"),
    ),
    (
        "no kernel of today has them",
        (
            *("_sysctl", "afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "putpmsg"),
            *("query_module", "security", "tuxcall", "ustat", "vserver"),
        ),
    ),
    ("few programs call them, and do without", ("futex_waitv", "io_pgetevents")),
)
_PERSONALITIES = (0, 0xFFFF_FFFF)  # personality(2): that of Linux, and to ask for it


def refused() -> frozenset[str]:
    """Return the calls that the profile does not allow whatever their arguments are."""
    calls = [*(each for _, _, each in DENIED), *(each for _, each in _REFUSED)]
    return frozenset(name for each in calls for name in each)


def build() -> bytes:
    """Return the profile, as engines read it."""
    known = {call_name(number, each) for each in ARCHITECTURES for number in _NUMBERS}
    allowed = sorted({name for name in known if name} - refused())
    rules = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    for value in _PERSONALITIES:
        only = {"index": 0, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
        rules.append({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [only]})
    # As for a call that this kernel does not have: programs then take another one.
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules}
    return json.dumps(profile, indent=1).encode() + b"\n"


def main() -> None:
    """Write the profile."""
    PATH.write_bytes(build())
    sys.stdout.write(f"{PATH.name}: {PATH.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
