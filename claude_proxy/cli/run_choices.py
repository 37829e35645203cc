"""Choices of one run: its project, its policy, its profile and its network, in turn.

Fail closed: what is not available as it was asked for is an error, and nothing is run.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from claude_proxy.config import option_values, policy_files
from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.policy_files import PolicySources
from claude_proxy.config.port_mappings import Automatic, Forward, Published
from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.plan.agent_home import shared
from claude_proxy.sandbox.plan.model import (
    FileId,
    Profile,
    ResourceLimits,
    SandboxSpec,
    UnixSockets,
)
from claude_proxy.sandbox.plan.profile_parser import ProjectRestrictions
from claude_proxy.sandbox.run_spec import RunSpec


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` about COMMAND and its sandbox."""

    command: tuple[str, ...] = ()
    proxy: str | None = None
    gateway: bool = False
    name: str | None = None
    profile: str | None = None
    dir: Path | None = None
    allow_ro: tuple[Path, ...] = ()
    allow_rw: tuple[Path, ...] = ()
    pass_env: tuple[str, ...] = ()
    shell: bool = False
    dry_run: bool = False
    show_home: tuple[Path, ...] = ()
    share_agent_home: bool = False
    no_network: bool = False
    transparent: str = "off"
    without_seccomp: bool = False
    unix_sockets: str | None = None
    max_processes: int = 4096
    max_memory: int | None = None
    tmpfs_size: int | None = None
    verify: bool = False
    skip_permissions: bool = False
    verbose: bool = False
    clone: bool = False
    branch: str | None = None
    forward: tuple[Forward, ...] = ()
    publish: tuple[Published | Automatic, ...] = ()
    allow_remote: bool = False

    @property
    def published(self) -> tuple[Published, ...]:
        """The ports that are published from the start."""
        return tuple(one for one in self.publish if isinstance(one, Published))


@dataclass(frozen=True, slots=True)
class _ChosenPolicy:
    """The policy of a run: the rules of its proxy, and what else it says."""

    settings: Settings
    network: NetworkMode
    profile: str | None = None  # the one that the policy names


def run_spec_of(given: RunOptions, settings: Settings, sources: PolicySources) -> RunSpec:
    """Return what is to be run, and how."""
    project, project_id = _project(given.dir)
    join = None if given.proxy is None else _join_of(given.proxy)
    name = _profile_name(given, settings)
    chosen = _choose_policy(given, settings, sources, name, project)
    _refuse_without_proxy(given, chosen)
    profile = profiles.load(chosen.profile or name, _own_profiles(settings))
    if given.share_agent_home:
        profile = shared(profile)
    path = profiles.find_project_file(project)
    restrictions = profiles.read_restrictions(path) if path else ProjectRestrictions()
    network = _choose_network(given, chosen.network, restrictions)
    _refuse_lost_denials(given, network, restrictions, path)
    _refuse_open_sockets(given, network)
    _refuse_transparent_without_proxy(given, network)
    _check_mappings(given, network)
    sandbox = SandboxSpec(
        command=_command(given, profile),
        project=project,
        profile=profile,
        allow_ro=_absolute(given.allow_ro),
        allow_rw=_absolute(given.allow_rw),
        pass_env=given.pass_env,
        shell=given.shell,
        show_home=_of_home(given.show_home),
        share_agent_home=given.share_agent_home,
        network=network,
        seccomp=not given.without_seccomp,
        unix_sockets=_unix_sockets(given),
        hide=restrictions.hide,
        read_only=restrictions.read_only,
        limits=_limits(given),
        transparent=given.transparent == "on",
        project_id=project_id,
    )
    # The run's own proxy listens where nobody else can reach it, and demands nothing.
    login = None if join is None else chosen.settings.credentials
    return RunSpec(
        sandbox,
        replace(
            chosen.settings,
            narrowing=path,
            narrowing_text=restrictions.text,
            credentials=login,
            host_ports=tuple(
                dict.fromkeys(one.target.port for one in given.forward if one.to_host)
            ),
        ),
        name=given.name,
        join=join,
        verify=given.verify,
        show_plan=given.verbose,
        clone=given.clone,
        branch=given.branch,
        forwards=given.forward,
        published=given.published,
        publishes_new=Automatic.AUTO in given.publish,
    )


