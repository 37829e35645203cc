"""Conversion of bw-claude's groups files to policy files, presets and profiles.

Law kept: no quiet downgrade. A denial is always carried over; what cannot mean the same in the new
files (an exception from a denial above all) is a remark with its line, and then less is allowed
than before, never more. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist.conflicts import Coverage
from claude_proxy.config.allowlist.loader import Library, preset_policy, read
from claude_proxy.config.bw_claude import loader
from claude_proxy.config.bw_claude.reader import (
    PRESET,
    File,
    Group,
    GroupsDefault,
    GroupsNetwork,
    Host,
    Name,
    PolicyEntry,
)
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern

_NETWORKS = {
    GroupsNetwork.PROXY: "proxy",
    GroupsNetwork.DISABLED: "none",
    GroupsNetwork.OPEN: "open",
}
# Profiles that are shipped: a tool's own profile extends the one that it had.
_PROFILES = ("claude", "codex", "gemini")
_is_plain = lazy_pattern(r"\.?[a-z][a-z0-9-]*(\.[a-z0-9-]+)+").fullmatch


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that means less in the converted files than in the groups file."""

    what: str
    source: Location
    fix: str

    def __str__(self) -> str:
        return f"{self.source.file}:{self.source.line}: {self.what}; fix: {self.fix}"


@dataclass(slots=True)
class Conversion:
    """Files to write, by their names below the configuration directory, and what to know."""

    files: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)


def convert(text: str, *, name: str) -> Conversion:
    """Return the files that mean what a groups file says; raise ConfigErrors if it is wrong."""
    converter = _Converter(loader.load(text, name=name), name)
    converter.convert()
    return converter.done


