"""Reads an allowlist: YAML text in, a `Policy` out, or every mistake with its place and fix.

Law kept: default-deny (1). An empty list allows nothing; whatever cannot be kept as written (a
path on a host whose TLS is passed through, a preset that nobody knows) stops the load. Secrets are
the owner's to name: a preset cannot, nor can a file of a project. Pure, but for the presets, which
are files of the package.
"""

import json
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

from claude_proxy.config import preset_files as packaged
from claude_proxy.config.allowlist.conflicts import note_clashes, note_unseen
from claude_proxy.config.allowlist.credentials import CredentialReader
from claude_proxy.config.allowlist.messages import Entry, NarrowingReader, resolved
from claude_proxy.config.allowlist.rules import RuleReader
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    parse,
    quoted,
)
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule

type Library = Callable[[str], str]

_KEYS = ("allow", "deny", "credentials", "anthropic")
_PRESET_KEYS = ("description", "allow", "anthropic")
_NARROWING_KEYS = ("deny",)
# What else the file of a project may hold: `claude-proxy run` reads it (launch/profiles.py).
_RUNS_KEYS = frozenset({"hide", "read_only", "network"})
# What other programs call the lists.
_OTHER_NAMES = {
    "allowed": "allow",
    "allowlist": "allow",
    "block": "deny",
    "blocked": "deny",
    "blocklist": "deny",
    "credential": "credentials",
    "denied": "deny",
    "denylist": "deny",
    "domains": "allow",
    "hosts": "allow",
    "inject": "credentials",
    "keys": "credentials",
    "rules": "allow",
    "secrets": "credentials",
    "tokens": "credentials",
    "whitelist": "allow",
}


class Preset(NamedTuple):
    """What a list of presets shows of one."""

    name: str
    description: str
    rules: int


def load(text: str, *, name: str, library: Library = packaged.text) -> Policy:
    """Return the policy that `text` describes; raise ConfigErrors with everything wrong in it."""
    problems = Problems(name)
    file = _File(problems, _Presets(library))
    file.read(parse(text, problems))
    problems.raise_if_any()
    policy = file.policy()
    note_clashes(file.allow, file.deny, problems)
    note_unseen(policy, problems)
    problems.raise_if_any()
    return policy


def load_narrowing(text: str, *, name: str) -> tuple[Rule, ...]:
    """Return the deny rules of a file that may only narrow; raise ConfigErrors if it is wrong.

    A project's own file is such a one, as an agent can write it. The keys that are for
    `claude-proxy run` are passed over.
    """
    problems = Problems(name)
    file = _File(problems, _Presets(packaged.text), keys=_NARROWING_KEYS)
    file.read(parse(text, problems))
    problems.raise_if_any()
    return tuple(file.deny)


def presets() -> list[Preset]:
    """Return every preset of the package, in alphabetical order."""
    found = []
    for name in packaged.names():
        file = _Presets(packaged.text).read(name, ())
        found.append(Preset(name, file.description, len(file.allow)))
    return found


def preset_text(name: str) -> str:
    """Return a preset's file as it is; KeyError if there is none of that name."""
    return packaged.text(name)


def unknown_preset(name: str, *, where: str) -> ConfigError:
    """Return the error for a name that no preset has."""
    return ConfigError(f"unknown preset {quoted(name)}", where=where, fix=_fix_of_preset(name))


def _fix_of_preset(name: str) -> str:
    return nearest(name.lower(), packaged.names()) or "`claude-proxy presets` lists them"


def preset_policy(name: str) -> Policy:
    """Return what a preset allows by itself, with all that it includes."""
    return _Presets(packaged.text).read(name, ()).policy()


