"""Data types of a sandbox: its specification, facts about the host, and the resulting plan; pure.

`host_facts` gathers the facts; the planner decides from them and the specification alone.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import Enum, StrEnum
from pathlib import Path

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.plan.git_facts import GitMounts

# Placeholders for descriptor numbers, which are filled in when bwrap is started. Only the words
# after --seccomp, --file and so on are replaced, so that nothing else can be taken for one.
SECCOMP = "{seccomp}"
INFO = "{info}"
BLOCK = "{block}"

_DESCRIPTOR_OPTIONS = frozenset(
    {"--seccomp", "--info-fd", "--block-fd", "--file", "--ro-bind-data"}
)
KEPT = "state"  # in one agent home: what runs see and write

_SHOWN_SECRET = "***"  # noqa: S105 - printed instead of a value


class UnixSockets(StrEnum):
    """Which Unix sockets the processes of a sandbox may connect and bind."""

    NONE = "none"
    PRIVATE = "private"  # in file systems and under abstract names that are the sandbox's own


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of command needs besides the project; paths are relative to $HOME."""

    name: str
    description: str = ""
    commands: frozenset[str] = frozenset()  # the profile of COMMANDs with these names
    policy: str | None = None  # the policy of a run that names none; None: the allowlist
    home_state: tuple[str, ...] = ()  # the run's own, kept per project; "dir/" is a directory
    home_seed: tuple[str, ...] = ()  # what of the user's is copied there at the first run
    home_login: tuple[str, ...] = ()  # the same, unless the proxy injects a credential
    login_hosts: tuple[str, ...] = ()  # the hosts of such a credential
    home_write: tuple[str, ...] = ()  # the user's own; "dir/" is a directory; created if missing
    home_read: tuple[str, ...] = ()
    home_protect: tuple[str, ...] = ()  # read-only below home_write: programs outside obey it
    pass_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()
    protect: tuple[str, ...] = ()  # read-only in the project: programs outside run or obey it
    unattended: tuple[str, ...] = ()  # arguments by which the command asks no questions
    callback_ports: tuple[int, ...] = ()  # macOS: where a login in the browser returns to


@dataclass(frozen=True, slots=True)
class CredentialIsolation:
    """Which of the user's credentials stay outside, and what the sandbox has instead."""

    placeholders: tuple[tuple[str, str], ...] = ()  # variables and their values inside
    withheld: frozenset[str] = frozenset()  # variables that are not passed on
    logins: tuple[
        Path, ...
    ] = ()  # files of the user's own logins, never shown: placeholders replace them
    unreadable: tuple[Path, ...] = ()  # sources of credentials: a sandbox that shows one is refused
    unwritable: tuple[Path, ...] = ()  # what decides the value of a credential
    exposed: tuple[Path, ...] = ()  # files that contain a credential and may be visible inside


@dataclass(frozen=True, slots=True)
class FileId:
    """What tells a file from every other one, while it exists."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class ProjectClone:
    """The clone that COMMAND works in, instead of the project."""

    tree: Path
    git: Path


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """How much of the machine a sandbox may use; None: the kernel's own limit."""

    processes: int | None = None  # threads count
    memory: int | None = None  # bytes, of all its processes
    tmpfs: int | None = None  # bytes, of each file system in memory


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What the sandbox of one run must contain."""

    command: tuple[str, ...]
    project: Path
    profile: Profile
    allow_ro: tuple[Path, ...] = ()
    allow_rw: tuple[Path, ...] = ()
    pass_env: tuple[str, ...] = ()
    shell: bool = False  # a shell instead of `command`
    show_home: tuple[Path, ...] = ()
    share_agent_home: bool = False
    network: NetworkMode = NetworkMode.PROXY
    seccomp: bool = True
    unix_sockets: UnixSockets = UnixSockets.PRIVATE
    extra_ro: tuple[Path, ...] = ()  # for `doctor`: its interpreter
    isolation: CredentialIsolation = CredentialIsolation()
    hide: tuple[str, ...] = ()  # from the project's own file: paths within it
    read_only: tuple[str, ...] = ()
    limits: ResourceLimits = ResourceLimits()
    project_id: FileId | None = None  # of the project's directory when the run began
    clone: ProjectClone | None = None  # shown at the project's path, where nothing of it is
    transparent: bool = False  # names that the policy allows have fake addresses

    @property
    def has_proxy(self) -> bool:
        """Whether the proxy is the way out, and the only one."""
        return self.network is NetworkMode.PROXY

    @property
    def unfiltered(self) -> bool:
        """Whether it has the host's own network, which nothing filters."""
        return self.network is NetworkMode.OPEN