def _join_of(text: str) -> str:
    """Return the address of --proxy without the http:// that people paste."""
    address = text.removeprefix("http://").removesuffix("/")
    if "@" in address and not text.startswith("unix:"):
        raise ConfigError(
            "a password on the command line is visible to every program",
            where="--proxy http://...@...",
            fix="name the address alone; give USER:PASSWORD in a file with --proxy-auth-file, or "
            "in CLAUDE_PROXY_AUTH",
        )
    return address


# --- the project


def _project(given: Path | None) -> tuple[Path, FileId]:
    """Return the project's directory; the working directory itself, even if it is moved now."""
    try:
        path = Path.cwd() if given is None else Path(os.path.abspath(given))  # noqa: PTH100 - no links
        if not path.is_dir():
            raise ClaudeProxyError(
                "the project is not a directory" if path.exists() else "there is no such directory",
                where=f"--dir {given}",
                fix="name the directory of the project",
            )
        os.listdir(path)  # noqa: PTH208 - only whether it can be
        found = Path().stat() if given is None else path.stat()
    except OSError as error:
        raise ClaudeProxyError(
            f"the project directory cannot be used: {(error.strerror or '').lower()}",
            where="--dir" if given is None else f"--dir {given}",
            fix="name a directory that you may enter",
        ) from error
    return path, FileId(found.st_dev, found.st_ino)


# --- the policy


def _choose_policy(
    given: RunOptions, settings: Settings, sources: PolicySources, profile: str, project: Path
) -> _ChosenPolicy:
    """Return the policy of the run; a proxy that is joined has its own."""
    if given.proxy is not None:
        if sources.option is not None:
            raise ConfigError(
                "the proxy that is joined has a policy of its own",
                where="--policy, --proxy",
                fix="drop one of them",
            )
        return _ChosenPolicy(replace(settings, policy=None), NetworkMode.PROXY)
    policy_files.refuse_groups_file(settings.confdir)
    projects = {_real(path): policy for path, policy in sources.projects.items()}
    choice = policy_files.choose(
        replace(sources, projects=projects),
        _real(project),
        (profile, profiles.load(profile, _own_profiles(settings)).policy),
    )
    settings = replace(settings, policy=choice.policy)
    file = policy_files.policy_file_for(settings, where=choice.origin)
    if file.network is not NetworkMode.PROXY:  # the allowlist's credentials stay outside then, too
        settings = replace(settings, policy=None)
    names_profile = given.profile is None and not choice.by_profile
    return _ChosenPolicy(settings, file.network, file.profile if names_profile else None)


def _refuse_without_proxy(given: RunOptions, chosen: _ChosenPolicy) -> None:
    """Refuse what only a proxy can do where the policy has none."""
    if chosen.network is NetworkMode.PROXY:
        return
    needs_proxy = {
        "--verify": given.verify,
        "--learn": chosen.settings.learn is not None,
        "--gateway": given.gateway,
        "--ask": chosen.settings.ask,
    }
    option = next((option for option, is_given in needs_proxy.items() if is_given), None)
    if option is not None:
        raise ConfigError(
            "with this policy COMMAND runs without a proxy",
            where=f"--policy, {option}",
            fix=f"drop {option}, or choose another policy",
        )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


# --- the profile


def _profile_name(given: RunOptions, settings: Settings) -> str:
    """Return the profile that is named, or the one of COMMAND."""
    if given.profile is not None:
        return given.profile
    if not given.command:
        return profiles.DEFAULT
    return profiles.of_command(given.command[0], _own_profiles(settings))


def _own_profiles(settings: Settings) -> Path:
    return settings.confdir / profiles.DIRECTORY


def _command(given: RunOptions, profile: Profile) -> tuple[str, ...]:
    """Return COMMAND, with the words by which it does not ask if that is wanted."""
    if not (given.skip_permissions and given.command):
        return given.command
    if not profile.unattended:
        raise ConfigError(
            f"the profile {profile.name!r} does not say how to skip COMMAND's permission prompts",
            where="--skip-permissions",
            fix="leave it out, or add `unattended` to a profile of your own",
        )
    return (given.command[0], *profile.unattended, *given.command[1:])


