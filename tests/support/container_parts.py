"""Parts of a container for tests: what is asked for, an engine, an image, a plan of a run.

`fake_engine` is a program that answers as podman does, from a file of cases.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.container.plan.model import (
    ContainerPlan,
    ContainerSpec,
    EngineFacts,
    EngineKind,
    ImageFacts,
)
from claude_proxy.sandbox.container.plan.planner import ContainerPlace, plan_container
from claude_proxy.sandbox.plan.model import (
    Mount,
    MountKind,
    Profile,
    ResourceLimits,
    SandboxPlan,
    SandboxSpec,
)
from claude_proxy.sandbox.run_spec import RunSpec

PROJECT = Path("/home/me/project")
PROFILE: Mapping[str, object] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "syscalls": [
        {
            "names": ["read", "socketcall", "io_uring_setup", "mount", "socket"],
            "action": "SCMP_ACT_ALLOW",
        },
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": []},
        {"names": ["bpf", "mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}
FACTS = EngineFacts(
    EngineKind.PODMAN,
    Path("/usr/bin/podman"),
    "4.3.1",
    rootless=False,
    uid=0,
    gid=0,
    seccomp=json.dumps(PROFILE).encode(),
)
ROOTLESS = replace(FACTS, rootless=True, uid=1000, gid=1000)
IMAGE = ImageFacts(
    "box",
    "sha256:1d",
    "sha256:d16e57",
    homes={1000: "/home/somebody", 0: "/root", 1001: "/"},
    paths=frozenset({"/etc/ssl/certs/ca-certificates.crt", "/etc/apt/apt.conf.d"}),
)
PLACE = ContainerPlace(Path("/state/containers/web"), (1000, 1000), "1.0", "claude")
MOUNTS = (
    Mount(MountKind.READ, Path("/usr"), Path("/usr")),
    Mount(MountKind.WRITE, PROJECT, PROJECT),
    Mount(MountKind.READ, PROJECT / ".mcp.json", PROJECT / ".mcp.json"),
    Mount(MountKind.EMPTY, PROJECT / "private", mode="0555"),
    Mount(MountKind.BLANK, PROJECT / ".env", "{blank}"),
)


def a_sandbox(**changes: object) -> SandboxSpec:
    """Return what a container's run asks for."""
    spec = SandboxSpec(("sh", "-c", "exit 1"), PROJECT, Profile("shell"))
    limits = ResourceLimits(processes=99, memory=1 << 30, tmpfs=1 << 20)
    return replace(spec, limits=limits, **changes)  # type: ignore[arg-type]


def a_spec(sandbox: SandboxSpec | None = None, **changes: object) -> ContainerSpec:
    """Return a container that is asked for."""
    settings = Settings(Path("/conf/allowlist.yaml"), Path("/conf"), Path("/state"))
    spec = ContainerSpec(RunSpec(sandbox or a_sandbox(), settings), "box", "web")
    return replace(spec, **changes)  # type: ignore[arg-type]


def a_run_plan(*mounts: Mount, **environment: str) -> SandboxPlan:
    """Return the plan of a run of the same project."""
    return SandboxPlan(
        bwrap=Path("bwrap"),
        project=PROJECT,
        options=(),
        mounts=(*MOUNTS, *mounts),
        command=("sh",),
        environment={"HTTPS_PROXY": "http://127.0.0.1:3128", "PATH": "/host", **environment},
        files={},
        limits=ResourceLimits(),
        to_create=(),
        masked=(),
        watched=(),
        watched_trees=(),
        secrets=frozenset({"TOKEN"}),
        withheld=frozenset(),
        notes=("of the run",),
    )


def a_plan(
    spec: ContainerSpec | None = None,
    facts: EngineFacts = FACTS,
    image: ImageFacts = IMAGE,
    planned: SandboxPlan | None = None,
    place: ContainerPlace = PLACE,
) -> ContainerPlan:
    """Return the plan of a container."""
    return plan_container(spec or a_spec(), facts, image, planned or a_run_plan(), place)


_PROGRAM = """\
#!/usr/bin/env python3
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
cases = json.load(open(os.path.join(here, "cases.json")))
with open(os.path.join(here, "called"), "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
for begin, out, err, code in cases:
    if sys.argv[1 : 1 + len(begin)] == begin:
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
sys.exit(f"Error: no case for {sys.argv[1:]}")
"""

type Case = tuple[list[str], str, str, int]  # first words, output, errors, exit code


def fake_engine(directory: Path, *cases: Case, name: str = "podman") -> Path:
    """Write a program that answers as an engine would; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cases.json").write_text(json.dumps(cases))
    program = directory / name
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    return program


def calls_of(program: Path) -> list[list[str]]:
    """Return the words with which a fake engine was called."""
    file = program.parent / "called"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def inspected(name: str = "web", *, status: str = "running", plan: str = "p", pid: int = 0) -> str:
    """Return what podman says of a container."""
    found = {
        "Id": "1d",
        "Name": name,
        "State": {"Status": status, "Pid": pid, "ExitCode": 3, "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Labels": {"claude-proxy.name": name, "claude-proxy.plan": plan}},
    }
    return json.dumps([found])
