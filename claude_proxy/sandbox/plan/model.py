"""Holds what a run asks for, what the machine says, and the plan that comes of both; pure.

Values only: `facts` fills in what was seen, `plan` decides on nothing else.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path

# The options of bwrap that name a descriptor; whoever starts it puts the number in. They cannot be
# mistaken for anything else: only the words after --seccomp, --file and so on are looked at.
SECCOMP = "{seccomp}"
INFO = "{info}"
BLOCK = "{block}"

_DESCRIPTOR_OPTIONS = frozenset(
    {"--seccomp", "--info-fd", "--block-fd", "--file", "--ro-bind-data"}
)
_SHOWN_SECRET = "***"  # noqa: S105 - what stands in the place of one


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of command needs besides the project; paths are relative to the home."""

    name: str
    description: str = ""
    commands: frozenset[str] = frozenset()  # chosen for COMMANDs of these names
    home_write: tuple[str, ...] = ()  # "dir/" is a directory, else a file; made if missing
    home_read: tuple[str, ...] = ()
    home_protect: tuple[str, ...] = ()  # below what is written: not to be, as it is obeyed outside
    pass_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()
    protect: tuple[str, ...] = ()  # in the project: not to be written, as others run or obey it
    unattended: tuple[str, ...] = ()  # arguments that switch the command's own questions off
    callback_ports: tuple[int, ...] = ()  # macOS: where a login in the browser comes back to


@dataclass(frozen=True, slots=True)
class CredentialIsolation:
    """What of the user's credentials stays outside, and what stands inside in its place."""

    placeholders: tuple[tuple[str, str], ...] = ()  # variables, and what they hold inside
    withheld: frozenset[str] = frozenset()  # variables that are not handed on
    hidden: tuple[Path, ...] = ()  # logins of the user's own that the placeholders stand for
    unseen: tuple[Path, ...] = ()  # where credentials are read from: not to be shown
    unwritten: tuple[Path, ...] = ()  # what says which credential is the right one, likewise
    bare: tuple[Path, ...] = ()  # files in which one stands, wherever it is read from


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What one run asks for."""

    command: tuple[str, ...]
    project: Path
    profile: Profile
    allow_ro: tuple[Path, ...] = ()
    allow_rw: tuple[Path, ...] = ()
    pass_env: tuple[str, ...] = ()
    shell: bool = False  # a shell in the place of `command`
    keep_home: bool = False
    network: bool = True  # False: nothing but lo
    unfiltered: bool = False  # the machine's own network, in the place of the proxy
    seccomp: bool = True
    extra_ro: tuple[Path, ...] = ()  # of our own (doctor's interpreter)
    isolation: CredentialIsolation = CredentialIsolation()
    hide: tuple[str, ...] = ()  # of the project's own file: paths within it
    read_only: tuple[str, ...] = ()


class PathKind(Enum):
    """What a path leads to."""

    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"
    OTHER = "other"  # a socket, a device, a pipe, or something that may not be looked at


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What lies at a path."""

    kind: PathKind
    real: Path  # without any symbolic link
    link: str | None = None  # the text, if the path itself is one


@dataclass(frozen=True, slots=True)
class User:
    """Whose files and whose environment."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True, slots=True)
class Program:
    """A COMMAND that was found, and what it needs to be found inside."""

    path: Path  # absolute, as it was found
    real: Path
    links: tuple[tuple[Path, str], ...] = ()  # the symbolic links on the way to it
    trees: tuple[Path, ...] = ()  # its node_modules, its virtual environment, or it alone


@dataclass(frozen=True, slots=True)
class Worktree:
    """A Git directory outside the project that vouches for it: it names the project itself."""

    git: Path
    common: Path


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was seen on this machine; `paths` answers every question of `plan.questions`."""

    user: User
    environ: Mapping[str, str]
    bwrap: Path
    bwrap_version: tuple[int, ...]
    confdir: Path
    statedir: Path
    run_directory: Path
    paths: Mapping[Path, PathInfo]
    etc: frozenset[str] = frozenset()  # the names in /etc
    program: Program | None = None
    worktree: Worktree | None = None
    git_directories: tuple[Path, ...] = ()  # of the project and its submodules
    hooks: tuple[Path, ...] = ()  # where core.hooksPath leads
    default_signal: Path | None = None  # an `env` that knows --default-signal
    shown: Mapping[str, bytes] = field(default_factory=dict)  # the files of /run/claude-proxy
    resolver: Mapping[str, bytes] = field(default_factory=dict)  # how this machine finds names
    notes: tuple[str, ...] = ()  # what the user should be told


class MountKind(StrEnum):
    """A way to put something at a place inside."""

    READ = "--ro-bind"
    WRITE = "--bind"
    EMPTY = "--tmpfs"
    FILE = "--file"  # from a descriptor, into a directory that is made read-only later
    BLANK = "--ro-bind-data"  # the same over something that lies there
    LINK = "--symlink"
    PROC = "--proc"
    DEV = "--dev"


@dataclass(frozen=True, slots=True)
class Mount:
    """One thing at one place inside."""

    how: MountKind
    at: Path
    source: Path | str | None = None
    mode: str | None = None
    sealed: bool = False  # read-only once all is in place

    @property
    def shows(self) -> bool:
        """Tell whether something of the machine is seen here."""
        return self.how in {MountKind.READ, MountKind.WRITE}


@dataclass(frozen=True, slots=True)
class PathToCreate:
    """Something that must be there before the start; if it is missing, the launcher makes it.

    For its owner alone: a directory 0700, or a file 0600 with `content`.
    """

    path: Path
    kind: PathKind
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """How bwrap is to be started; `files` are contents that it takes from descriptors."""

    bwrap: Path
    options: tuple[str, ...]
    mounts: tuple[Mount, ...]  # what the options say, in order
    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes]  # by placeholder
    made: tuple[PathToCreate, ...]
    masked: tuple[Path, ...]
    watched: tuple[Path, ...]  # could not be protected: to be compared before and after
    secrets: frozenset[str]  # names of variables whose values are not printed
    withheld: frozenset[str]  # names of those that hold what stays outside
    masked_logins: tuple[tuple[Path, Path], ...]  # logins, by where they are outside and inside
    notes: tuple[str, ...]

    @property
    def argv(self) -> tuple[str, ...]:
        """Return the whole command line, with placeholders for descriptors and with all values."""
        return (str(self.bwrap), *self.options, *self._setenv(), "--", *self.command)

    def start(
        self, descriptors: Mapping[str, int], args_descriptor: int
    ) -> tuple[bytes, list[str]]:
        """Return what to write to `args_descriptor`, and the argv that reads it from there.

        Options go by a descriptor, as every user of the machine may read a command line: values of
        variables stand among them (ninth law).
        """
        options = [*self._filled(descriptors), *self._setenv()]
        data = b"".join(option.encode("utf-8", "surrogateescape") + b"\0" for option in options)
        return data, [str(self.bwrap), "--args", str(args_descriptor), "--", *self.command]

    def lines(self) -> Iterator[str]:
        """Yield what --dry-run prints: a command line, one option a line, without secrets."""
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
