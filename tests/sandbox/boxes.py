"""Builds specifications and host facts, and starts bwrap on a plan without proxy or relay."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from claude_proxy.sandbox import agent_home, host_facts
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.plan.model import (
    BLOCK,
    INFO,
    SECCOMP,
    HostFacts,
    PathInfo,
    PathKind,
    Profile,
    SandboxPlan,
    SandboxSpec,
    User,
)
from claude_proxy.sandbox.plan.planner import plan_sandbox

HOME = Path("/home/ann")
PROJECT = HOME / "project"
CONFDIR = HOME / ".config/claude-proxy"
STATEDIR = HOME / ".local/state/claude-proxy"
RUNDIR = Path("/run/user/1000/claude-proxy/run-1")
SHELL = Profile("shell", home_read=(".gitconfig",))
# As with --share-agent-home, or a profile of the user's own.
SHARED = Profile("claude", home_write=(".claude/", ".claude.json"))
CLAUDE = Profile("claude", home_state=(".claude/", ".claude.json"))

DIRECTORIES = (HOME, PROJECT, CONFDIR, STATEDIR, RUNDIR, Path("/usr"), Path("/etc/ssl/certs"))
FILES = (Path("/usr/bin/true"), Path("/usr/bin/bash"))


class Paths(dict[Path, PathInfo]):
    """What lies where: nothing, where nothing was put."""

    def __missing__(self, path: Path) -> PathInfo:
        return PathInfo(PathKind.MISSING, path)


def paths(
    *directories: Path, files: Sequence[Path] = (), links: Mapping[Path, Path] | None = None
) -> Paths:
    """Return a machine with these and the usual; a link has the kind of what it leads to."""
    found = Paths()
    for path in (*DIRECTORIES, *directories):
        found[path] = PathInfo(PathKind.DIRECTORY, path)
    for path in (*FILES, *files):
        found[path] = PathInfo(PathKind.FILE, path)
    for path, target in (links or {}).items():
        found[path] = PathInfo(found[target].kind, target, str(target))
    return found


def a_spec(**changes: object) -> SandboxSpec:
    return replace(SandboxSpec(("/usr/bin/true",), PROJECT, SHELL), **changes)  # type: ignore[arg-type]


def some_facts(found: Paths | None = None, **changes: object) -> HostFacts:
    usual = HostFacts(
        user=User("ann", 1000, 1000, HOME),
        environ={"PATH": "/usr/bin:/bin", "TERM": "xterm"},
        bwrap=Path("/usr/bin/bwrap"),
        bwrap_version=(0, 8, 0),
        confdir=CONFDIR,
        statedir=STATEDIR,
        run_directory=RUNDIR,
        paths=paths() if found is None else found,
        shown={"ca.pem": b"a certificate"},
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    """Make a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Done:
    """How a command in a sandbox ended."""

    code: int
    out: str
    err: str


@dataclass
class Box:
    """A home and a project in it, and a way to run commands in its sandbox."""

    home: Path
    project: Path
    environ: dict[str, str] = field(default_factory=dict)

    def spec(self, *command: str, **changes: object) -> SandboxSpec:
        made = SandboxSpec(command, self.project, SHELL)
        return replace(made, **changes)  # type: ignore[arg-type]

    def plan(self, spec: SandboxSpec) -> SandboxPlan:
        return plan_sandbox(spec, self.facts(spec))

    def facts(self, spec: SandboxSpec) -> HostFacts:
        return host_facts.gather(
            spec,
            environ={"PATH": os.environ["PATH"], "HOME": str(self.home), **self.environ},
            confdir=self.home / ".config/claude-proxy",
            statedir=self.home / ".local/state/claude-proxy",
            run_directory=self.home / "rundir",
            shown={"ca.pem": b"a certificate"},
        )

    def run(self, *command: str, **changes: object) -> Done:
        return started(self.plan(self.spec(*command, **changes)))

    def sh(self, script: str, **changes: object) -> Done:
        return self.run("/bin/sh", "-c", script, **changes)


def a_box(directory: Path) -> Box:
    """Make a home with secrets in it, and a project."""
    home = directory / "home"
    project = home / "project"
    for name in (".ssh", ".config/claude-proxy", ".local/state/claude-proxy", "other", "project"):
        (home / name).mkdir(parents=True)
    for name in (".ssh/id", ".npmrc", ".config/claude-proxy/key", "other/file", ".bash_history"):
        (home / name).write_text("SECRET\n")
    return Box(home, project)


def started(planned: SandboxPlan, *, wait_s: float = 120) -> Done:
    """Run a plan to its end, with its output taken."""
    for missing in planned.to_create:
        if missing.kind is PathKind.DIRECTORY:
            missing.path.mkdir(exist_ok=True)
        else:
            missing.path.write_bytes(missing.content)
    with _home_of(planned), _descriptors(planned) as descriptors:
        data, _ = planned.start(descriptors, 0)
        arguments = _memory(data)
        try:
            argv = planned.start(descriptors, arguments)[1]
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=wait_s,
                check=False,
                env={},
                pass_fds=(*descriptors.values(), arguments),
            )
        finally:
            os.close(arguments)
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def held(planned: SandboxPlan) -> Iterator[int]:
    """Start a plan without letting its command start; lend the process of the sandbox."""
    reading, writing = os.pipe()
    blocked, gate = os.pipe()
    with _home_of(planned), _descriptors(planned) as descriptors:
        theirs = descriptors | {INFO: writing, BLOCK: blocked}
        arguments = _memory(planned.start(theirs, 0)[0])
        argv = planned.start(theirs, arguments)[1]
        process = subprocess.Popen(argv, env={}, pass_fds=(*theirs.values(), arguments))
    for descriptor in (writing, blocked, arguments):
        os.close(descriptor)
    try:
        yield int(json.loads(_whole(reading))["child-pid"])
    finally:
        process.kill()
        process.wait()
        os.close(gate)


def _home_of(planned: SandboxPlan) -> AbstractContextManager[None]:
    if planned.agent_home is None:
        return nullcontext()
    return agent_home.prepared(planned.agent_home, lambda _: None)


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        said = b""
        while b"}" not in said and (piece := file.read1()):
            said += piece
    return said


@contextmanager
def _descriptors(planned: SandboxPlan) -> Iterator[dict[str, int]]:
    found = {name: _memory(content) for name, content in planned.files.items()}
    # Information goes nowhere, and there is nothing to wait for.
    found |= {INFO: os.open(os.devnull, os.O_WRONLY), BLOCK: _memory(b"go")}
    if SECCOMP in planned.options:
        found[SECCOMP] = _memory(seccomp.program())
    try:
        yield found
    finally:
        for descriptor in found.values():
            os.close(descriptor)


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("content", 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
