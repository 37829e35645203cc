"""Renders a `Plan` as a property list of launchd's, for macOS.

It is printed and not installed, and holds no secret: launchd hands over no credentials, so the key
stays in its file.
"""

import plistlib

from claude_proxy.server.service.plan import Plan
from claude_proxy.server.service.quoting import refuse_control
from claude_proxy.server.service.systemd import command_of, files_needed

_RESTART_S = 10  # what launchd waits by itself, said so that nobody looks for it
_UMASK = 0o077


def plist_of(plan: Plan, more: tuple[str, ...], *, home: str) -> str:
    """Return the LaunchAgent of a plan, whose command has `more` words."""
    files = files_needed(plan)
    log = f"{home}/Library/Logs/{plan.names.label}.log"
    agent = {
        "Label": plan.names.label,
        "ProgramArguments": [refuse_control(word) for word in (*command_of(plan), *more)],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": _RESTART_S,
        "ProcessType": "Interactive",  # else macOS slows its network down
        "Umask": _UMASK,
        "SoftResourceLimits": {"NumberOfFiles": files, "Core": 0},
        "HardResourceLimits": {"NumberOfFiles": files, "Core": 0},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(agent, sort_keys=False).decode()
