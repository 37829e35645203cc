"""Sandbox planner: turns a specification and facts about the host into bwrap's options; pure.

No file is opened here and nothing is started. Laws kept: secrets stay outside, the sandbox cannot
move its own wall, and no quiet downgrade: an option that cannot be satisfied is an error.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import (
    clone_mounts,
    environment,
    exec_words,
    git_mounts,
    home_mounts,
    obeyed_files,
    obeyed_links,
    protected_paths,
    system_mounts,
    watched_trees,
)
from claude_proxy.sandbox.plan.browser_policies import add_browser_policies
from claude_proxy.sandbox.plan.guarded_mounts import guarded_mounts
from claude_proxy.sandbox.plan.home_mounts import HomeMounts
from claude_proxy.sandbox.plan.model import (
    BLOCK,
    INFO,
    SECCOMP,
    GuardKind,
    HostFacts,
    Mount,
    MountKind,
    PathInfo,
    PathKind,
    PathToCreate,
    SandboxPlan,
    SandboxSpec,
    User,
    WatchedTree,
)
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.sandbox.plan.path_guards import NO_FILES, REBUILT, PathGuards
from claude_proxy.sandbox.plan.system_walls import SystemWalls
from claude_proxy.sandbox.plan.trust_store import BUNDLES, DIRECTORIES, add_trust_store

# `commondir` tells git where to find its configuration and its hooks.
_READ_ONLY_IN_GIT = ("config", "config.worktree", "hooks", "commondir")

_SHELLS = ("/bin/bash", "/bin/sh")
_TMPFS_SIZE_SINCE = (0, 7)  # of bwrap
_DISABLE_USERNS_SINCE = (0, 8)  # of bwrap


def plan_sandbox(spec: SandboxSpec, facts: HostFacts) -> SandboxPlan:
    """Return the plan of a run; ConfigError if a path must not be shown, or is missing."""
    return _Planner(spec, facts).plan()


def paths_to_inspect(
    spec: SandboxSpec, user: User, environ: Mapping[str, str], *ours: Path
) -> frozenset[Path]:
    """Return every path that the planner needs to know; `ours` are paths of this program."""
    home, project = user.home, spec.project
    paths = {project, *spec.allow_ro, *spec.allow_rw, *spec.extra_ro}
    paths |= home_mounts.paths_to_inspect(spec, home, environ)
    paths |= {
        Path(name)
        for name in (
            *system_mounts.DIRECTORIES,
            *system_mounts.PROC_HIDDEN,
            *system_mounts.ETC_BELOW,
        )
    }
    paths |= {*BUNDLES, *DIRECTORIES}
    paths |= {Path(name) for name in system_mounts.PROC_READ_ONLY}
    paths |= {project / name for name in (*spec.profile.protect, *spec.read_only, *spec.hide)}
    paths |= {root / name for root in _roots(spec) for name in obeyed_files.protected_names()}
    paths |= {root / ".git" / name for root in spec.allow_rw for name in ("", *_READ_ONLY_IN_GIT)}
    paths |= clone_mounts.paths_to_inspect(spec)
    paths |= {project / ".git", *(Path(shell) for shell in _SHELLS)}
    isolation = spec.isolation
    paths |= {*isolation.logins, *isolation.unreadable, *isolation.unwritable, *isolation.exposed}
    return frozenset(
        {
            *paths,
            *protected_paths.protected(home, environ, *ours),
            *protected_paths.of_proxies(user.uid),
            *protected_paths.secret(home, environ),
        }
    )


def git_paths_to_inspect(git: Path) -> frozenset[Path]:
    """Return the paths of one Git directory that the planner needs to know."""
    return frozenset({git, *(git / name for name in _READ_ONLY_IN_GIT)})


def _roots(spec: SandboxSpec) -> tuple[Path, ...]:
    """Return the writable directories in which programs outside obey files."""
    return (spec.project, *spec.allow_rw)


class _Planner:
    """Collects the mounts of one run."""

    def __init__(self, spec: SandboxSpec, facts: HostFacts) -> None:
        self._spec = spec
        self._facts = facts
        self._home = facts.user.home
        self._guards = PathGuards(facts)
        knows_sizes = facts.bwrap_version >= _TMPFS_SIZE_SINCE
        self._layout = Layout(spec.limits.tmpfs if knows_sizes else None)
        self._system = SystemWalls(self._layout, facts.paths, facts.listings, self._guards)
        self._home_mounts = HomeMounts(spec, facts, self._guards, self._layout)
        self._to_create: list[PathToCreate] = self._home_mounts.to_create
        self._masked: list[Path] = []
        self._watched: list[Path] = []
        self._named: list[Path] = []  # paths that the options or the profile name
        self._project = self._info(spec.project).real

    def plan(self) -> SandboxPlan:
        """Return the plan."""
        self._refuse_project()
        self._guards.refuse_home()
        self._add_system()
        self._add_etc()
        self._home_mounts.add()
        self._named += self._home_mounts.named
        self._add_own_files()
        self._add_allowed_paths()
        self._add_project()
        self._add_program()
        self._add_masks()
        self._add_read_only()
        self._watched += obeyed_links.protect(self._layout, self._facts, self._spec)
        add_trust_store(self._layout, self._facts)
        add_browser_policies(self._layout, self._facts)
        self._refuse_sources()
        clone_mounts.refuse_shown_project(
            self._spec,
            self._facts.paths,
            self._layout.mounts(),
            self._places_of(self._project),
        )
        return self._assembled()

    # Refusals

    def _refuse_project(self) -> None:
        lexical, real = self._spec.project, self._project
        where = str(lexical)
        fix = "change to the directory of one project, or name it with --dir"
        if self._info(lexical).kind is not PathKind.DIRECTORY:
            raise ConfigError("the project directory does not exist", where=where, fix=fix)
        for path in (lexical, real):
            self._guards.refuse_wide(path, "the project directory", where, fix)
            self._guards.refuse_hidden(path, where, fix)
            self._guards.refuse_holding(path, where, fix)

    def _refuse_sources(self) -> None:
        """Refuse to show the source of a credential, or to make it writable."""
        for path in self._spec.isolation.logins:
            if self._exists(path) and any(self._places_of(self._info(path).real)):
                raise ConfigError(
                    "your own login would be visible inside, which stays outside because the "
                    "proxy injects a credential",
                    where=str(path),
                    fix="drop --share-agent-home, or what else shows its directory",
                )
        for path in self._spec.isolation.unreadable:
            if any(self._places_of(self._info(path).real)):
                raise ConfigError(
                    "the file of a credential would be visible inside",
                    where=str(path),
                    fix="move it out of what the run sees, for example to ~/.config/claude-proxy, "
                    "and name that path",
                )
        for path in self._spec.isolation.unwritable:
            if self._layout.writable_places(self._info(path).real):
                raise ConfigError(
                    "the source of a credential could be changed from inside",
                    where=str(path),
                    fix="keep it outside of the project and of what the run may write",
                )

    def _places_of(self, real: Path) -> Iterator[Path]:
        """Yield the paths inside where a file of the host is visible."""
        for mount in self._layout.showing(real):
            at = mount.at / real.relative_to(str(mount.source))
            if self._layout.nearest(at) is mount:
                yield at

    # Visible paths

    def _add_system(self) -> None:
        self._layout.put(Mount(MountKind.PROC, Path("/proc")))
        # Read-only, as it is in memory and bwrap cannot limit its size.
        self._layout.put(Mount(MountKind.DEV, Path("/dev"), sealed=True))
        for place in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - created for the run
            self._layout.put(Mount(MountKind.EMPTY, Path(place), mode="1777"))
        self._layout.put(Mount(MountKind.EMPTY, Path("/run"), mode="0755"))
        runtime = environment.runtime_directory(self._facts.user)
        self._layout.put(Mount(MountKind.EMPTY, runtime, mode="0700"))
        for name in system_mounts.DIRECTORIES:
            self._system.add(Path(name))
        self._add_proc()

    def _add_proc(self) -> None:
        for name in system_mounts.PROC_READ_ONLY:
            if self._exists(Path(name)):
                self._layout.put(Mount(MountKind.READ, Path(name), Path(name)))
        for name in system_mounts.PROC_HIDDEN:
            path = Path(name)
            match self._info(path).kind:
                case PathKind.DIRECTORY:
                    self._layout.put(Mount(MountKind.EMPTY, path, sealed=True))
                case PathKind.FILE | PathKind.OTHER:
                    # On a mount without devices it cannot be opened at all.
                    self._layout.put(Mount(MountKind.READ, path, Path("/dev/null")))
                case PathKind.MISSING:
                    pass

    def _add_etc(self) -> None:
        self._layout.put(Mount(MountKind.EMPTY, Path("/etc"), mode="0755", sealed=True))
        shown = {f"/etc/{name}" for name in self._facts.etc if system_mounts.is_shown_in_etc(name)}
        for name in sorted({*shown, *system_mounts.ETC_BELOW}):
            self._system.add(Path(name))
        written = system_mounts.files(
            self._facts.user,
            notes_lookups=self._spec.has_proxy,
            answers_lookups=self._spec.transparent,
        )
        if self._spec.unfiltered:
            written |= self._facts.resolver
        for name, content in written.items():
            self._layout.add_file(Path(name), content)

    def _add_program(self) -> None:
        program = self._facts.program
        for tree in (*(program.trees if program else ()), *self._spec.extra_ro):
            real = self._info(tree).real
            where = str(tree)
            fix = "install the command elsewhere, for example below /usr/local"
            self._guards.refuse_hidden(tree, where, fix)
            self._guards.refuse_hidden(real, where, fix)
            if not self._layout.is_shown(tree):
                # `python -m venv ~` makes the home itself such a tree.
                self._guards.refuse_wide(real, "the command's installation directory", where, fix)
                for place in (tree, real):
                    self._guards.refuse_containing(place, where, fix)
                self._named.append(tree)
                self._layout.put(Mount(MountKind.READ, tree, real))
        for path, target in program.links if program else ():
            if not self._layout.is_shown(path):
                self._layout.put(Mount(MountKind.LINK, path, target))
        if program is not None and not self._layout.is_shown(program.real):
            raise ConfigError(
                "the command is a link to a program that is not visible in the sandbox",
                where=f"{program.path} -> {program.real}",
                fix=f"add --allow-ro {program.real.parent}, if you trust the link",
            )

    def _add_own_files(self) -> None:
        if not self._facts.shown:
            return
        self._layout.put(Mount(MountKind.EMPTY, environment.INSIDE, mode="0755", sealed=True))
        files = dict(self._facts.shown)
        if self._facts.followed is not None:
            # The directory: a mount of the file would show the old one after each replacement.
            at = environment.INSIDE / self._facts.followed.name
            self._layout.put(Mount(MountKind.READ, at, self._facts.followed))
            for name in environment.FOLLOWED:
                files.pop(name, None)
                link = f"{at.name}/{name}"
                self._layout.put(Mount(MountKind.LINK, environment.INSIDE / name, link))
        for name, content in files.items():
            self._layout.add_file(environment.INSIDE / name, content)

    def _add_allowed_paths(self) -> None:
        for path in self._spec.allow_rw:
            self._add_allowed(path, MountKind.WRITE)
        for path in self._spec.allow_ro:
            self._add_allowed(path, MountKind.READ)

    def _add_allowed(self, path: Path, kind: MountKind) -> None:
        option = "--allow-rw" if kind is MountKind.WRITE else "--allow-ro"
        where = f"{option} {path}"
        seen = self._info(path)
        if seen.kind is PathKind.MISSING:
            raise ConfigError(
                "this path does not exist", where=where, fix="create it first, or leave it out"
            )
        for place in (path, seen.real):
            self._guards.refuse_hidden(
                place, where, "leave it out; do what needs it outside of the run"
            )
            if place in REBUILT or any(place.is_relative_to(root) for root in NO_FILES):
                raise ConfigError(
                    "this part of the system is created for each run and cannot be shown",
                    where=where,
                    fix="name the directory or file that is needed",
                )
            if kind is MountKind.WRITE:
                fix = "name a directory below it"
                self._guards.refuse_wide(place, "the writable path", where, fix)
        self._guards.refuse_secrets(path, seen.real, where, "name what is needed below it")
        self._guards.refuse_secret_directory(path, seen.real, where)
        self._named += [path, seen.real]
        self._layout.put(Mount(kind, seen.real, seen.real))
        if path != seen.real and ".." not in path.parts and not self._layout.is_shown(path):
            self._layout.put(Mount(kind, path, seen.real))

    def _add_project(self) -> None:
        project = self._project
        self._named.append(project)
        if self._spec.clone is not None:
            clone_mounts.add(self._layout, project, self._spec.clone)
            return
        if project not in {self._info(path).real for path in self._spec.allow_ro}:
            # Otherwise --allow-ro names it, which makes it read-only.
            self._layout.put(Mount(MountKind.WRITE, project, project))
        git_mounts.add_git_mounts(self._layout, self._facts.git, self._refuse_repository)
        if self._facts.git.directories:
            return
        worktree = self._facts.worktree
        if worktree is None:
            return
        for path in dict.fromkeys((worktree.common, worktree.git)):
            where, fix = f"{project}/.git", "use a worktree of a repository elsewhere"
            self._guards.refuse_wide(path, "the repository of the worktree", where, fix)
            self._guards.refuse_hidden(path, where, fix)
            self._guards.refuse_holding(path, where, fix)
            if not self._layout.is_written(path):
                self._layout.put(Mount(MountKind.WRITE, path, path))

    def _refuse_repository(self, path: Path) -> None:
        if path.is_relative_to(self._project):
            return
        where, fix = f"{path}, of {self._project}/.git", "use a clone that is elsewhere"
        self._guards.refuse_wide(path, "the repository of the project", where, fix)
        self._guards.refuse_hidden(path, where, fix)
        self._guards.refuse_holding(path, where, fix)

    # Hidden and read-only paths

    def _add_masks(self) -> None:
        for path in self._guards.hidden(self._named):
            for at in self._places_of(path):
                self._mask(at, self._info(path))
        for at, seen in clone_mounts.paths_in(self._spec, self._facts.paths, self._spec.hide):
            self._mask(self._project / at, seen)
        for name in () if self._spec.clone else self._spec.hide:
            path = self._project / name
            seen = self._info(self._spec.project / name)
            if seen.kind is not PathKind.MISSING and seen.real.is_relative_to(self._project):
                self._mask(path if path == seen.real else seen.real)

    def _mask(self, at: Path, seen: PathInfo | None = None) -> None:
        kind = (seen or self._info(at)).kind
        self._layout.pin_above(at)
        if kind is PathKind.DIRECTORY:
            self._layout.put(Mount(MountKind.EMPTY, at, mode="0555", sealed=True))
        else:
            self._layout.cover_file(at, b"")
        self._masked.append(at)

    def _add_read_only(self) -> None:
        named = {self._info(path).real for path in self._spec.allow_rw}
        # --allow-rw for the project itself, or for more, does not lift its read-only files; one for
        # its Git directory elsewhere does not either.
        whole = {self._project, *self._git_directories_elsewhere()}
        lifted = {path for path in named if not any(place.is_relative_to(path) for place in whole)}
        for path in self._read_only():
            self._make_read_only(path, lifted)
        for root in self._spec.allow_rw:
            below = self._info(root).real
            # Only what is named below a directory lifts what is read-only in it.
            narrower = {path for path in lifted if below in path.parents}
            for name in (*self._obeyed_in(root), *self._git_in(root)):
                self._make_read_only(root / name, narrower)

    def _git_directories_elsewhere(self) -> Iterator[Path]:
        for git in self._facts.git_directories:
            real = self._info(git).real
            if not real.is_relative_to(self._project):
                yield real

    def _read_only(self) -> Iterator[Path]:
        if self._spec.clone is not None:
            # Nothing outside obeys what is in a clone; only the owner's own list holds there.
            found = clone_mounts.paths_in(self._spec, self._facts.paths, self._spec.read_only)
            yield from (seen.real for _, seen in found)
            return
        project = self._spec.project
        names = (*self._obeyed_in(project), *self._spec.profile.protect, *self._spec.read_only)
        yield from (project / name for name in names)
        yield from self._home_mounts.protected()
        yield from self._facts.hooks
        linked = self._project / ".git" in dict(self._facts.git.links)
        if self._info(project / ".git").kind is not PathKind.DIRECTORY and not linked:
            yield project / ".git"
        for git in self._facts.git_directories:
            if self._facts.git.covers(self._info(git).real):
                continue
            self._create_hooks(git / "hooks")
            yield from (git / name for name in _READ_ONLY_IN_GIT)

    def _obeyed_in(self, root: Path) -> Iterator[str]:
        """Yield what is to be read-only in a directory where programs outside obey files."""
        for name in obeyed_files.protected_names():
            # Whoever creates an environment writes all of it; it is named at the end.
            if self._exists(root / name) or not obeyed_files.is_of_environment(name):
                yield name

    def _git_in(self, root: Path) -> Iterator[str]:
        """Yield what Git obeys in a repository that is shown as a writable directory."""
        if self._info(root / ".git").kind is PathKind.FILE:
            yield ".git"
        elif self._exists(root / ".git"):
            yield from (f".git/{name}" for name in _READ_ONLY_IN_GIT)

    def _create_hooks(self, path: Path) -> None:
        """Create a missing hooks directory: only what exists can be made read-only."""
        seen = self._info(path)
        if (
            seen.kind is PathKind.MISSING
            and seen.link is None
            and self._layout.is_written(seen.real)
        ):
            self._to_create.append(PathToCreate(path, PathKind.DIRECTORY))
            self._layout.pin_above(path)
            self._layout.put(Mount(MountKind.READ, path, path))

    def _make_read_only(self, path: Path, lifted: set[Path]) -> None:
        seen = self._info(path)
        if seen.kind is PathKind.MISSING or seen.real != self._without_links(path):
            # A link cannot be mounted on, so it can be replaced; a missing path can be created.
            self._watched.append(path)
        if seen.kind not in {PathKind.DIRECTORY, PathKind.FILE}:
            return
        if any(seen.real.is_relative_to(free) for free in lifted):
            return
        for at in self._layout.writable_places(seen.real):
            self._layout.pin_above(at)
            self._layout.put(Mount(MountKind.READ, at, seen.real))

    def _without_links(self, path: Path) -> Path:
        """Return the real path of something in the project if no link there leads to it."""
        project = self._spec.project
        below = path.is_relative_to(project)
        return self._project / path.relative_to(project) if below else path

    # The result

    def _assembled(self) -> SandboxPlan:
        spec, facts = self._spec, self._facts
        shell = self._shell()
        path = environment.visible_path(facts.environ.get("PATH"), self._layout.holds)
        variables, secrets = environment.environment(
            spec, facts, path=path, shell=shell, project=self._project
        )
        options = (
            *self._namespaces(),
            *self._layout.words(),
            *("--chdir", str(self._project)),
            *(("--seccomp", SECCOMP) if spec.seccomp else ()),
            *("--info-fd", INFO, "--block-fd", BLOCK),
        )
        return SandboxPlan(
            bwrap=facts.bwrap,
            project=self._project,
            options=options,
            mounts=tuple(self._layout.mounts()),
            command=self._command(shell),
            environment={**environment.own_directories(facts.user), **variables},
            files=self._layout.files,
            limits=spec.limits,
            to_create=tuple(self._to_create),
            masked=tuple(self._masked),
            watched=tuple(dict.fromkeys(self._watched)),
            watched_trees=tuple(self._watched_trees()),
            secrets=secrets,
            withheld=spec.isolation.withheld,
            notes=(*facts.notes, *self._home_mounts.notes(), *self._notes()),
            warnings=tuple(self._home_mounts.warnings()),
            agent_home=self._home_mounts.finished_agent_home(),
            guarded=guarded_mounts(self._layout.mounts(), self._masked, dict(self._awaited())),
        )

    def _awaited(self) -> Iterator[tuple[Path, GuardKind]]:
        """Yield the paths inside that are to be protected once something appears there."""
        spec = self._spec
        # Only what the owner names. Agents are asked to create repositories and what tools obey:
        # they would get half of it, or be ended in the middle of it. It is named at the end.
        wanted = {
            **{
                spec.project / name: GuardKind.READ
                for name in (*spec.profile.protect, *spec.read_only)
            },
            **{spec.project / name: GuardKind.HIDE for name in spec.hide},
        }
        for path, kind in wanted.items():
            seen = self._info(path)
            if seen.kind is PathKind.MISSING and seen.link is None:
                yield from ((at, kind) for at in self._places_of(seen.real))

    def _watched_trees(self) -> Iterator[WatchedTree]:
        """Yield what the run may write and where programs outside look for what they obey."""
        roots = [self._info(path).real for path in (self._project, *self._spec.allow_rw)]
        for real in dict.fromkeys(roots):
            if self._layout.writable_places(real):
                yield WatchedTree(real, covered=frozenset(self._layout.covered_in(real)))
        yield from watched_trees.programs_in_path(
            self._facts.environ.get("PATH", ""), self._spec.project, self._layout
        )
        for name in self._spec.profile.home_write:
            directory = self._home / name
            if self._layout.is_written(directory):
                yield watched_trees.of_agent(directory)

    def _notes(self) -> Iterator[str]:
        if self._spec.limits.tmpfs and self._facts.bwrap_version < _TMPFS_SIZE_SINCE:
            yield "--tmpfs-size has no effect: it needs bwrap 0.7; half of the memory is the limit"
        if names := environment.withheld_variables(self._spec, self._facts):
            yield f"not passed on, because the proxy injects the credential: {', '.join(names)}"
        for path in self._spec.isolation.exposed:
            if any(self._places_of(self._info(path).real)):
                yield f"COMMAND can read a credential that the proxy injects: {path} contains it"

    def _namespaces(self) -> tuple[str, ...]:
        options = [
            *(() if self._spec.unfiltered else ("--unshare-net",)),
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--die-with-parent", "--cap-drop", "ALL"),
            *("--hostname", system_mounts.HOSTNAME, "--clearenv"),
        ]
        if not self._spec.seccomp:
            # What the filter would deny: typing into the terminal, and new namespaces.
            options.append("--new-session")
            if self._facts.bwrap_version >= _DISABLE_USERNS_SINCE:
                options.append("--disable-userns")
        return tuple(options)

    def _command(self, shell: Path) -> tuple[str, ...]:
        command = (str(shell),) if self._spec.shell else self._spec.command
        return exec_words.words(command, self._facts.default_signal)

    def _shell(self) -> Path:
        for name in (self._facts.environ.get("SHELL", ""), *_SHELLS):
            if name.startswith("/") and self._layout.is_shown(Path(name)):
                return Path(name)
        return Path(_SHELLS[-1])

    # Facts

    def _info(self, path: Path) -> PathInfo:
        return self._facts.paths[path]

    def _exists(self, path: Path) -> bool:
        return self._info(path).kind is not PathKind.MISSING
