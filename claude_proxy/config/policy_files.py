"""Policy files: the default allowlist, policies by name, and the choice among them for a run.

Laws kept: the sandbox cannot change its own policy, no quiet downgrade. A file that others may
write is refused, at the start and at every reload. A reload that fails changes nothing: the last
good policy stays. A project's file is another matter: the agent can write it, so it can neither
allow anything, nor take back while it runs what it has denied, nor keep the owner's changes from
applying.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import field
from pathlib import Path

from claude_proxy.config import config_yaml, preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.model import NetworkMode, PolicyFile
from claude_proxy.config.file_states import POLICIES, PRESETS, States, changed, fingerprint
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule

ALLOWLIST = "allowlist.yaml"
GROUPS = "groups.toml"  # of bw-claude's format, which is no longer read

_NARROWING_BYTES = 256 * 1024
_NARROWING_RULES = 20_000

# What was read by what names it: configuration directory, policy and allowlist.
type _Kept = dict[tuple[Path, str | None, Path], tuple[OwnerFiles, PolicyFile]]
_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@dataclass(frozen=True, slots=True)
class PolicySources:
    """What names the policy of a run, besides its profile."""

    option: str | None = None  # a policy, by option or variable
    has_allowlist_option: bool = False
    configured: str | None = None  # a policy, by config.yaml
    configures_allowlist: bool = False
    projects: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """Which policy a run takes, and why."""

    policy: str | None  # None: the allowlist
    origin: str  # as messages show it
    by_profile: bool = False  # the command's profile names it


def load(path: Path, confdir: Path | None = None) -> Loaded:
    """Return the policy in the file `path`; ConfigError if it is wrong or not for a proxy."""
    files = OwnerFiles(path.parent if confdir is None else confdir)
    return _loaded(files, served(read_file(files, path)))


def load_for(settings: Settings, last: Loaded | None = None, seen: States | None = None) -> Loaded:
    """Return the policy that the settings name; ConfigError says what is wrong with it.

    With a `last` one, a bad project's file is a complaint, and what it denied once stays. `seen`
    is filled with the state of every file that was looked at, when it fails, too.
    """
    files = OwnerFiles(settings.confdir)
    files.states = {} if seen is None else seen
    policy = served(_policy_file(files, settings))
    if settings.learn is not None and settings.learn[0] is Learn.EVERYTHING:
        policy = policy.allowing_by_default(Location("--learn", 1, 1), "learning lets it through")
    if settings.ask and not policy.asks_by_default and not policy.allows_by_default:
        policy = policy.asking_by_default(Location("--ask", 1, 1))
    if settings.narrowing is not None:
        # Before it is read: a change in between is then seen as one.
        files.states[settings.narrowing] = fingerprint(settings.narrowing)
    narrowing, complaint = _narrowing(settings, last)
    if narrowing:
        policy = policy.with_denials(narrowing)
    if settings.host_ports:
        from claude_proxy.policy import host_services  # noqa: PLC0415 - few runs were given one

        policy = host_services.with_host_services(policy, settings.host_ports)
    return replace(_loaded(files, policy), narrowing=narrowing, complaint=complaint)


def _loaded(files: OwnerFiles, policy: Policy) -> Loaded:
    return Loaded(policy, files.states, files.digests, frozenset(files.blank))


def policy_file_for(settings: Settings, where: str = "--policy") -> PolicyFile:
    """Return the policy file that the settings name, whatever network it gives.

    `where` is what names the policy, for the error about one that does not exist.
    """
    return _policy_file(OwnerFiles(settings.confdir), settings, where)


@contextlib.contextmanager
def readings_kept() -> Iterator[None]:
    """Within it, read a policy again only if one of its files has changed since.

    For a start, which asks for the same policy again and again. Not for what watches the files: a
    file can change without its state showing it at once (`server.reload`).
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def files_for(settings: Settings) -> list[Path]:
    """Return every file of the owner's that the policy is made of, or would be if it existed."""
    files = OwnerFiles(settings.confdir)
    _policy_file(files, settings)
    return list(files.states)


def guarded(settings: Settings) -> list[Path]:
    """Return what a sandbox must not be able to write: this run's policy, and the next one's."""
    names = (ALLOWLIST, POLICIES, PRESETS, config_yaml.NAME, config_yaml.GATEWAY_NAME)
    own = [settings.confdir / name for name in names]
    return list(dict.fromkeys((*files_for(settings), *own)))


def read_file(files: OwnerFiles, path: Path) -> PolicyFile:
    """Return the policy file at a path."""
    text = files.read(path, "allowlist", "name a readable allowlist file with --allowlist")
    return loader.read(text, name=str(path), library=files.library, identity=os.path.realpath(path))


def read_named(files: OwnerFiles, name: str, where: str = "--policy") -> PolicyFile:
    """Return the policy of a name, the owner's before the built-in one; ConfigError if none."""
    refuse_groups_file(files.confdir, files.states)
    own = None if preset_files.is_name(name) is None else files.own_file(POLICIES, name)
    if own is not None:
        text = files.read(own, "policy", "make it a readable file")
        identity = os.path.realpath(own)
        return loader.read(text, name=str(own), library=files.library, identity=identity)
    try:
        text = preset_files.policy_text(name)
    except KeyError:
        # A typo never leads to the policy that filters nothing.
        known = [each for each in policy_names(files) if each != "open"]
        fix = nearest(name.lower(), known) or "`claude-proxy policies` lists them"
        what = f"there is no policy {nodes.quoted(name)}"
        raise ConfigError(what, where=where, fix=fix) from None
    return loader.read(text, name=f"the built-in policy {name}", library=files.library)