class PathKind(Enum):
    """What a path leads to."""

    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"
    OTHER = "other"  # a socket, a device, a pipe, or something that cannot be inspected


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What a path leads to, and where that is."""

    kind: PathKind
    real: Path  # without any symbolic link
    link: str | None = None  # the text, if the path itself is one


@dataclass(frozen=True, slots=True)
class User:
    """The user who runs the sandbox."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True, slots=True)
class Program:
    """The program of COMMAND, and what must be visible so that it works."""

    path: Path  # absolute, as found
    real: Path
    links: tuple[tuple[Path, str], ...] = ()  # the symbolic links on the way to it
    trees: tuple[Path, ...] = ()  # its node_modules, its virtual environment, or only itself


@dataclass(frozen=True, slots=True)
class Worktree:
    """A Git directory outside the project that itself names the project."""

    git: Path
    common: Path


@dataclass(frozen=True, slots=True)
class ObeyedLink:
    """A path that programs outside obey, and that leads elsewhere by symbolic links."""

    path: Path
    through: tuple[Path, ...]  # each link on the way, by its own real path
    target: Path  # where the last one leads, whether that exists or not
    of_git: bool = True  # or of an editor, an agent, a build tool


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts about this host; `paths` covers all paths of `planner.paths_to_inspect`."""

    user: User
    environ: Mapping[str, str]
    bwrap: Path
    bwrap_version: tuple[int, ...]
    confdir: Path
    statedir: Path
    run_directory: Path
    paths: Mapping[Path, PathInfo]
    # The names in each directory of the system that contains something that is not shown.
    listings: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    etc: frozenset[str] = frozenset()  # the names in /etc
    program: Program | None = None
    worktree: Worktree | None = None
    git: GitMounts = field(default_factory=GitMounts)  # the run's own Git directories
    git_directories: tuple[Path, ...] = ()  # of the project and its submodules
    hooks: tuple[
        Path, ...
    ] = ()  # what settings of Git name in the project: hooks, includes, scripts
    links: tuple[ObeyedLink, ...] = ()  # in what programs outside obey
    default_signal: Path | None = None  # an `env` that has --default-signal
    shown: Mapping[str, bytes] = field(default_factory=dict)  # the files of /run/claude-proxy
    followed: Path | None = None  # the directory of the allowlist's copy, if that follows the list
    # Of each directory of certificates: the names in it, and the text of those that are links.
    certificates: Mapping[Path, Mapping[str, str | None]] = field(default_factory=dict)
    rewritten: Mapping[Path, bytes] = field(
        default_factory=dict
    )  # files of the home, without the credentials in them
    resolver: Mapping[str, bytes] = field(
        default_factory=dict
    )  # the host's files for name resolution
    notes: tuple[str, ...] = ()  # for the user


class MountKind(StrEnum):
    """How something is mounted or created inside, by the option of bwrap."""

    READ = "--ro-bind"
    WRITE = "--bind"
    EMPTY = "--tmpfs"
    FILE = "--file"  # from a descriptor, into a directory that becomes read-only later
    BLANK = "--ro-bind-data"  # from a descriptor, over an existing file
    LINK = "--symlink"
    PROC = "--proc"
    DEV = "--dev"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount inside."""

    kind: MountKind
    at: Path
    source: Path | str | None = None
    mode: str | None = None
    sealed: bool = False  # read-only after all mounts are made

    @property
    def shows(self) -> bool:
        """Whether something of the host is visible here."""
        return self.kind in {MountKind.READ, MountKind.WRITE}


class GuardKind(StrEnum):
    """What is mounted on a guarded entry; `bubblewrap.guarded_entries` has the same words."""

    READ = "read"  # the entry itself, read-only
    HIDE = "hide"  # an empty cover
    PIN = "pin"  # the entry itself, so that it cannot be renamed inside
    OWN = "own"  # something else, which belongs to the run


@dataclass(frozen=True, slots=True)
class GuardedMount:
    """One guarded entry: where it is inside, and the mount from which a path leads to it."""

    kind: GuardKind
    base: Path
    at: Path


