"""Makes policies of groups files: named groups of hosts, and named policies that choose among them.

Laws kept: default-deny (1) and no quiet downgrade (11). Files are laid over each other by name,
the built-in one first; a group or a policy that nobody defines, and groups that hold each other,
stop the load. A denied group always wins. Pure, but for the built-in file of the package.
"""

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.messages import merged
from claude_proxy.config.groups.reader import (
    PRESET,
    Default,
    File,
    Group,
    Host,
    Name,
    Network,
    PolicyEntry,
    read,
)
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.nodes import Problems, quoted
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule, Tls

BUILT_IN = "built-in groups"
_HTTPS_PORTS = frozenset({443})


@dataclass(frozen=True, slots=True)
class Groups:
    """Everything that the files define together."""

    groups: Mapping[str, Group]
    policies: Mapping[str, PolicyEntry]
    tools: Mapping[str, Name]

    def policy(self, name: str) -> Policy:
        """Return the named policy as rules; ConfigError if there is none of that name."""
        entry = self.entry(name)
        allow, deny = _Rules(self.groups), _Rules(self.groups)
        for group in allow.groups_below(entry.allow_groups):
            allow.take(group.hosts)
            deny.take(group.hosts_deny)
        for group in deny.groups_below(entry.deny_groups):
            deny.take((*group.hosts, *group.hosts_deny))
        policy = Policy(
            (*(_allowing(host) for host in allow.hosts), *allow.of_presets),
            tuple(map(_denying, (*deny.hosts, *map(_host_of, deny.of_presets)))),
            restrictions=merged(allow.narrowings),
        )
        return (
            policy.allowing_by_default(entry.source) if entry.default is Default.ALLOW else policy
        )

    def entry(self, name: str, where: str = "--policy") -> PolicyEntry:
        """Return the named policy as it is written; ConfigError if there is none."""
        try:
            return self.policies[name]
        except KeyError:
            what = f"there is no policy {quoted(name)}"
            raise ConfigError(what, where=where, fix=_fix(name, self.policies)) from None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run gets of its policy."""

    name: str
    network: Network
    policy: Policy | None  # for Network.PROXY alone
    profile: str | None  # what of the home it sees; None: what goes with the command


def load(files: Iterable[tuple[str, str]] = ()) -> Groups:
    """Lay the files (name, text) over the built-in one; raise ConfigErrors with all mistakes."""
    found: list[ConfigError] = []
    parsed = [_built_in()]
    for name, text in files:
        problems = Problems(name)
        parsed.append(read(text, problems))
        found += _gathered(problems)
    if not found:
        groups = _laid_over(parsed)
        found = _wrong_names(groups)
        if not found:
            return groups
    raise ConfigErrors(found)


def choose(groups: Groups, *, policy: str | None, command: str) -> Chosen | None:
    """Return the policy that was named, else the command's own; None: the allowlist decides."""
    if policy is not None:
        return chosen(groups, policy)
    tool = groups.tools.get(command)
    return None if tool is None else chosen(groups, tool.text)


def chosen(groups: Groups, name: str) -> Chosen:
    """Return what a run gets of the named policy; ConfigError if there is none."""
    entry = groups.entry(name)
    proxied = entry.network is Network.PROXY
    policy = groups.policy(name) if proxied else None
    return Chosen(name, entry.network, policy, entry.filesystem)


def served(groups: Groups, name: str) -> Policy:
    """Return the policy of a proxy; ConfigError for one that has no use for a proxy."""
    entry = groups.entry(name)
    if entry.network is Network.PROXY:
        return groups.policy(name)
    why = "there is nothing to serve" if entry.network is Network.DISABLED else "it filters nothing"
    raise ConfigError(
        f'the policy {quoted(name)} has network = "{entry.network}": {why}',
        where=str(entry.source),
        fix=f"use it with `claude-proxy run --policy {name}`, or choose another policy",
    )


@cache
def _built_in() -> File:
    text = (resources.files("claude_proxy.config.groups") / "builtin.toml").read_text("utf-8")
    problems = Problems(BUILT_IN)
    file = read(text, problems)
    problems.raise_if_any()
    return file


def _laid_over(files: list[File]) -> Groups:
    # A ChainMap's first map wins, and so does the file that was named last.
    return Groups(
        ChainMap(*(dict(file.groups) for file in reversed(files))),
        ChainMap(*(dict(file.policies) for file in reversed(files))),
        ChainMap(*(dict(file.tools) for file in reversed(files))),
    )


def _gathered(problems: Problems) -> tuple[ConfigError, ...]:
    try:
        problems.raise_if_any()
    except ConfigErrors as errors:
        return errors.problems
    return ()