def policy_names(files: OwnerFiles) -> tuple[str, ...]:
    """Return the names of all policies, in alphabetical order."""
    return tuple(sorted({*preset_files.policy_names(), *files.own_names(POLICIES)}))


def served(file: PolicyFile) -> Policy:
    """Return the rules for a proxy; ConfigError if the policy has no use for one."""
    if file.network is NetworkMode.PROXY:
        return file.policy
    why = "there is nothing to serve" if file.network is NetworkMode.NONE else "nothing is filtered"
    raise ConfigError(
        f"the policy has `network: {file.network}`: {why}",
        where=f"{file.source.file}:{file.source.line}:{file.source.column}, network",
        fix="use it with `claude-proxy run`, or choose another policy",
    )


def choose(sources: PolicySources, project: Path, profile: tuple[str, str | None]) -> PolicyChoice:
    """Return which policy a run takes.

    Precedence: --policy or --allowlist, the project's binding, config.yaml's policy or allowlist,
    the profile's policy, the default allowlist. Of several bindings the one of the nearest
    directory counts. Paths are compared as they are: the caller resolves links. `profile` is the
    name of the command's profile and its policy.
    """
    if sources.option is not None:
        return PolicyChoice(sources.option, "--policy")
    if sources.has_allowlist_option:
        return PolicyChoice(None, "--allowlist")
    bound = [path for path in sources.projects if project.is_relative_to(path)]
    if bound:
        nearest_one = max(bound, key=lambda path: len(path.parts))
        return PolicyChoice(sources.projects[nearest_one], f"projects, {nearest_one}")
    if sources.configured is not None or sources.configures_allowlist:
        return PolicyChoice(sources.configured, "config.yaml")
    name, policy = profile
    if policy is not None:
        return PolicyChoice(policy, f"profile {name}", by_profile=True)
    return PolicyChoice(None, "the default allowlist")


def refuse_groups_file(confdir: Path, states: States | None = None) -> None:
    """Raise ConfigError if a groups file is found that the owner may still count on."""
    path = confdir / GROUPS
    if states is not None:
        states[path] = fingerprint(path)
    if os.path.lexists(path):
        raise ConfigError(
            "groups files in TOML are no longer read: policies are YAML files now",
            where=str(path),
            fix=f"convert it with `claude-proxy import bw-claude {path} --output {confdir}`, "
            "then remove or rename it",
        )


def _policy_file(files: OwnerFiles, settings: Settings, where: str = "--policy") -> PolicyFile:
    kept = _kept.get()
    if kept is None:
        return _read_policy(files, settings, where)
    key = (files.confdir, settings.policy, settings.allowlist)
    if key not in kept or changed(kept[key][0].states):
        fresh = OwnerFiles(files.confdir)
        kept[key] = (fresh, _read_policy(fresh, settings, where))
    read, file = kept[key]
    files.states.update(read.states)
    files.digests.update(read.digests)
    files.blank.update(read.blank)
    return file


def _read_policy(files: OwnerFiles, settings: Settings, where: str) -> PolicyFile:
    if settings.policy is None:
        return read_file(files, settings.allowlist)
    return read_named(files, settings.policy, where)


# The project's file.


def _narrowing(
    settings: Settings, last: Loaded | None
) -> tuple[tuple[Rule, ...], ConfigError | None]:
    path, expected = settings.narrowing, settings.narrowing_text
    if path is None:
        return (), None
    try:
        text = _read_plain(path)
        # Its owner has agreed to this text; later ones only add to it.
        if last is None and expected is not None and text != expected:
            raise _changed(path)
        rules = loader.load_narrowing(text, name=str(path))
        return (rules if last is None else _added(last.narrowing, rules, path)), None
    except ConfigError as error:
        if last is None:
            raise
        return last.narrowing, error


def _changed(path: Path) -> ConfigError:
    return ConfigError(
        "the project's file has changed while the run started",
        where=str(path),
        fix="if another run may write it, end that one; then try again",
    )


def _added(before: tuple[Rule, ...], rules: tuple[Rule, ...], path: Path) -> tuple[Rule, ...]:
    """Return the rules of both; by what they say, as their lines may have moved."""
    found = {str(rule): rule for rule in (*before, *rules)}
    if len(found) > max(_NARROWING_RULES, len(before)):
        raise ConfigError(
            f"more than {_NARROWING_RULES} denials were added while it runs",
            where=str(path),
            fix="start the run again",
        )
    return tuple(found.values())


def _read_plain(path: Path) -> str:
    """Return the text of a file that an agent may have made: no link, no pipe, no device."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - of a descriptor
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            raw = file.read(_NARROWING_BYTES + 1) if plain else b""
    except OSError as error:
        raise _not_plain(path, (error.strerror or type(error).__name__).lower()) from error
    if not plain:
        raise _not_plain(path, "it is not a plain file")
    if len(raw) > _NARROWING_BYTES:
        raise ConfigError(
            f"the file is larger than {_NARROWING_BYTES // 1024} KiB",
            where=str(path),
            fix="is it the right file?",
        )
    return decode(raw, str(path))


def _not_plain(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the project's file cannot be read: {why}",
        where=str(path),
        fix="replace it by a plain file, or remove it",
    )
