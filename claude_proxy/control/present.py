"""The present, by the wall clock, which can be set, and by the time since the boot."""

import time
from functools import cache
from pathlib import Path

from claude_proxy.audit.clock import since_boot_ns
from claude_proxy.policy.grants import Moment


@cache
def _boot_id() -> str:
    """Return the id that the kernel gave this boot; "" where it gives none."""
    try:
        found = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""
    return found.strip()


def now() -> Moment:
    """Return the present."""
    return Moment(time.time_ns(), since_boot_ns(), _boot_id())
