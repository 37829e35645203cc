"""List edits: entries added to the owner's policy file, or removed, and the file written.

Laws kept: the file is written only if the new text loads, whole or not at all, and by one command
at a time. An entry that only adds an address keeps the limits that its host has.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claude_proxy.cli import paths
from claude_proxy.config import policy_files, preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import (
    AllowEntry,
    EditError,
    Entry,
    PresetEntry,
    with_entries,
    without_entries,
)
from claude_proxy.config.file_states import POLICIES
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.strict_yaml.hosts import network_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy import coverage
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule
from claude_proxy.system import file_replacement
from claude_proxy.wire.address import Network


@dataclass(frozen=True, slots=True)
class EditedList:
    """The file that is edited, and what it starts from where the owner has none yet."""

    path: Path
    confdir: Path
    begun: str | None  # the text of the shipped list or policy; None: the owner has a file
    option: tuple[str, ...]  # that names it, and its --confdir, in a command

    @property
    def library(self) -> loader.Library:
        """What the file may name."""
        return OwnerFiles(self.confdir).library

    def text(self) -> str:
        """Return the text as it is now."""
        return paths.read_allowlist(self.path) if self.begun is None else self.begun

    def load(self, text: str) -> Policy:
        """Return the policy of a text; ConfigErrors with every mistake."""
        return loader.load(text, name=str(self.path), library=self.library)


def list_of(given: Mapping[str, Any], confdir: Path) -> EditedList:
    """Return the file to edit: the named one, else config.yaml's, else the default allowlist."""
    file: Path | None = given["allowlist_file"]
    policy: str | None = given["policy_name"]
    if policy is not None:
        if file is not None:
            what, fix = "--policy and --allowlist exclude each other", "drop one of them"
            raise ConfigError(what, where="--policy, --allowlist", fix=fix)
        return _policy_list(policy, confdir)
    own = (file or confdir / paths.ALLOWLIST).absolute()
    begun = None
    if file is None and not os.path.lexists(own):
        begun = paths.read_allowlist(paths.shipped_allowlist())
    option = () if file is None else ("--allowlist", str(file))
    return EditedList(own, confdir, begun, option)


def _policy_list(name: str, confdir: Path) -> EditedList:
    files = OwnerFiles(confdir)
    policy_files.served(policy_files.read_named(files, name))
    path = (confdir / POLICIES / f"{name}{preset_files.SUFFIX}").absolute()
    begun = None if os.path.lexists(path) else preset_files.policy_text(name)
    return EditedList(path, confdir, begun, ("--policy", name))


def write(wanted: Sequence[Entry], edited: EditedList, *, remove: bool) -> tuple[str, str]:
    """Change the file; return its text before and after."""

    def change(text: str) -> str:
        return edited_text(text, wanted, edited, remove=remove)

    before, after, _ = rewrite(change, edited)
    return before, after


def rewrite(
    change: Callable[[str], str], edited: EditedList, *, backup: str | None = None
) -> tuple[str, str, Path | None]:
    """Replace the file's text; return it before and after, and where the old file is kept.

    `backup` is what its name gets at the end; without it, no old file is kept.
    """
    kept = None
    try:
        target = edited.path.resolve()
        if not target.parent.exists():  # nothing is created for a change that is none, or fails
            before = edited.text()
            if change(before) == before:
                return before, before, None
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_replacement.locked(target):
            # Read again under the lock: another command may have written meanwhile.
            exists = target.exists()
            current = replace(edited, begun=None) if exists else edited
            before = current.text()
            after = change(before)
            if after != before:
                mode = target.stat().st_mode & 0o777 if exists else 0o600
                if exists and backup is not None:
                    kept = _unused(target.with_name(f"{target.name}{backup}"))
                    file_replacement.replace(kept, before.encode(), mode)
                file_replacement.replace(target, after.encode(), mode)
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise ConfigError(
            f"the allowlist cannot be written: {reason}",
            where=str(edited.path),
            fix="check its owner, its mode and the free space",
        ) from error
    return before, after, kept