@dataclass(frozen=True, slots=True)
class PathToCreate:
    """Something that must exist before the start; if it is missing, the launcher creates it.

    A directory gets mode 0700; a file gets mode 0600 and `content`.
    """

    path: Path
    kind: PathKind
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class WatchedTree:
    """A writable directory in which files that programs outside obey are looked for."""

    path: Path
    whole: bool = False  # an agent's own directory: everything in it is obeyed, except for its data
    programs: bool = False  # each file in it is run by name
    by: str = ""  # who obeys the whole, or runs the programs
    covered: frozenset[Path] = frozenset()  # inside, something else is mounted here


@dataclass(frozen=True, slots=True)
class Seed:
    """A file or directory of the user's that is copied into a new home."""

    name: str  # below the home
    source: Path


def flat_name(name: str) -> str:
    """Return the name under which an entry of a home is kept.

    All entries are beside each other: in one that a run may write, it could put a link in the way
    of another.
    """
    return name.rstrip("/").replace("%", "%25").replace("/", "%2F")


@dataclass(frozen=True, slots=True)
class AgentHome:
    """The home of one project, and what has to be in it before COMMAND starts."""

    directory: Path
    project: Path  # without links
    state: tuple[str, ...]  # what is mounted: "dir/" is a directory, else a file
    seeds: tuple[Seed, ...] = ()
    logins: tuple[Seed, ...] = ()  # copied, and again after the user has renewed them
    withheld: tuple[str, ...] = ()  # logins that stay outside: a copy of an earlier run is removed
    exposed: tuple[Path, ...] = ()  # files that contain a credential that stays outside
    mount_points: tuple[str, ...] = ()  # in what is kept, where something else is mounted
    environ: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, name: str) -> Path:
        """Return the path on the host of one entry of `state`."""
        return self.directory / KEPT / flat_name(name)


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """How bwrap is started; `files` are contents that it reads from descriptors."""

    bwrap: Path
    project: Path  # without any symbolic link
    options: tuple[str, ...]
    mounts: tuple[Mount, ...]  # as in the options, in order
    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes]  # by placeholder
    limits: ResourceLimits
    to_create: tuple[PathToCreate, ...]
    masked: tuple[Path, ...]
    watched: tuple[Path, ...]  # could not be protected: compared before and after
    watched_trees: tuple[WatchedTree, ...]  # the same, for files that may be anywhere in them
    secrets: frozenset[str]  # names of variables whose values are not printed
    withheld: frozenset[str]  # names of variables that hold credentials and stay outside
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    agent_home: AgentHome | None = None
    guarded: tuple[GuardedMount, ...] = ()  # what the host could take away during the run

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line, with placeholders for descriptors and with all values."""
        return (str(self.bwrap), *self.options, *self._setenv(), "--", *self.command)

    def start(
        self, descriptors: Mapping[str, int], args_descriptor: int
    ) -> tuple[bytes, list[str]]:
        """Return what to write to `args_descriptor`, and the argv that reads it from there.

        Options go through a descriptor, because every user of the host may read a command line and
        they contain values of variables (secrets stay outside).
        """
        options = [*self._filled(descriptors), *self._setenv()]
        data = b"".join(option.encode("utf-8", "surrogateescape") + b"\0" for option in options)
        return data, [str(self.bwrap), "--args", str(args_descriptor), "--", *self.command]

    def lines(self) -> Iterator[str]:
        """Yield what --dry-run prints: the command line, one option a line, without secrets."""
        if self.limits.processes is not None:
            yield f"# at most {self.limits.processes} processes and threads (--max-processes)"
        if self.limits.memory is not None:
            yield f"# at most {self.limits.memory} bytes of memory (--max-memory): looked at, and"
            yield "# the process that uses the most is killed"
        words = [*self.options, *self._setenv(hidden=True), "--"]
        yield f"{shlex.quote(str(self.bwrap))} \\"
        line: list[str] = []
        for word in words:
            if word.startswith("--") and line:
                yield f"  {shlex.join(line)} \\"
                line = []
            line.append(word)
        yield f"  {shlex.join((*line, *self.command))}"

    def _filled(self, descriptors: Mapping[str, int]) -> Iterator[str]:
        before = ""
        for option in self.options:
            yield str(descriptors[option]) if before in _DESCRIPTOR_OPTIONS else option
            before = option

    def _setenv(self, *, hidden: bool = False) -> Iterator[str]:
        for name, value in self.environment.items():
            secret = hidden and name in self.secrets
            yield from ("--setenv", name, _SHOWN_SECRET if secret else value)