# Names that lead nowhere, or in a circle.


def _wrong_names(groups: Groups) -> list[ConfigError]:
    problems: dict[str, Problems] = {}

    def note(what: str, name: Name, fix: str) -> None:
        gathered = problems.setdefault(name.source.file, Problems(name.source.file))
        gathered.add_at(what, name.source.line, name.source.column, key=name.key, fix=fix)

    for name in _group_names(groups):
        if name.text.startswith(PRESET):
            if not _is_preset(name.text):
                error = loader.unknown_preset(name.text.removeprefix(PRESET), where="")
                note(error.what, name, error.fix or "")
        elif name.text not in groups.groups:
            note(f"there is no group {quoted(name.text)}", name, _fix(name.text, groups.groups))
    for name in groups.tools.values():
        if name.text not in groups.policies:
            fix = _fix(name.text, groups.policies)
            note(f"there is no policy {quoted(name.text)}", name, fix)
    for trail, name in _circles(groups.groups):
        note(f"groups hold each other: {' -> '.join(trail)}", name, "take one of them out")
    return [error for each in problems.values() for error in _gathered(each)]


def _group_names(groups: Groups) -> Iterator[Name]:
    for group in groups.groups.values():
        yield from group.groups
    for entry in groups.policies.values():
        yield from entry.allow_groups
        yield from entry.deny_groups


def _is_preset(text: str) -> bool:
    try:
        loader.preset_text(text.removeprefix(PRESET))
    except KeyError:
        return False
    return True


def _circles(groups: Mapping[str, Group]) -> Iterator[tuple[tuple[str, ...], Name]]:
    """Yield each way that leads back to where it began, with the name that closes it."""
    done: set[str] = set()
    for start in groups:
        # Not by recursion: a chain of groups may be longer than the interpreter's stack.
        trail: list[tuple[str, Iterator[Name]]] = []
        if start not in done:
            trail.append((start, iter(groups[start].groups)))
        on_trail = {name: at for at, (name, _) in enumerate(trail)}
        while trail:
            here, names = trail[-1]
            name = next(names, None)
            if name is None:
                done.add(here)
                del on_trail[here]
                trail.pop()
            elif name.text in on_trail:
                way = [each for each, _ in trail[on_trail[name.text] :]]
                yield (*way, name.text), name
            elif name.text in groups and name.text not in done:
                on_trail[name.text] = len(trail)
                trail.append((name.text, iter(groups[name.text].groups)))


def _fix(name: str, known: Mapping[str, object]) -> str:
    return nearest(name, known) or "`claude-proxy policies` lists what there is"


# Rules.


class _Rules:
    """Gathers hosts and presets, each once."""

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._groups = groups
        self._hosts: dict[object, Host] = {}
        self._of_presets: dict[Rule, None] = {}
        self._narrowings: dict[ApiRestrictions, None] = {}

    @property
    def hosts(self) -> Iterable[Host]:
        return self._hosts.values()

    @property
    def of_presets(self) -> Iterable[Rule]:
        return self._of_presets

    @property
    def narrowings(self) -> Iterable[ApiRestrictions]:
        return self._narrowings

    def take(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            self._hosts.setdefault(host.pattern, host)

    def groups_below(self, names: Iterable[Name]) -> Iterator[Group]:
        """Yield the groups of these names and all that are in them; presets are taken."""
        waiting = [name.text for name in names][::-1]
        seen: set[str] = set()
        while waiting:
            text = waiting.pop()
            if text in seen:
                continue
            seen.add(text)
            if text.startswith(PRESET):
                preset = loader.preset_policy(text.removeprefix(PRESET))
                self._of_presets |= dict.fromkeys(preset.allow)
                self._narrowings |= dict.fromkeys(preset.restrictions)
                continue
            group = self._groups[text]
            yield group
            waiting += [name.text for name in group.groups][::-1]


def _host_of(rule: Rule) -> Host:
    # Denied is a preset's host as a whole, whatever the preset would allow of it.
    return Host(rule.pattern, rule.source)


def _allowing(host: Host) -> Rule:
    # What an entry of an allowlist that is a host and nothing else means, too.
    return Rule(
        pattern=host.pattern,
        scheme=Scheme.HTTPS,
        ports=_HTTPS_PORTS,
        methods=None,
        paths=None,
        tls=Tls.INTERCEPT,
        addresses=(),
        note="",
        source=host.source,
    )


def _denying(host: Host) -> Rule:
    return Rule(
        pattern=host.pattern,
        scheme=None,
        ports=None,
        methods=None,
        paths=None,
        tls=Tls.INTERCEPT,
        addresses=(),
        note="",
        source=host.source,
    )
