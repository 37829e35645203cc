"""Container planner: turns what is asked for, engine and image into the words of `create`; pure.

What of the project and of other paths is shown, and what is hidden or read-only there, is what the
plan of a `run` says: its mounts are taken over, with the project at /workspace. Laws kept: secrets
stay outside, the sandbox cannot move its own wall, no quiet downgrade.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.sandbox.container.plan import (
    bind_words,
    hardening,
    passwd_file,
    project_mounts,
    wrappers,
)
from claude_proxy.sandbox.container.plan.model import (
    NAME_LABEL,
    PLAN_LABEL,
    VERSION_LABEL,
    WORKSPACE,
    ContainerMount,
    ContainerPlan,
    ContainerSpec,
    EngineFacts,
    EngineKind,
    ImageFacts,
    Way,
)
from claude_proxy.sandbox.plan import environment, system_mounts
from claude_proxy.sandbox.plan.environment import HTTP_PORT, INSIDE
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import Mount, MountKind, SandboxPlan
from claude_proxy.sandbox.plan.trust_store import BUNDLES

VOLUME_PREFIX = "claude-proxy-"
SHOWN = "shown"  # the files of /run/claude-proxy, in the container's directory
LIST = "list"  # the allowlist, which follows the policy
BLANK = "blank"  # an empty file, which hides another one
SECCOMP = "seccomp.json"
HOSTS = "hosts"
RESOLVER = "resolv.conf"
USERS = "passwd"  # the image's, with the user of CMD
APT = "apt.conf"
HOME = "home"  # a directory, where the engine's volumes would be root's

_APT_PLACE = "/etc/apt/apt.conf.d"
_OWN_HOME = "/home/agent"
_NO_HOMES = frozenset({"", "/", "/nonexistent", "/dev/null", "/var/empty", "/workspace"})
_EMPTY = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - of the container's own

# What of an image decides how a container of it is made.
INSPECTED = (*(str(path) for path in BUNDLES), _APT_PLACE)


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """What belongs to one container on the host."""

    directory: Path
    owner: tuple[int, int]  # user and group of the project's directory
    version: str  # of this program
    policy: str = ""  # in words
    git: GitMounts = field(default_factory=GitMounts)  # the container's own Git directories
    inside: SandboxPlan | None = None  # what `project_mounts` says, where it is known already


def plan_container(
    spec: ContainerSpec,
    engine: EngineFacts,
    image: ImageFacts,
    planned: SandboxPlan,
    place: ContainerPlace,
) -> ContainerPlan:
    """Return how a container is made; ConfigError if something cannot be as it was asked for.

    `planned` is the plan of a `run` of the same project.
    """
    return _Planner(spec, engine, image, planned, place).plan()


class _Planner:
    """Collects what one container is made of."""

    def __init__(
        self,
        spec: ContainerSpec,
        engine: EngineFacts,
        image: ImageFacts,
        planned: SandboxPlan,
        place: ContainerPlace,
    ) -> None:
        self._spec, self._engine, self._image = spec, engine, image
        self._planned, self._place = planned, place
        self._uid, self._gid = self._user()
        self._home = PurePosixPath(self._home_of(self._uid))

    def plan(self) -> ContainerPlan:
        """Return the plan."""
        variables, secrets = self._environment()
        # A volume without a name goes with a container that removes itself. Docker has none: it
        # would be root's.
        named = self._engine.kind is EngineKind.PODMAN and not self._spec.remove
        volume = f"{VOLUME_PREFIX}{self._spec.name}" if named else ""
        mounts = tuple(self._mounts(volume))
        found = ContainerPlan(
            way=self._spec.way or Way.ENTER,
            engine=self._engine.program,
            kind=self._engine.kind,
            name=self._spec.name,
            options=(*self._options(), *self._proxy_options(variables)),
            mounts=mounts,
            mount_options=tuple(self._mount_options(mounts)),
            image=self._image.id,
            image_name=self._image.name,
            image_digest=self._image.digest,
            command=self._spec.run.sandbox.command,
            environment=variables,
            secrets=secrets,
            directory=self._place.directory,
            files=self._files(),
            home=self._home,
            volume=volume,
            user=f"{self._uid}:{self._gid}",
            policy=self._place.policy,
            notes=(*self._planned.notes, *self._notes()),
            warnings=self._planned.warnings,
            withheld=self._planned.withheld,
        )
        label = f"{PLAN_LABEL}={digest_of(found)}"
        return replace(found, options=(*found.options, "--label", label))

    def _user(self) -> tuple[int, int]:
        """Return who CMD runs as: who owns the project, so that its files stay theirs."""
        if self._engine.rootless and self._engine.kind is EngineKind.DOCKER:
            return 0, 0  # who is the user outside; a daemon without root has no --userns=keep-id
        if self._engine.rootless:
            return self._engine.uid, self._engine.gid
        return self._place.owner

    def _home_of(self, uid: int) -> str:
        home = self._image.homes.get(uid, "")
        return _OWN_HOME if home in _NO_HOMES or not home.startswith("/") else home

    # --- options

    def _options(self) -> Iterator[str]:
        spec, name = self._spec, self._spec.name
        yield from ("--name", name, "--hostname", name)
        yield from ("--pull", "never")
        seccomp = str(self._place.directory / SECCOMP)
        limits = spec.run.sandbox.limits
        yield from hardening.options(self._engine, limits, seccomp=seccomp, cpus=spec.cpus)
        if limits.tmpfs is not None:
            yield from ("--shm-size", str(limits.tmpfs))
        if self._engine.rootless and self._engine.kind is EngineKind.PODMAN:
            yield "--userns=keep-id"
        yield from ("--user", f"{self._uid}:{self._gid}")
        yield from ("--workdir", str(WORKSPACE))
        if self._engine.has_init:
            yield "--init"
        elif spec.terminal and self._engine.init is not None:
            # So that Ctrl-C ends what has no handler for it, as in any terminal.
            yield from ("--init", f"--init-path={self._engine.init}")
        if spec.interactive:
            yield "--interactive"
        if spec.terminal:
            yield "--tty"
        if spec.remove:
            yield "--rm"
        yield from ("--label", f"{NAME_LABEL}={name}")
        yield from ("--label", f"{VERSION_LABEL}={self._place.version}")

    def _proxy_options(self, variables: Mapping[str, str]) -> Iterator[str]:
        """Yield what keeps docker from passing in the proxies that its config.json names.

        Their URLs may hold a password, and would go before those of a file of variables.
        """
        if self._engine.kind is EngineKind.DOCKER:
            for name in _IN_DOCKER_CONFIG:
                yield from ("--env", f"{name}={variables.get(name, '')}")

    # --- mounts

    def _mounts(self, volume: str) -> Iterator[ContainerMount]:
        tmpfs = self._spec.run.sandbox.limits.tmpfs
        for at in _EMPTY:
            yield ContainerMount(PurePosixPath(at), mode="1777", size=tmpfs, writable=True)
        directory = self._place.directory / HOME
        home = directory if self._engine.kind is EngineKind.DOCKER else volume
        yield ContainerMount(self._home, home, writable=True)
        yield from self._of_the_run()
        for at, name in (("/etc/hosts", HOSTS), ("/etc/resolv.conf", RESOLVER)):
            yield self._own(at, name)
        if self._image.passwd is not None:
            yield self._own("/etc/passwd", USERS)
        if self._spec.run.sandbox.has_proxy:
            yield self._own(str(INSIDE), SHOWN)
            for path in BUNDLES:
                if str(path) in self._image.paths:
                    yield self._own(str(path), f"{SHOWN}/{environment.BUNDLE.name}")
            if _APT_PLACE in self._image.paths:
                yield self._own(f"{_APT_PLACE}/99claude-proxy", APT)
        for name in self._wrappers():
            yield self._own(str(wrappers.DIRECTORY / name), wrappers.file_of(name))

    def _wrappers(self) -> Mapping[str, bytes]:
        """Return the programs by which the agent does not ask, if that is wanted."""
        spec = self._spec
        return wrappers.wrappers(spec.run.sandbox.profile) if spec.yolo else {}

    def _own(self, at: str, name: str) -> ContainerMount:
        return ContainerMount(PurePosixPath(at), self._place.directory / name)

    def _of_the_run(self) -> Iterator[ContainerMount]:
        """Yield what the plan of a run shows of the project and of the paths that are named."""
        sandbox = self._spec.run.sandbox
        found = self._place.inside or project_mounts.inside(self._planned, sandbox, self._place.git)
        for mount in found.mounts:
            yield from self._taken(mount, PurePosixPath(mount.at))
        shown = {mount.at for mount in found.mounts}
        for root in sandbox.allow_ro:  # shown as a part of the system in a run
            if not any(root.is_relative_to(at) for at in shown):
                yield ContainerMount(PurePosixPath(root), root)

    def _taken(self, mount: Mount, at: PurePosixPath) -> Iterator[ContainerMount]:
        if mount.shows:
            writable = mount.kind is MountKind.WRITE and not mount.sealed
            yield ContainerMount(at, Path(str(mount.source)), writable=writable)
        elif mount.kind is MountKind.EMPTY:
            yield ContainerMount(at, mode=mount.mode or "755", size=4096)
        elif mount.kind is MountKind.BLANK:
            yield self._own(str(at), BLANK)

    def _mount_options(self, mounts: tuple[ContainerMount, ...]) -> Iterator[str]:
        for mount in mounts:
            if mount.source is None:
                bind_words.refuse_colon(mount.at)
                size = [] if mount.size is None else [f"size={mount.size}"]
                # What the image has there is not copied. The runtime gives it the mode that the
                # image's directory has, so it must belong to the user.
                own = ["notmpcopyup", "U"] if self._engine.kind is EngineKind.PODMAN else []
                words = ["rw" if mount.writable else "ro", "nosuid", "nodev", *own, *size]
                yield from ("--tmpfs", f"{mount.at}:{','.join(words)},mode={mount.mode}")
            else:
                # A volume without a name has no source.
                yield from (
                    self._bind(mount, mount.source)
                    if mount.source
                    else (
                        "--volume",
                        str(mount.at),
                    )
                )

    def _bind(self, mount: ContainerMount, source: Path | str) -> tuple[str, str]:
        label = self._engine.selinux and mount.at.is_relative_to(WORKSPACE)
        return bind_words.bind_words(source, mount.at, writable=mount.writable, private_label=label)

    # --- environment and files

    def _environment(self) -> tuple[Mapping[str, str], frozenset[str]]:
        variables = {
            name: value
            for name, value in self._planned.environment.items()
            if name not in _OF_THE_HOST
        }
        own = {"HOME": str(self._home), "TMPDIR": "/tmp"}  # noqa: S108 - of the container's own
        if "LANG" not in self._image.environment:
            own["LANG"] = "C.UTF-8"
        if self._spec.yolo:
            own["PATH"] = wrappers.path_with_wrappers(self._image.environment)
        return {**variables, **own}, self._planned.secrets

    def _files(self) -> Mapping[str, bytes]:
        name = self._spec.name
        files = {
            **{wrappers.file_of(name): text for name, text in self._wrappers().items()},
            BLANK: b"",
            SECCOMP: hardening.seccomp_profile(self._engine.seccomp),
            HOSTS: f"127.0.0.1 localhost\n127.0.0.1 {name}\n".encode(),
            RESOLVER: system_mounts.resolver(
                notes_lookups=True, answers_lookups=self._spec.run.sandbox.transparent
            ),
        }
        if self._image.passwd is not None:
            text = passwd_file.with_user(self._image.passwd, self._uid, self._gid, str(self._home))
            files[USERS] = text.encode("utf-8", "surrogateescape")
        proxy = f"http://127.0.0.1:{HTTP_PORT}/"
        files[APT] = (
            f'Acquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n'
            f'Acquire::https::CaInfo "{environment.BUNDLE}";\n'
        ).encode()
        return files

    def _notes(self) -> Iterator[str]:
        if not self._engine.limits:
            yield (
                "memory, processes and processors of the container are not limited: this user may "
                "make no control groups that do it"
            )
        if (self._uid, self._gid) == (0, 0) and not self._engine.rootless:
            yield (
                "CMD runs as root without capabilities, as root owns the project's directory: make "
                "it another user's"
            )


_IN_DOCKER_CONFIG = tuple(
    spelled
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
    for spelled in (name, name.upper())
)
# Of the variables of a run, those that are about the host.
_OF_THE_HOST = frozenset(
    {"HOME", "LOGNAME", "PATH", "PWD", "SHELL", "USER", "TMPDIR", "XDG_RUNTIME_DIR"}
    | {"LANG", "LANGUAGE", "TZ"}
    | {f"LC_{name}" for name in ("ALL", "CTYPE", "COLLATE", "MESSAGES", "MONETARY", "NUMERIC")}
    | {f"LC_{name}" for name in ("TIME", "ADDRESS", "IDENTIFICATION", "MEASUREMENT", "NAME")}
    | {"LC_PAPER", "LC_TELEPHONE"}
)


def digest_of(plan: ContainerPlan) -> str:
    """Return what tells two plans apart, but for the values of variables."""
    words = "\0".join((*plan.words, *sorted(plan.environment)))
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:16]