# --- the network


def _choose_network(
    given: RunOptions, of_policy: NetworkMode, restrictions: ProjectRestrictions
) -> NetworkMode:
    """Return the policy's network, unless the option or the project's file takes it away."""
    if given.no_network or not restrictions.network:
        return NetworkMode.NONE
    return of_policy


def _refuse_lost_denials(
    given: RunOptions,
    network: NetworkMode,
    restrictions: ProjectRestrictions,
    path: Path | None,
) -> None:
    joins = network is NetworkMode.PROXY and given.proxy is not None
    if restrictions.denies and (joins or network is NetworkMode.OPEN):
        raise ConfigError(
            "only a proxy of the run's own can deny what the project's file denies",
            where=f"{path}, deny",
            fix="drop --proxy or --policy, or remove `deny` from the file",
        )


def _refuse_open_sockets(given: RunOptions, network: NetworkMode) -> None:
    if network is NetworkMode.OPEN and given.without_seccomp:
        raise ConfigError(
            "on this machine's own network the sandbox could reach its abstract Unix sockets, "
            "those of agents and of the session bus too",
            where="--policy, --without-seccomp",
            fix="drop --without-seccomp, or choose another policy",
        )


def _refuse_transparent_without_proxy(given: RunOptions, network: NetworkMode) -> None:
    if given.transparent == "on" and network is not NetworkMode.PROXY:
        raise ConfigError(
            "there is no proxy that the programs inside could be led to",
            where="--transparent on",
            fix="add --transparent off, or choose a network with a proxy",
        )


def _check_mappings(given: RunOptions, network: NetworkMode) -> None:
    """Refuse port mappings that this run cannot have."""
    if not given.forward and not given.publish:
        return
    from claude_proxy.sandbox.plan import port_checks  # noqa: PLC0415 - few runs map ports

    port_checks.check(given.forward, given.published)
    if given.forward and network is not NetworkMode.PROXY:
        raise ConfigError(
            "only a proxy can lead a port inside to another host, and this run has none",
            where=f"--forward {given.forward[0]}",
            fix="drop it, or run with a proxy",
        )
    to_host = next((one for one in given.forward if one.to_host), None)
    if to_host is not None and given.proxy is not None:
        raise ConfigError(
            "a service of this machine is let in for one run, and the proxy that is joined serves "
            "others too",
            where=f"--forward {to_host}, --proxy",
            fix="leave --proxy out: the run then has its own proxy",
        )
    if given.publish and network is NetworkMode.OPEN:
        raise ConfigError(
            "COMMAND has this machine's own network, so its ports are there already",
            where=f"--publish {given.publish[0]}, --policy",
            fix="drop --publish",
        )
    remote = next((one for one in given.published if one.is_remote), None)
    if remote is not None and not given.allow_remote:
        raise ConfigError(
            f"listening on {remote.address} lets anyone "
            f"{option_values.meaning_of_remote(remote.address)} reach the server inside",
            where=f"--publish {remote}",
            fix="publish it on 127.0.0.1, or add --allow-remote",
        )


def _unix_sockets(given: RunOptions) -> UnixSockets:
    if given.unix_sockets is not None and given.without_seccomp:
        raise ConfigError(
            "without the system call filter, every Unix socket that is visible can be reached",
            where=f"--without-seccomp, --unix-sockets {given.unix_sockets}",
            fix="drop one of the two",
        )
    return UnixSockets(given.unix_sockets or UnixSockets.PRIVATE)


def _of_home(paths: Iterable[Path]) -> tuple[Path, ...]:
    return _absolute(Path.home() / path.expanduser() for path in paths)


def _limits(given: RunOptions) -> ResourceLimits:
    """Return the limits of a run; by default it leaves some of the machine to its user."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ResourceLimits(
        processes=given.max_processes,
        memory=given.max_memory or machine * 3 // 4,
        tmpfs=given.tmpfs_size or machine // 4,
    )


def _absolute(paths: Iterable[Path]) -> tuple[Path, ...]:
    # Without following links: what they lead to is for the plan to judge.
    expanded = (path.expanduser() for path in paths)
    return tuple(Path(os.path.abspath(path)) for path in expanded)  # noqa: PTH100
