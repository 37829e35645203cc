"""Host facts for the planner: user, paths, the command, Git directories, bwrap.

Law kept: no quiet downgrade. If the machine lacks something that a run needs, that is an error, and
a sandbox that is not mounted as planned runs nothing.
"""

import functools
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import missing_paths
from claude_proxy.sandbox.bubblewrap import mountinfo, seccomp
from claude_proxy.sandbox.executables import find_program
from claude_proxy.sandbox.git_config import GitConfig
from claude_proxy.sandbox.git_directories import git_of, worktree_paths
from claude_proxy.sandbox.obeyed_links import links_of_git, links_of_settings
from claude_proxy.sandbox.plan import (
    git_user_config,
    home_mounts,
    obeyed_files,
    obeyed_links,
    planner,
    protected_paths,
    requirements,
    system_mounts,
    trust_store,
)
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import (
    HostFacts,
    ObeyedLink,
    PathInfo,
    PathKind,
    SandboxPlan,
    SandboxSpec,
    User,
)
from claude_proxy.sandbox.plan.requirements import SANDBOX_EXEC
from claude_proxy.sandbox.safe_read import head_of
from claude_proxy.sandbox.system_listings import listings_of

_ENV = Path("/usr/bin/env")
_PROBE_TIMEOUT_S = 20.0
_PROGRAM_BYTES = 8 * 1024 * 1024  # of a program whose text is looked at
_VERSION = lazy_pattern(rb"\0bubblewrap ([0-9]+(?:\.[0-9]+)+)\0")
_MOUNT_PATIENCE_S = 10.0
_MOUNT_POLL_S = 0.005
_PATHS_SHOWN = 5
_CONFIG_BYTES = 256 * 1024  # of a configuration of Git's
_BWRAP_PLACES = (
    "/usr/bin",
    "/usr/local/bin",
    "/bin",
    "/run/wrappers/bin",
    "/run/current-system/sw/bin",
)
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_TRIAL = (
    *("--unshare-user", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
    *("--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/"),
    *("--proc", "/proc", "--dev", "/dev"),
)


def gather(  # noqa: PLR0913 - separate directories
    spec: SandboxSpec,
    *,
    environ: Mapping[str, str],
    confdir: Path,
    statedir: Path,
    run_directory: Path,
    shown: Mapping[str, bytes],
    followed: Path | None = None,
    git: GitMounts | None = None,
    bwrap: tuple[Path, tuple[int, ...]] | None = None,
) -> HostFacts:
    """Return all facts that the planner decides on.

    `bwrap` is what is not looked for, and its version.
    """
    user = user_of(environ)
    with GitConfig(None if spec.clone else spec.project, environ) as git_config:
        program_of_sandbox, version = bwrap or _bwrap(environ, spec.project)
        worktree, git_directories, notes = (
            (None, (), ()) if spec.clone else git_of(spec.project, (*spec.allow_ro, *spec.allow_rw))
        )
        own = [directory.host for directory in git.directories] if git else []
        hooks, unknown = git_config.paths(user.home, (*git_directories, *own))
    program = find_program(spec.command, environ, spec.project) if not spec.shell else None
    inspected = set(planner.paths_to_inspect(spec, user, environ, confdir, statedir, run_directory))
    inspected |= {path for git in git_directories for path in planner.git_paths_to_inspect(git)}
    inspected |= {*hooks, *(worktree_paths(worktree))}
    inspected |= {Path(f"/etc/{name}") for name in _names_in(Path("/etc"))}
    inspected |= {*program.trees, program.real} if program else set()
    paths = _look(
        inspected, spec.project, *home_mounts.crowded_directories(user.home), *spec.allow_rw
    )
    links, unfollowed = _links(spec, user.home, (*git_directories, *own), hooks, paths)
    paths |= _look({*obeyed_links.paths_to_inspect(links)} - paths.keys())
    ours = (confdir, statedir, run_directory, *protected_paths.of_proxies(user.uid))
    walls = protected_paths.walls(user.home, environ, *ours)
    listings = listings_of(walls, paths)
    entries = {place / name for place, names in listings.items() for name in names}
    return HostFacts(
        user=user,
        environ=dict(environ),
        bwrap=program_of_sandbox,
        bwrap_version=version,
        confdir=confdir,
        statedir=statedir,
        run_directory=run_directory,
        paths=paths | _look(entries - paths.keys()),
        listings=listings,
        rewritten=_rewritten(spec, user.home),
        etc=frozenset(_names_in(Path("/etc"))),
        program=program,
        worktree=worktree,
        git=git or GitMounts(),
        git_directories=git_directories,
        hooks=hooks,
        links=links,
        default_signal=_ENV if _knows_default_signal(_ENV) else None,
        shown=dict(shown),
        followed=followed and Path(os.path.realpath(followed)),
        certificates={path: _links_in(path) for path in trust_store.DIRECTORIES},
        resolver=_resolver() if spec.unfiltered else {},
        notes=(*notes, *unknown, *unfollowed),
    )


def _links(
    spec: SandboxSpec,
    home: Path,
    directories: Iterable[Path],
    named: Iterable[Path],
    paths: Mapping[Path, PathInfo],
) -> tuple[tuple[ObeyedLink, ...], tuple[str, ...]]:
    """Return where links lead in what programs outside obey, and notes on what is unknown."""
    if spec.clone:
        return (), ()
    roots = (spec.project, *spec.allow_rw)
    repositories = (*directories, *(root / ".git" for root in roots))
    of_git = links_of_git(map(Path, map(os.path.realpath, repositories)), named, home)
    names = (*obeyed_files.protected_names(), *spec.profile.protect)
    seen = [paths[path] for root in roots for name in names if (path := root / name) in paths]
    settings = dict.fromkeys(info.real for info in seen if info.kind is PathKind.DIRECTORY)
    found, notes = links_of_settings(settings)
    return (*of_git, *found), notes


def _rewritten(spec: SandboxSpec, home: Path) -> dict[Path, bytes]:
    """Return what is shown of Git's configurations that hold a credential."""
    found = {}
    for name in git_user_config.FILES:
        if name in spec.profile.home_read:
            head = head_of(home / name, _CONFIG_BYTES)
            text = head.decode("utf-8", "surrogateescape")
            shown = git_user_config.without_credentials(text)
            if shown is None and len(head) == _CONFIG_BYTES:
                shown = text  # nobody has looked at the rest
            if shown is not None:
                found[home / name] = shown.encode("utf-8", "surrogateescape")
    return found


def _resolver() -> dict[str, bytes]:
    found = {}
    for name in system_mounts.RESOLVER:
        with suppress(OSError):
            found[name] = Path(name).read_bytes()
    return found


def user_of(environ: Mapping[str, str]) -> User:
    """Return the user who runs this, from the environment and the user database."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
        name, directory = entry.pw_name, entry.pw_dir
    except KeyError:
        name, directory = environ.get("USER") or str(uid), "/"
    home = environ.get("HOME", "")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?", name):
        name = str(uid)
    return User(name, uid, gid, Path(os.path.normpath(home if home.startswith("/") else directory)))


# Paths


def _look(paths: Iterable[Path], *crowded: Path) -> dict[Path, PathInfo]:
    """Look at paths; of those in `crowded` directories, first whether they exist at all."""
    missing: dict[Path, PathInfo] = {}
    for directory in crowded:
        missing |= missing_paths.missing_in(directory, paths)
    # Most have a directory in common, of which the real path need be found only once.
    real_of = functools.cache(os.path.realpath)
    found = {path: missing.get(path) or path_info(path, real_of) for path in paths}
    real = {seen.real for seen in found.values()} - found.keys()
    return found | {path: path_info(path, real_of) for path in real}


def path_info(path: Path, real_of: Callable[[str], str] = os.path.realpath) -> PathInfo:
    """Return what a path leads to; one that cannot be inspected counts as existing (OTHER).

    `real_of` gives the real path of a directory.
    """
    text = str(path)
    try:
        link = os.readlink(text)  # noqa: PTH115 - Path.readlink would normalize the text
    except OSError:
        link = None
    above, _, name = text.rpartition("/")
    if link is None and above and name != "..":
        real = f"{real_of(above).rstrip('/')}/{name}"
    else:
        real = os.path.realpath(text)
    return PathInfo(_kind_of(text), path if real == text else Path(real), link)


def _kind_of(path: str) -> PathKind:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - hundreds are looked at
    except (FileNotFoundError, NotADirectoryError):
        return PathKind.MISSING
    except OSError:
        return PathKind.OTHER
    if stat.S_ISDIR(mode):
        return PathKind.DIRECTORY
    return PathKind.FILE if stat.S_ISREG(mode) else PathKind.OTHER


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def _links_in(directory: Path) -> dict[str, str | None]:
    """Return the names in a directory, and the text of those that are symbolic links."""
    found: dict[str, str | None] = {}
    for name in _names_in(directory):
        found[name] = None
        with suppress(OSError):
            found[name] = os.readlink(f"{directory}/{name}")  # noqa: PTH115 - as it is written
    return found


# Checking the mounts


def check_mounts(planned: SandboxPlan, pid: int) -> None:
    """Wait until the sandbox of process `pid` is mounted as planned.

    Raises ClaudeProxyError if it is not within ten seconds. Call it before COMMAND is released.
    """
    deadline = time.monotonic() + _MOUNT_PATIENCE_S
    # A process that has ended has no mounts; the runner reports its end.
    while inside := _mounts_of(str(pid)):
        places = mountinfo.mismatches(planned, inside, _mounts_of("self"))
        if not places:
            return
        if time.monotonic() > deadline:
            raise ClaudeProxyError(
                "the sandbox is not mounted as planned; nothing was run",
                where=", ".join(map(str, places[:_PATHS_SHOWN])),
                fix="look for links that another run creates in the project; then try again",
            )
        time.sleep(_MOUNT_POLL_S)


def _mounts_of(process: str) -> str:
    try:
        raw = Path(f"/proc/{process}/mountinfo").read_bytes()
    except OSError:
        return ""
    return raw.decode("utf-8", "surrogateescape")


# System programs


def find_bwrap(environ: Mapping[str, str], project: Path) -> Path | None:
    """Return the path of bwrap: system directories come first, and the project is left out."""
    given = [entry for entry in environ.get("PATH", "").split(":") if entry.startswith("/")]
    outside = [
        entry for entry in given if not Path(os.path.realpath(entry)).is_relative_to(project)
    ]
    found = shutil.which("bwrap", path=":".join((*_BWRAP_PLACES, *outside)))
    return Path(found) if found else None


def _bwrap(environ: Mapping[str, str], project: Path) -> tuple[Path, tuple[int, ...]]:
    if sys.platform == "darwin":
        return SANDBOX_EXEC, ()
    found = find_bwrap(environ, project)
    if found is None:
        raise requirements.bwrap_missing(_os_release())
    version = version_of(found)
    for problem in requirements.problems_of(requirements.BwrapSupport(found, version)):
        raise problem
    return found, version


def version_of(bwrap: Path) -> tuple[int, ...]:
    """Return the version of bwrap as numbers; empty if bwrap prints none."""
    # The program contains what it prints, and to read it takes a tenth of the time.
    written = _VERSION.findall(head_of(bwrap, _PROGRAM_BYTES))
    if len(written) == 1:
        return numbers_in(written[0].decode("ascii"))
    return numbers_in(_output_of([str(bwrap), "--version"]))


def numbers_in(text: str) -> tuple[int, ...]:
    """Return the parts of the first dotted number in a text; empty if there is none."""
    found = re.search(r"[0-9]{1,6}(?:\.[0-9]{1,6})*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _knows_default_signal(env: Path) -> bool:
    """Tell whether `env` has the option: a program contains the names that it compares with."""
    return b"default-signal" in head_of(env, _PROGRAM_BYTES)


def _output_of(command: list[str]) -> str:
    return _run(command)[1]


def _run(command: list[str]) -> tuple[int, str]:
    """Return the exit code and the output, both streams together, of a short probe."""
    try:
        done = subprocess.run(  # noqa: S603 - system programs, with fixed arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def problems(environ: Mapping[str, str], *, seccomp_wanted: bool = True) -> list[ClaudeProxyError]:
    """Return everything that a run needs and this machine lacks, each with its fix."""
    found = requirements.problems_of(machine(environ))
    return [*found, *_filter_problems(wanted=seccomp_wanted)]


def missing_programs(
    environ: Mapping[str, str], *, seccomp_wanted: bool = True
) -> list[ClaudeProxyError]:
    """Return of the problems those that can be seen without trying bwrap."""
    bwrap = find_bwrap(environ, Path("/nonexistent"))
    support = requirements.BwrapSupport(
        bwrap=bwrap,
        version=version_of(bwrap) if bwrap else (),
        os_release="" if bwrap else _os_release(),
    )
    return [*requirements.problems_of(support), *_filter_problems(wanted=seccomp_wanted)]


def _filter_problems(*, wanted: bool) -> list[ClaudeProxyError]:
    missing = seccomp.problem() if wanted else None
    return [missing] if missing else []


def machine(environ: Mapping[str, str]) -> requirements.BwrapSupport:
    """Try bwrap, and read the settings that explain a failure."""
    bwrap = find_bwrap(environ, Path("/nonexistent"))
    return requirements.BwrapSupport(
        bwrap=bwrap,
        version=version_of(bwrap) if bwrap else (),
        refusal=_refusal_of(bwrap) if bwrap else None,
        os_release=_os_release(),
        settings={name: _setting(name) for name in requirements.SETTINGS},
        user_namespaces=Path("/proc/self/ns/user").exists(),
        container=any(Path(mark).exists() for mark in _CONTAINER_MARKS),
        # bwrap is process 1 of the namespace that it creates.
        sandbox=head_of(Path("/proc/1/comm")).strip() == b"bwrap",
        root=os.geteuid() == 0,
    )


def _refusal_of(bwrap: Path) -> str | None:
    code, output = _run([str(bwrap), *_TRIAL, "--", "/bin/true"])
    return None if code == 0 else output or f"exit code {code}"


def _os_release() -> str:
    for name in ("/etc/os-release", "/usr/lib/os-release"):
        if text := head_of(Path(name)):
            return text.decode("utf-8", "replace")
    return ""


def _setting(name: str) -> str:
    return head_of(Path("/proc/sys", *name.split("."))).decode("utf-8", "replace").strip()
