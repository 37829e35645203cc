"""Home of the sandbox: an empty file system, in which named things are shown one by one; pure.

Law kept: secrets stay outside. Nothing in a directory of the user's is hidden by a mount, which the
kernel takes away when the file is replaced: a directory that contains a secret is not shown at all.
So a secret that nobody knew of is not visible either.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import agent_home, system_mounts
from claude_proxy.sandbox.plan.model import (
    AgentHome,
    HostFacts,
    Mount,
    MountKind,
    PathInfo,
    PathKind,
    PathToCreate,
    SandboxSpec,
    Seed,
)
from claude_proxy.sandbox.plan.mount_layout import Layout
from claude_proxy.sandbox.plan.path_guards import PathGuards


class HomeMounts:
    """Adds the mounts of a home to a layout."""

    def __init__(
        self, spec: SandboxSpec, facts: HostFacts, guards: PathGuards, layout: Layout
    ) -> None:
        self._spec = spec
        self._facts = facts
        self._guards = guards
        self._layout = layout
        self._home = facts.user.home
        self.to_create: list[PathToCreate] = []
        self.named: list[Path] = []  # paths that the options or the profile name
        self._agent_home: AgentHome | None = None
        self._notes: list[str] = []

    def add(self) -> None:
        """Add everything; ConfigError for what must not be shown."""
        self._layout.put(Mount(MountKind.EMPTY, self._home, mode="0700"))
        for name in system_mounts.TOOLCHAINS:
            self._add_toolchain(self._home / name)
        self._add_agent_home()
        for name in self._spec.profile.home_read:
            self._add_named(self._home / name, f"home_read: {name}")
        for path in self._spec.show_home:
            self._add_shown(path)
        for name in self._spec.profile.home_write:
            self._add_written(name)

    def _add_agent_home(self) -> None:
        profile = self._spec.profile
        found = agent_home.home_of(
            profile,
            self._spec.isolation,
            home=self._home,
            environ=self._facts.environ,
            statedir=self._facts.statedir,
            project=self._info(self._spec.project).real,
        )
        if found is None:
            return
        for seed in (*found.seeds, *found.logins):
            where = f"profile {profile.name}: {seed.name}"
            fix = "remove it from the profile: a copy of it would be visible"
            for place in (seed.source, self._real_source(seed)):
                self._guards.refuse_hidden(place, where, fix)
        for name in found.state:
            at = self._home / name
            self._layout.put(Mount(MountKind.WRITE, at, found.source_of(name)))
        self._agent_home = replace(found, seeds=tuple(map(self._followed, found.seeds)))

    def _followed(self, seed: Seed) -> Seed:
        """Return a seed with its real path, if it is a link into a directory of dotfiles.

        A link to a file of another name may have been put there, to have that file copied.
        """
        real = self._real_source(seed)
        if real.name != seed.source.name or not real.is_relative_to(self._info(self._home).real):
            return seed
        own = any(real.is_relative_to(self._home / name) for name in self._spec.profile.home_state)
        return (
            seed if not own and self._guards.contains_secret(real) else replace(seed, source=real)
        )

    def _real_source(self, seed: Seed) -> Path:
        seen = self._facts.paths.get(seed.source)  # a project's transcripts are not looked at
        return seed.source if seen is None else seen.real

    def finished_agent_home(self) -> AgentHome | None:
        """Return the agent's home, once all mounts of the run are known."""
        if self._agent_home is None:
            return None
        points = tuple(self._points_in(self._agent_home))
        return replace(self._agent_home, mount_points=points)

    def _points_in(self, kept: AgentHome) -> Iterator[str]:
        """Yield where something is mounted in what runs write, and could put links."""
        entries = [self._home / name for name in kept.state if name.endswith("/")]
        for mount in self._layout.mounts():
            if mount.shows and any(entry in mount.at.parents for entry in entries):
                is_file = self._info(Path(str(mount.source))).kind is PathKind.FILE
                yield f"{mount.at.relative_to(self._home)}{'' if is_file else '/'}"

    def _place_of(self, path: Path, real: Path) -> Path:
        """Return where to show something: in an agent's home, at its own path."""
        kept = self._agent_home.state if self._agent_home else ()
        if any(path.is_relative_to(self._home / name) for name in kept):
            return path
        return self._layout.place_of(path, real)

    def _add_toolchain(self, path: Path) -> None:
        seen = self._info(path)
        if self._is_there(seen) and not self._guards.contains_secret(path, seen.real):
            self._layout.put(
                Mount(MountKind.READ, self._layout.place_of(path, seen.real), seen.real)
            )

    def _add_named(self, path: Path, key: str) -> None:
        """Show something that the profile names, if there is such a thing."""
        if path in self._facts.rewritten and path not in self._spec.show_home:
            self._layout.add_file(path, self._facts.rewritten[path])
            return
        seen = self._info(path)
        secret = self._guards.led_to(path, seen.real)
        if secret is not None:
            name = path.relative_to(self._home)
            self._notes.append(f"not shown: ~/{name} is a link that leads to {secret}")
        elif self._is_there(seen):
            where = f"profile {self._spec.profile.name}, {key}"
            self._add_read(path, seen, where, "name in the profile what is needed below it")

    def _add_shown(self, path: Path) -> None:
        where = f"--show-home {path}"
        if not path.is_relative_to(self._home):
            raise ConfigError(
                "this path is not in your home directory",
                where=where,
                fix=f"show it with --allow-ro {path}",
            )
        seen = self._info(path)
        if not self._is_there(seen):
            raise ConfigError(
                "there is no such file or directory in your home",
                where=where,
                fix="fix the path, or leave it out",
            )
        self._guards.refuse_wide(path, "what is shown", where, "name what is needed below it")
        self._add_read(path, seen, where, "name what is needed below it")

    def _add_read(self, path: Path, seen: PathInfo, where: str, fix: str) -> None:
        self._guards.refuse_secrets(path, seen.real, where, fix)
        self._guards.refuse_secret_directory(path, seen.real, where)
        self.named += [path, seen.real]
        self._layout.put(Mount(MountKind.READ, self._place_of(path, seen.real), seen.real))

    def _add_written(self, name: str) -> None:
        path = self._home / name
        where = f"profile {self._spec.profile.name}, home_write: {name}"
        fix = "remove it from the profile; a run may write only what belongs to its command"
        seen = self._info(path)
        for place in (path, seen.real):
            self._guards.refuse_wide(place, "the profile's path", where, fix)
        self._guards.refuse_secrets(path, seen.real, where, fix)
        if seen.kind is PathKind.MISSING and seen.link is not None:
            what = f"{path} is a symbolic link whose target does not exist"
            raise ConfigError(what, where=where, fix="create its target, or remove the link")
        if seen.kind is PathKind.MISSING:
            self.to_create.append(_path_to_create(path, name))
        self.named.append(path)
        self._layout.put(Mount(MountKind.WRITE, self._place_of(path, seen.real), seen.real))

    def protected(self) -> Iterator[Path]:
        """Yield what stays read-only in what the profile shares with the user's own home.

        What home_write names itself, or something below it, is meant to be written.
        """
        written = [PurePosixPath(name) for name in self._spec.profile.home_write]
        for name in self._spec.profile.home_protect if written else ():
            if not any(each.is_relative_to(name) for each in written):
                yield self._home / name

    def notes(self) -> Iterator[str]:
        """Yield what of the user's files is not shown as it is."""
        yield from self._notes
        for path in self._facts.rewritten:
            if path not in self._spec.show_home:
                name = path.relative_to(self._home)
                yield f"credentials in ~/{name} stay outside; --show-home {name} shows all of it"

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know about what the run may write in the home."""
        written = [f"~/{name}" for name in self._spec.profile.home_write]
        if not written:
            return
        if self._spec.share_agent_home:
            yield (
                f"--share-agent-home: COMMAND reads and writes your own {_listed(written)}: "
                "settings and hooks that the next session outside obeys, MCP servers that it "
                "starts, shell snapshots that open sessions run, your login, and the transcripts "
                "of all projects"
            )
        else:
            yield (
                f"the profile {self._spec.profile.name} lets COMMAND write your own "
                f"{_listed(written)} (home_write), which programs outside may obey"
            )

    def _is_there(self, seen: PathInfo) -> bool:
        return seen.kind in {PathKind.DIRECTORY, PathKind.FILE}

    def _info(self, path: Path) -> PathInfo:
        return self._facts.paths[path]


def paths_to_inspect(spec: SandboxSpec, home: Path, environ: Mapping[str, str]) -> frozenset[Path]:
    """Return the paths of a home that are looked at before planning."""
    profile = spec.profile
    copied = {
        agent_home.outside(name, home, environ)
        for name in (*profile.home_seed, *profile.home_login)
    }
    names = (*system_mounts.TOOLCHAINS, *profile.home_read, *profile.home_write)
    below = {home / name for name in (*names, *profile.home_protect)}
    return frozenset({home, *below, *copied, *spec.show_home})


def crowded_directories(home: Path) -> tuple[Path, ...]:
    """Return the directories of a home in which most of what is looked for does not exist."""
    return (home, *(home / name for name in (".config", ".local/share")))


def _path_to_create(path: Path, name: str) -> PathToCreate:
    if name.endswith("/"):
        return PathToCreate(path, PathKind.DIRECTORY)
    # Claude Code reports an empty settings file as broken.
    return PathToCreate(path, PathKind.FILE, b"{}\n" if name.endswith(".json") else b"")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name.rstrip("/") for name in names)
