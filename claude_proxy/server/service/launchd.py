"""launchd property list of a service, for macOS.

It is printed, not installed, and contains no secret: launchd cannot pass credentials, so the key
stays in its file.
"""

import plistlib

from claude_proxy.server.service.plan import ServicePlan
from claude_proxy.server.service.quoting import refuse_control
from claude_proxy.server.service.systemd import command_of, files_needed

_RESTART_S = 10  # launchd's default, written out
_UMASK = 0o077


def plist_of(plan: ServicePlan, more: tuple[str, ...], *, home: str) -> str:
    """Return the LaunchAgent of a plan; `more` are further arguments of its command."""
    files = files_needed(plan)
    log = f"{home}/Library/Logs/{plan.names.label}.log"
    agent = {
        "Label": plan.names.label,
        "ProgramArguments": [refuse_control(word) for word in (*command_of(plan), *more)],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": _RESTART_S,
        "ProcessType": "Interactive",  # otherwise macOS throttles its network
        "Umask": _UMASK,
        "SoftResourceLimits": {"NumberOfFiles": files, "Core": 0},
        "HardResourceLimits": {"NumberOfFiles": files, "Core": 0},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(agent, sort_keys=False).decode()