def schema() -> dict[str, Any]:
    """Return the JSON Schema of an allowlist, for editors."""
    text = (resources.files("claude_proxy.config.allowlist") / "schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class _File:
    """Reads one file, the owner's or a preset's, into what a policy is made of."""

    def __init__(
        self,
        problems: Problems,
        presets_: "_Presets",
        trail: tuple[str, ...] = (),
        *,
        keys: tuple[str, ...] = _KEYS,
    ) -> None:
        self.allow: list[Rule] = []
        self.deny: list[Rule] = []
        self.credentials: tuple[Binding, ...] = ()
        self.narrowings: list[Entry] = []
        self.description = ""
        self._problems = problems
        self._presets = presets_
        self._trail = trail  # the presets that are being read, from the owner's file to this one
        self._keys = _PRESET_KEYS if trail else keys
        preset = trail[-1] if trail else None
        self._reader = RuleReader(problems, preset=preset)
        self._narrowing_reader = NarrowingReader(problems, preset=preset)

    def policy(self) -> Policy:
        """Return what the file says, as far as it could be read."""
        return Policy(
            allow=tuple(self.allow),
            deny=tuple(self.deny),
            credentials=self.credentials,
            restrictions=resolved(self.narrowings),
        )

    def read(self, root: Node | None) -> None:
        """Read a whole file; an empty one holds no rules."""
        if root is None or isinstance(root, Broken) or _is_missing(root):
            return
        if not isinstance(root, YamlMapping):
            what = "a list" if isinstance(root, YamlList) else "a single value"
            self._problems.add(
                f"the file is {what}, not a mapping",
                root,
                fix='begin it with the line "allow:" and list the hosts below, each after "- "',
            )
            return
        for key, value in root.entries:
            if self._keys is _NARROWING_KEYS and key.text in _RUNS_KEYS:
                continue
            if key.text not in self._keys:
                fix = self._fix_of_key(key.text)
                self._problems.add(f"unknown key {quoted(key.text)}", key, fix=fix)
            elif key.text == "description":
                self.description = value.text if isinstance(value, YamlScalar) else ""
            else:
                self._read_list(key.text, value)

    def _fix_of_key(self, name: str) -> str:
        folded = name.lower()
        if self._keys is _NARROWING_KEYS and _OTHER_NAMES.get(folded, folded) == "allow":
            return "this file may only narrow: list what is to be denied, under deny"
        if _OTHER_NAMES.get(folded, folded) in set(_KEYS) - set(self._keys):
            return f"only the owner's list may have {_OTHER_NAMES.get(folded, folded)}"
        if folded in {"preset", "presets"}:
            return 'write it as an entry of allow: "- preset: NAME"'
        if (other := _OTHER_NAMES.get(folded)) is not None:
            return f"write {other}"
        return nearest(folded, self._keys) or f"a file has {_listed(self._keys)} only"

    def _read_list(self, name: str, node: Node) -> None:
        if isinstance(node, Broken) or _is_missing(node):
            return
        if not isinstance(node, YamlList):
            fix = 'write each entry on a line of its own, after "- "'
            self._problems.add(f"{name} is not a list", node, key=name, fix=fix)
            return
        if name == "credentials":
            self.credentials = CredentialReader(self._problems).bindings_of(node.items)
        elif name == "anthropic":
            self.narrowings += self._narrowing_reader.entries_of(node.items)
        else:
            for index, entry in enumerate(node.items):
                self._read_entry(entry, f"{name}[{index}]", deny=name == "deny")

    def _read_entry(self, node: Node, key: str, *, deny: bool) -> None:
        rule: Rule | None = None
        if isinstance(node, YamlMapping):
            preset = next((value for name, value in node.entries if name.text == "preset"), None)
            if preset is not None and not deny:
                self._read_preset_entry(node, preset, key)
                return
            rule = self._reader.rule_of_mapping(node, key, deny=deny)
        elif _is_missing(node):
            self._problems.add("an empty entry", node, key=key, fix="delete the line")
        elif isinstance(node, YamlScalar) and not self._is_preset_name(node, key, deny=deny):
            rule = self._reader.rule_of_text(node, key, deny=deny)
        elif isinstance(node, YamlList):
            fix = 'write each entry on a line of its own, after one "- "'
            self._problems.add("a list inside the list", node, key=key, fix=fix)
        if rule is not None:
            (self.deny if deny else self.allow).append(rule)

    def _is_preset_name(self, node: YamlScalar, key: str, *, deny: bool) -> bool:
        # A name without a dot may be a host of an intranet, so only the presets' names are asked
        # about; taken for hosts they would allow nothing, and nobody would be told.
        if deny or "." in node.text or not self._presets.knows(node.text):
            return False
        self._problems.add(
            f"{quoted(node.text)} is the name of a preset, written as a host",
            node,
            key=key,
            fix=f'write "- preset: {node.text}" (a host of that name: "- host: {node.text}")',
        )
        return True

    def _read_preset_entry(self, node: YamlMapping, value: Node, key: str) -> None:
        for name, _ in node.entries:
            if name.text != "preset":
                self._problems.add(
                    f"{quoted(name.text)} beside a preset",
                    name,
                    key=key,
                    fix="a preset stands alone: give the rest an entry of its own with a host",
                )
        place = f"{key}.preset"
        if isinstance(value, Broken):
            return
        if not isinstance(value, YamlScalar) or _is_missing(value):
            fix = "write the name of one preset; give each an entry of its own"
            self._problems.add("not the name of a preset", value, key=place, fix=fix)
        elif value.text in self._trail:
            loop = self._trail[self._trail.index(value.text) :]
            self._problems.add(
                f"presets include each other: {' -> '.join((*loop, value.text))}",
                value,
                key=place,
                fix="take one of them out",
            )
        elif not self._presets.knows(value.text):
            what, fix = f"unknown preset {quoted(value.text)}", _fix_of_preset(value.text)
            self._problems.add(what, value, key=place, fix=fix)
        else:
            self._include(value, place)

    def _include(self, value: YamlScalar, place: str) -> None:
        try:
            file = self._presets.read_once(value.text, self._trail)
            if file is not None:
                self.allow += file.allow
                self.narrowings += file.narrowings
        except ConfigErrors as errors:
            for problem in errors.problems:
                what = f"the preset {value.text} is wrong: {problem.what} ({problem.where})"
                self._problems.add(what, value, key=place, fix=problem.fix)


class _Presets:
    """Reads the presets that a file includes, each once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: dict[str, bool] = {}
        self._done: set[str] = set()

    def knows(self, name: str) -> bool:
        if name not in self._known:
            try:
                self._library(name)
            except KeyError:
                self._known[name] = False
            else:
                self._known[name] = True
        return self._known[name]

    def read_once(self, name: str, trail: tuple[str, ...]) -> _File | None:
        """Return a preset's file, or none if what it says is there already."""
        if name in self._done:
            return None
        file = self.read(name, trail)
        self._done.add(name)
        return file

    def read(self, name: str, trail: tuple[str, ...]) -> _File:
        """Read a preset's file; raise ConfigErrors if it is wrong."""
        problems = Problems(f"{name}.yaml")
        file = _File(problems, self, (*trail, name))
        file.read(parse(self._library(name), problems))
        problems.raise_if_any()
        return file


def _listed(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _is_missing(node: Node) -> bool:
    return isinstance(node, YamlScalar) and node.plain and not node.text
