"""Desktop notifications of questions, by `notify-send` where there is a desktop.

A convenience: without one nothing is missing, and whatever goes wrong with it changes no answer.
"""

import asyncio
import contextlib
import html
import shutil
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.audit.escape import escape_text
from claude_proxy.policy.questions import Facts

_PROGRAM = "notify-send"
_LIMIT_S = 10.0
_MOST = 300  # characters of an attempt
_BUS = "DBUS_SESSION_BUS_ADDRESS"
_KEPT = ("PATH", "HOME", "LANG", "XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", _BUS)


def program_for(environ: Mapping[str, str]) -> Path | None:
    """Return the program that notifies; None: there is none, or no desktop."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    has_bus = bool(environ.get(_BUS)) or (runtime is not None and Path(runtime, "bus").exists())
    has_display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    found = shutil.which(_PROGRAM, path=environ.get("PATH")) if has_bus and has_display else None
    return None if found is None else Path(found)


def arguments_for(facts: Facts) -> list[str]:
    """Return what the program is given: no text of a client is markup, or an option."""
    run = facts.subject.run
    title = "claude-proxy: a question" if run is None else f"claude-proxy: run {run} asks"
    what = escape_text(facts.what_without_query)  # other users see the arguments of a process
    if len(what) > _MOST:
        what = f"{what[:_MOST]}..."
    body = f"{html.escape(what)}\nAnswer in a terminal: claude-proxy ask"
    return ["--app-name=claude-proxy", "--", escape_text(title), body]


async def notify(program: Path, facts: Facts, environ: Mapping[str, str]) -> None:
    """Show a notification, and wait until the program has ended."""
    with contextlib.suppress(OSError, TimeoutError):
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments_for(facts),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: environ[name] for name in _KEPT if name in environ},
            cwd="/",
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                await child.wait()
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
