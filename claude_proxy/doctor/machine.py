"""Machine checks: Python, bubblewrap, seccomp, namespaces, other programs.

A sandbox is tried, not inferred from versions: the kernel, its settings and the security modules of
a distribution can all prevent it.
"""

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import claude_proxy
from claude_proxy.doctor.bounded_run import run_program, words_of
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, error, ok, warning
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.plan import requirements
from claude_proxy.sandbox.plan.requirements import SANDBOX_EXEC

_LIMIT_S: Final = 15.0
_STATUS: Final = Path("/proc/self/status")
_TIOCSTI: Final = Path("/proc/sys/dev/tty/legacy_tiocsti")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def check_python(_: Subject) -> list[Finding]:
    """Report the version of claude-proxy and of Python."""
    where = Path(claude_proxy.__file__).parent
    return [
        ok("claude-proxy", f"{claude_proxy.__version__} in {where}"),
        ok("Python", f"{platform.python_version()}, {sys.executable or 'unknown'}"),
    ]


def check_sandbox(subject: Subject) -> list[Finding]:
    """Try to create a sandbox with bubblewrap, as `run` does."""
    if subject.platform == "darwin":
        return [_check_sandbox_exec()]
    machine = host_facts.machine(subject.environ)
    problems = requirements.problems_of(machine)
    if problems and machine.refusal is None:
        return [_error("bwrap", problem) for problem in problems]
    version = ".".join(map(str, machine.version))
    found = ok("bwrap", f"{version}, {machine.bwrap}")
    made = ok("namespaces", "a sandbox with user, network and pid namespaces can be created")
    refused = [_error("namespaces", problem) for problem in problems]
    return [found, *(refused or [made]), *_settings(machine)]


def _settings(machine: requirements.BwrapSupport) -> list[Finding]:
    shown = [f"{name}={value}" for name, value in machine.settings.items() if value]
    return [ok("sysctl", ", ".join(shown))] if shown else []


def _check_sandbox_exec() -> Finding:
    if SANDBOX_EXEC.exists():
        return ok("sandbox-exec", str(SANDBOX_EXEC))
    return error("sandbox-exec", "not found; `run` needs it", "use macOS 10.5 or newer")


def check_seccomp(subject: Subject) -> list[Finding]:
    """Check that the kernel filters system calls, and that there is a filter for this machine."""
    if subject.platform == "darwin":
        return []
    if b"Seccomp:" not in _STATUS.read_bytes():
        fix = "use a kernel with CONFIG_SECCOMP_FILTER, or run --without-seccomp"
        return [error("seccomp", "the kernel has no system call filter", fix)]
    problem = seccomp.problem()
    if problem is not None:
        return [_error("seccomp", problem)]
    return [ok("seccomp", f"the kernel filters system calls; filter for {os.uname().machine}")]


def _error(name: str, problem: ClaudeProxyError) -> Finding:
    where = f" ({problem.where})" if problem.where else ""
    return error(name, f"{problem.what}{where}", problem.fix)


def check_terminal(subject: Subject) -> list[Finding]:
    """Report whether the kernel itself denies typing into the terminal."""
    if subject.platform == "darwin":
        return []
    name = "terminal"
    if _TIOCSTI.exists() and _TIOCSTI.read_text("ascii").strip() == "0":
        return [ok(name, "the kernel denies typing into a terminal (TIOCSTI)")]
    return [ok(name, "the kernel allows typing into a terminal (TIOCSTI); `run` denies it")]


def check_claude(subject: Subject) -> list[Finding]:
    """Report the version of Claude Code."""
    return [_version_of("Claude Code", "claude", subject, "other agents do not need it")]


def _version_of(name: str, program: str, subject: Subject, without: str) -> Finding:
    found = shutil.which(program, path=subject.environ.get("PATH"))
    if found is None:
        return ok(name, f"not installed ({without})")
    said = run_program([found, "--version"], environ=subject.environ, limit_s=_LIMIT_S)
    version = _VERSION.search(said.stdout)
    if said.code != 0 or version is None:
        message = words_of(said.stderr) or "it does not print its version"
        return warning(name, f"{found}: {message}", f"find out why `{program} --version` fails")
    return ok(name, f"{version[0]}, {found}")
