"""Container engines: which are here, by which way a container gets its network, what is in the way.

Containers are optional, so what keeps one engine from working is a note, and no warning, as long as
another works. `try_engines` starts a container that does nothing: the runtime,
control groups and limits show their trouble only then.
"""

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level, error, ok, warning
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import holder_image, ways_in
from claude_proxy.sandbox.container.engine import INSTALL, Engine, EngineError
from claude_proxy.sandbox.container.plan import way_choice
from claude_proxy.sandbox.container.plan.model import EngineFacts, EngineKind

_RANGES: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
_HELPERS: Final = ("newuidmap", "newgidmap")
_TRIAL: Final = f"claude-proxy-doctor-{os.getpid()}"


def check_engines(subject: Subject) -> list[Finding]:
    """Report each engine: its version, its way, and what is missing for it."""
    if subject.platform != "linux":
        return [ok("containers", "they need Linux; `claude-proxy run` does not")]
    found = {kind: [*_of_engine(kind, subject)] for kind in EngineKind}
    installed = [found[kind] for kind in found if _program(kind, subject) is not None]
    # One engine is enough.
    usable = any(all(each.level is Level.OK for each in findings) for findings in installed)
    every = [each for findings in found.values() for each in findings]
    return [_noted(each) for each in every] if usable else every


def _noted(finding: Finding) -> Finding:
    return finding if finding.level is Level.OK else replace(finding, level=Level.NOTE)


def try_engines(subject: Subject) -> list[Finding]:
    """Start a container that does nothing with each engine; what fails is an error with its fix."""
    installed = [kind for kind in EngineKind if _program(kind, subject) is not None]
    if not installed:
        return [error("containers", "neither podman nor docker is installed", INSTALL)]
    return [_try(kind, subject) for kind in installed]


def _of_engine(kind: EngineKind, subject: Subject) -> Iterator[Finding]:
    program = _program(kind, subject)
    if program is None:
        yield ok(kind, "not installed (only containers need it)")
        return
    try:
        facts = Engine.find(kind, subject.environ).facts()
        can_wait = holder_image.can_wait(os.uname().machine)
        way = way_choice.choose(facts, None, can_wait=can_wait)
    except ClaudeProxyError as problem:
        yield _cannot(kind, program, problem)
        return
    rights = "rootless" if facts.rootless else "root's"
    runtime = f", runtime {facts.runtime}" if facts.runtime else ""
    yield ok(kind, f"{facts.version}, {program}, {rights}{runtime}; the way of containers: {way}")
    yield from _missing(kind, facts, subject)


def _missing(kind: EngineKind, facts: EngineFacts, subject: Subject) -> Iterator[Finding]:
    if not facts.rootless:
        return
    if kind is EngineKind.PODMAN and os.geteuid() != 0:
        missing = [name for name in _HELPERS if _which(name, subject) is None]
        if missing:
            yield warning(
                kind,
                f"{' and '.join(missing)} missing, which containers of a user without root need",
                "apt install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)",
            )
        user = pwd.getpwuid(os.geteuid()).pw_name
        without = [str(path) for path in _RANGES if not has_range(path, user, os.geteuid())]
        if without:
            yield warning(
                kind,
                f"{user} has no range of ids for containers in {' and '.join(without)}",
                "have root add one: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {user}",
            )
    if not facts.limits:
        yield warning(
            kind,
            "memory, processes and processors of containers cannot be limited by this user",
            "use control groups of version 2 (systemd.unified_cgroup_hierarchy=1 on the kernel's "
            "command line), delegated to the user: systemctl enable --now user@$(id -u)",
        )


def has_range(path: Path, user: str, uid: int) -> bool:
    """Tell whether subuid(5) or subgid(5) gives a user any ids."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    fields = (line.split(":") for line in lines)
    return any(len(each) > 2 and each[0] in {user, str(uid)} for each in fields)  # noqa: PLR2004


def _cannot(kind: EngineKind, program: str, problem: ClaudeProxyError) -> Finding:
    where = f" ({problem.where})" if problem.where else ""
    return warning(kind, f"{program} cannot be used: {problem.what}{where}", problem.fix)


def _try(kind: EngineKind, subject: Subject) -> Finding:
    try:
        engine = Engine.find(kind, subject.environ)
        facts = engine.facts()
        machine = os.uname().machine
        way = way_choice.choose(facts, None, can_wait=holder_image.can_wait(machine))
        if not holder_image.can_wait(machine):
            return ok(kind, f"not tried: there is no program for {machine} that only waits")
        _start_one(engine, machine)
    except ClaudeProxyError as problem:
        where = f" ({problem.where})" if problem.where else ""
        return error(kind, f"{problem.what}{where}", problem.fix)
    return ok(kind, f"a container without network starts; the way of containers: {way}")


def _start_one(engine: Engine, machine: str) -> None:
    """Start a container that only waits, and remove it; EngineError if that fails."""
    ways_in.ensure_image(engine, holder_image.WAITING_IMAGE, holder_image.waiting_image(machine))
    hard = ("--network", "none", "--cap-drop", "ALL", "--read-only", "--pull", "never")
    words = ("run", "--detach", "--rm", "--name", _TRIAL, *hard, "--stop-signal", "KILL")
    try:
        engine.call(*words, holder_image.WAITING_IMAGE, holder_image.PROGRAM)
    finally:
        with contextlib.suppress(EngineError):  # it was never made, or is gone already
            engine.remove(_TRIAL, force=True)


def _program(kind: EngineKind, subject: Subject) -> str | None:
    return _which(kind.value, subject)


def _which(name: str, subject: Subject) -> str | None:
    return shutil.which(name, path=subject.environ.get("PATH"))