def _unused(path: Path) -> Path:
    """Return a path, with a number before its suffix if there is such a file already."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_suffix(f".{number}{path.suffix}")
    return found


def edited_text(text: str, wanted: Sequence[Entry], edited: EditedList, *, remove: bool) -> str:
    """Return a text with the entries added or removed; ConfigError if it would not load."""
    for entry in wanted:
        try:
            text = _without(text, entry, edited) if remove else _with(text, entry, edited)
        except EditError as error:
            where = f"{edited.path}:{error.line}"
            raise ConfigError(str(error), where=where, fix=error.fix) from error
    edited.load(text)
    return text


def _with(text: str, entry: Entry, edited: EditedList) -> str:
    policy = edited.load(text)
    missing = [
        each
        for each in _as_limited(entry, policy)
        if any(
            coverage.first_covering(policy.allow, rule) is None for rule in _rules_of(each, edited)
        )
        or (isinstance(each, PresetEntry) and _limits_api(each, policy, edited))
    ]
    return with_entries(text, missing) if missing else text


def _as_limited(entry: Entry, policy: Policy) -> Iterator[Entry]:
    """Yield the entry; one that only adds an address, with the limits that its host has."""
    if isinstance(entry, PresetEntry) or not entry.addresses or entry.methods or entry.paths:
        yield entry
        return
    plain = rule_of(replace(entry, addresses=()))
    here = [rule for rule in policy.allow if is_about(rule, plain)]
    if not here or any(not rule.limited for rule in here):
        yield entry
        return
    for rule in here:
        methods = () if rule.methods is None else tuple(m for m in METHODS if m in rule.methods)
        globs = () if rule.paths is None else tuple(glob.text for glob in rule.paths)
        yield replace(entry, methods=methods, paths=globs)


def is_about(rule: Rule, plain: Rule) -> bool:
    """Return whether a rule covers the host, port and scheme of another, whatever its limits."""
    ports = rule.ports is None or plain.ports is None or plain.ports <= rule.ports
    same = coverage.includes_scheme(rule, plain)
    return ports and same and rule.pattern.includes(plain.pattern)


def _limits_api(entry: PresetEntry, policy: Policy, edited: EditedList) -> bool:
    """Return whether a preset limits an API more than the policy does."""
    added = loader.preset_policy(entry.name, edited.library).restrictions
    return any(each not in policy.restrictions for each in added)


def _without(text: str, entry: Entry, edited: EditedList) -> str:
    if isinstance(entry, PresetEntry):
        return without_entries(text, (), (entry.name,))
    here = [rule for rule in edited.load(text).allow if _is_entry(rule, entry, edited.path)]
    return without_entries(text, {rule.source.line for rule in here}, ())


def _is_entry(rule: Rule, entry: AllowEntry, path: Path) -> bool:
    """Return whether a rule is written in the file itself, and is what the entry names."""
    if rule.source.file != str(path) or rule.source.preset is not None:
        return False
    if rule.name != entry.host or rule.scheme is not entry.scheme:
        return False
    if rule.ports is not None and entry.port not in rule.ports:
        return False
    methods = not entry.methods or rule.methods == frozenset(entry.methods)
    globs = not entry.paths or {glob.text for glob in rule.paths or ()} == set(entry.paths)
    networks = set(map(network_text, rule.addresses))
    return methods and globs and (not entry.addresses or networks == set(entry.addresses))


def _rules_of(entry: Entry, edited: EditedList) -> tuple[Rule, ...]:
    if isinstance(entry, PresetEntry):
        return loader.preset_policy(entry.name, edited.library).allow
    return (rule_of(entry),)


def rule_of(entry: AllowEntry) -> Rule:
    """Return the rule of an entry by itself; ConfigError if its parts do not fit together."""
    try:
        (rule,) = loader.load(with_entries("", [entry]), name="entry").allow
    except ConfigError as error:
        raise ConfigError(error.what, where=entry.host, fix=error.fix) from error
    return rule


def spelled(text: str) -> str:
    """Return an address or a network as a file has it; PatternError if it is neither."""
    return network_text(network_of(text))


def network_text(network: Network) -> str:
    """Return a network as a file has it: one address without its prefix length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)