class _Converter:
    def __init__(self, file: File, name: str) -> None:
        self.done = Conversion()
        self._file = file
        self._heading = f"# Converted from {name} by `claude-proxy import bw-claude`.\n"
        self._presets = self._renamed(file.groups, "group", taken=preset_files.names())
        self._policies = self._renamed(file.policies, "policy", taken=())

    def convert(self) -> None:
        for group in self._file.groups.values():
            self._preset(group)
        for entry in self._file.policies.values():
            self._policy(entry)
        for tool, policy in self._file.tools.items():
            self._tool(tool, policy)
        self._check()

    def _renamed(self, names: Iterable[str], what: str, *, taken: Iterable[str]) -> dict[str, str]:
        """Return the name that each file gets: lower case, and none that is taken."""
        given = set(taken)
        found: dict[str, str] = {}
        for name in names:
            new = name.lower().lstrip("._-")[:50] or what
            if new in given:
                new = f"my-{new}"
            while new in given:
                new += "-2"
            given.add(new)
            found[name] = new
        return found

    # Files.

    def _preset(self, group: Group) -> None:
        lines = [f"description: {_quoted(group.description)}"] if group.description else []
        entries = [_host(host.pattern) for host in group.hosts]
        for name in group.groups:
            entries += [f"{{preset: {preset}}}" for preset in self._presets_of(name.text)]
        self._write(f"presets/{self._presets[group.name]}.yaml", [*lines, *_list("allow", entries)])

    def _policy(self, entry: PolicyEntry) -> None:
        lines = [f"description: {_quoted(entry.description)}"] if entry.description else []
        if entry.network is not GroupsNetwork.PROXY:
            lines.append(f"network: {_NETWORKS[entry.network]}")
            for name in (*entry.allow_groups, *entry.deny_groups):
                what = f"the group {name.text} has no effect without the proxy"
                self._remark(what, name.source, "nothing to do, unless network: proxy was meant")
        if entry.filesystem is not None:
            lines.append(f"profile: {_quoted(entry.filesystem)}")
        if entry.network is GroupsNetwork.PROXY:
            lines.append(f"default: {entry.default}")
            lines += self._lists(entry)
        self._write(f"policies/{self._policies[entry.name]}.yaml", lines)

    def _lists(self, entry: PolicyEntry) -> list[str]:
        allowed = list(self._below(entry.allow_groups))
        denials = [host for group in allowed for host in group.hosts_deny]
        for group in self._below(entry.deny_groups):
            denials += [*group.hosts, *group.hosts_deny]
        denials += self._hosts_of_presets(entry.deny_groups)
        allows = [host for group in allowed for host in group.hosts]
        allows += self._hosts_of_presets(entry.allow_groups)
        self._note_exceptions(entry, allows, denials)
        presets = dict.fromkeys(
            preset for name in entry.allow_groups for preset in self._presets_of(name.text)
        )
        denied = dict.fromkeys(_host(host.pattern) for host in denials)
        return [
            *_list("allow", [f"{{preset: {preset}}}" for preset in presets]),
            *(_list("deny", denied) if denied else ()),
        ]

    def _tool(self, tool: str, policy: Name) -> None:
        base = tool if tool in _PROFILES else "shell"
        if preset_files.is_name(tool) is None:
            what = f"the policy {policy.text} of the command {tool} cannot be carried over"
            fix = f"name it: claude-proxy run --policy {self._policy_name(policy.text)} -- {tool}"
            self._remark(what, policy.source, fix)
            return
        lines = [f"extends: {base}", f"commands: [{_quoted(tool)}]"]
        lines.append(f"policy: {self._policy_name(policy.text)}")
        self._write(f"profiles/{tool}.yaml", lines)

    def _policy_name(self, name: str) -> str:
        return self._policies.get(name, name)

    def _write(self, name: str, lines: list[str]) -> None:
        self.done.files[name] = self._heading + "".join(f"{line}\n" for line in lines)

    # What groups hold.

    def _presets_of(self, name: str) -> tuple[str, ...]:
        """Return the presets that a group of this name has become."""
        if name.startswith(PRESET):
            return (name.removeprefix(PRESET),)
        if name in self._presets:
            return (self._presets[name],)
        return loader.BUILT_IN[name]

    def _below(self, names: Iterable[Name]) -> Iterator[Group]:
        """Yield the groups of these names and all that are in them, each once."""
        for name in self._names_below(names):
            if name in self._file.groups:
                yield self._file.groups[name]

    def _names_below(self, names: Iterable[Name]) -> Iterator[str]:
        waiting = [name.text for name in names][::-1]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            yield name
            if name in self._file.groups:
                waiting += [each.text for each in self._file.groups[name].groups][::-1]

    def _hosts_of_presets(self, names: Iterable[Name]) -> list[Host]:
        # A preset that is denied is denied whole, though it allows a part of a host.
        found = []
        for name in self._names_below(names):
            if name not in self._file.groups:
                for preset in self._presets_of(name):
                    rules = preset_policy(preset).allow
                    found += [Host(rule.pattern, rule.source) for rule in rules]
        return found

    # What cannot be carried over.

    def _note_exceptions(self, entry: PolicyEntry, allows: list[Host], denials: list[Host]) -> None:
        """Note each host that was allowed as the narrower one of two patterns."""
        denied = Coverage((host.pattern, None, host) for host in denials)
        noted: set[tuple[HostPattern, HostPattern]] = set()
        for host in allows:
            for wide, denial in denied.around(host.pattern, None):
                if wide.specificity >= host.pattern.specificity:
                    continue
                if (host.pattern, wide) in noted:
                    continue
                noted.add((host.pattern, wide))
                self._remark(
                    f"in the policy {entry.name} {host.pattern} was allowed although {wide} is "
                    f"denied ({denial.source}), as the narrower pattern won; now it is denied",
                    host.source,
                    "deny what the wider pattern was to keep out by narrower patterns, or leave "
                    "the denial out: what no entry allows is denied anyway"
                    if entry.default is GroupsDefault.DENY
                    else "deny by narrower patterns, which leave it out",
                )

    def _remark(self, what: str, source: Location, fix: str) -> None:
        self.done.remarks.append(Remark(what, source, fix))

    def _check(self) -> None:
        """Read what was written, as `claude-proxy run` would: a mistake here is ours."""
        own = {
            name.removeprefix("presets/").removesuffix(".yaml"): text
            for name, text in self.done.files.items()
            if name.startswith("presets/")
        }

        def preset(name: str) -> str:
            return own[name] if name in own else preset_files.text(name)

        library = Library(preset, lambda: (*own, *preset_files.names()))
        for name, text in self.done.files.items():
            if name.startswith("policies/"):
                read(text, name=name, library=library)


def _host(pattern: HostPattern) -> str:
    text = str(pattern)
    return text if _is_plain(text) else _quoted(text)


def _quoted(text: str) -> str:
    """Return a text in double quotes, as YAML reads it back; nothing hidden is written as it is."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)}"'


def _list(name: str, entries: Iterable[str]) -> list[str]:
    items = [f"  - {entry}" for entry in entries]
    return [f"{name}:", *items] if items else [f"{name}: []"]
