"""Data types of a container: what is asked for, facts about engine and image, and the plan; pure.

The planner decides from them alone. Law kept: secrets stay outside: no value of a variable is a
word of a command line, which every user of the machine may read.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.run_spec import RunSpec

WORKSPACE = PurePosixPath("/workspace")
LABEL = "claude-proxy"
NAME_LABEL = f"{LABEL}.name"
VERSION_LABEL = f"{LABEL}.version"
PLAN_LABEL = f"{LABEL}.plan"

_SHOWN_SECRET = "***"  # noqa: S105 - printed instead of a value


class EngineKind(StrEnum):
    """The programs that can make a container."""

    PODMAN = "podman"
    DOCKER = "docker"


class Way(StrEnum):
    """How the proxy's sockets come into a container's network namespace."""

    ENTER = "enter"  # made there from outside, before CMD runs
    PAUSE = "pause"  # made in a tiny container whose namespace the workload joins
    INSIDE = "inside"  # by a relay that is mounted into the container


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container, as the command line asks for it."""

    run: RunSpec  # `run.sandbox.command` is CMD; empty: the image's own
    image: str
    name: str
    detach: bool = False
    remove: bool = False  # when it has ended
    terminal: bool = False
    interactive: bool = True  # CMD reads standard input
    yolo: bool = False
    engine: EngineKind | None = None  # None: the first one that is installed
    way: Way | None = None  # None: the best one that the engine allows
    cpus: float | None = None
    words: tuple[str, ...] = ()  # of the command line, from which `start` reads the spec again


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is, and what it can do for this user."""

    kind: EngineKind
    program: Path
    version: str
    rootless: bool
    uid: int
    gid: int
    has_init: bool = False  # a first process that collects orphans, for --init
    init: Path | None = None  # another static program for that, of this machine
    limits: bool = True  # whether memory, processes and processors can be limited
    selinux: bool = False
    runtime: str = ""
    elsewhere: str = ""  # where its containers run, if not on the kernel of this machine
    seccomp: bytes = b""  # the engine's own profile, as JSON; empty: unknown
    hooks: tuple[Path, ...] = ()  # directories of the hooks that the system has set up


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is, and what is in it."""

    name: str
    id: str
    digest: str
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    stop_signal: str = ""
    homes: Mapping[int, str] = field(default_factory=dict)  # by user id, from its /etc/passwd
    passwd: str | None = ""  # the text of that; None: it is not a file that could be read
    paths: frozenset[str] = frozenset()  # those that exist, of `inspected_paths`


@dataclass(frozen=True, slots=True)
class ContainerMount:
    """One mount of a container; without a source it is an empty file system."""

    at: PurePosixPath
    source: Path | str | None = None  # a path of the host, or a volume: its name, or "" for none
    writable: bool = False
    mode: str = ""  # of an empty file system
    size: int | None = None  # bytes, of an empty file system


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """How a container is made; `files` are written into its directory first."""

    way: Way
    engine: Path
    kind: EngineKind
    name: str
    options: tuple[str, ...]  # of create, but for those about its environment and its mounts
    mounts: tuple[ContainerMount, ...]
    mount_options: tuple[str, ...]
    image: str  # the id: a name could lead to another image by now
    image_name: str
    image_digest: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: frozenset[str]  # names of variables whose values are not printed
    directory: Path
    files: Mapping[str, bytes]  # by their names in the container's directory
    home: PurePosixPath
    volume: str
    user: str
    policy: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    withheld: frozenset[str] = frozenset()  # names of variables that hold credentials
    beside: tuple[str, ...] = ()  # the words of `create` of the container that holds its network

    @property
    def words(self) -> tuple[str, ...]:
        """What follows `create` or `run`, but for the environment."""
        return (*self.options, *self.mount_options, self.image, *self.command)

    @property
    def create(self) -> tuple[str, ...]:
        """The words after the engine's program that create it."""
        return ("create", *self.words)

    def lines(self) -> Iterator[str]:
        """Yield what --dry-run prints: the way, the command line, the variables, the policy."""
        yield f"# way: {self.way} ({_WAYS[self.way]})"
        yield f"# image: {self.image_name} ({self.image_digest or self.image})"
        if self.policy:
            yield f"# policy: {self.policy}"
        if self.beside:
            yield f"{shlex.quote(str(self.engine))} create {shlex.join(self.beside)}"
        yield f"{shlex.quote(str(self.engine))} create \\"
        line: list[str] = []
        for word in (*self.options, *self.mount_options):
            if word.startswith("-") and line:
                yield f"  {shlex.join(line)} \\"
                line = []
            line.append(word)
        if line:
            yield f"  {shlex.join(line)} \\"
        yield f"  {shlex.join((self.image, *self.command))}"
        for name in sorted(self.environment):
            value = _SHOWN_SECRET if name in self.secrets else self.environment[name]
            yield f"# variable: {name}={shlex.quote(value)}"


_WAYS = {
    Way.ENTER: "the sockets are made in its network namespace from outside",
    Way.PAUSE: "another container makes the sockets, whose network namespace this one joins",
    Way.INSIDE: "a relay that is mounted into it starts the command",
}


class ContainerStatus(StrEnum):
    """What a container is doing, for all engines in the same words."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container, as the engine describes it."""

    id: str
    name: str
    status: ContainerStatus
    pid: int  # of its first process, on this machine; 0: none
    exit_code: int
    image: str
    labels: Mapping[str, str]
    user: str = ""
    started: str = ""  # as the engine writes it
    stop_signal: str = ""  # its name or number; "": SIGTERM
