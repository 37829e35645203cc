"""Policy file loader: YAML text to a `Policy`, every mistake with its place and its fix.

Laws kept: default-deny, no quiet downgrade. An empty list allows nothing; what cannot be kept as
written (a path on a host whose TLS is passed through, an unknown preset, a denial without a proxy)
stops the load. A preset cannot name a secret or deny; a project's file can only deny. Pure: the
files that a policy names are read by the `Library` that the caller hands in.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from claude_proxy.config import preset_files as shipped
from claude_proxy.config.allowlist import credentials
from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.conflicts import (
    note_clashes,
    note_unkept_limits,
    note_unseen,
)
from claude_proxy.config.allowlist.credentials import CredentialReader
from claude_proxy.config.allowlist.format import FileRole
from claude_proxy.config.allowlist.messages import ApiEntry, ApiEntryReader, resolved
from claude_proxy.config.allowlist.model import Default, NetworkMode, PolicyFile
from claude_proxy.config.allowlist.rules import RuleReader
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    gathered,
    parse,
    quoted,
)
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule

# What else a project's file may hold, for `claude-proxy run` (sandbox/profiles.py).
_KEYS_OF_RUN = frozenset({"hide", "read_only", "network"})
# Names of other programs for the same keys.
_OTHER_NAMES = {
    "allowed": "allow",
    "allowlist": "allow",
    "block": "deny",
    "blocked": "deny",
    "blocklist": "deny",
    "credential": "credentials",
    "default_policy": "default",
    "denied": "deny",
    "denylist": "deny",
    "domains": "allow",
    "extends": "include",
    "filesystem": "profile",
    "hosts": "allow",
    "import": "include",
    "imports": "include",
    "includes": "include",
    "inject": "credentials",
    "keys": "credentials",
    "rules": "allow",
    "secrets": "credentials",
    "tokens": "credentials",
    "whitelist": "allow",
}
_MOST_INCLUDED = 64
_PROFILE = "write the name of a profile of `claude-proxy run`, such as claude or shell"


class Included(NamedTuple):
    """The text of an included file."""

    name: str  # as messages show it
    text: str
    identity: str  # equal for two names of one file


def _no_include(_file: str, _base: str) -> Included:
    raise ConfigError("no file can be included here", fix="write its entries instead")


@dataclass(frozen=True, slots=True)
class Library:
    """Reads what a policy file names: presets, and files that it includes."""

    preset: Callable[[str], str] = shipped.text  # KeyError if there is none of that name
    names: Callable[[], Iterable[str]] = shipped.names
    include: Callable[[str, str], Included] = _no_include  # by the name and the including file


SHIPPED = Library()


class Preset(NamedTuple):
    """One line of the list of presets."""

    name: str
    description: str
    rules: int


def load(text: str, *, name: str, library: Library = SHIPPED) -> Policy:
    """Return the rules that `text` describes; raise ConfigErrors with every mistake."""
    return read(text, name=name, library=library).policy


def read(
    text: str, *, name: str, library: Library = SHIPPED, identity: str | None = None
) -> PolicyFile:
    """Return what a policy file says; raise ConfigErrors with every mistake in it.

    By `identity` it is known again where an included file includes it.
    """
    reading = _Reading(library)
    reading.open_files[identity or name] = name
    file = reading.file(name, FileRole.POLICY)
    file.read(parse(text, file.problems))
    credentials.note_conflicts(reading.credentials)
    reading.raise_if_any()
    found = PolicyFile(
        file.policy([each.binding for each in reading.credentials]),
        file.source,
        file.description,
        file.default,
        file.network,
        file.profile,
    )
    # As if each question were answered with yes: nothing that was not checked can follow from one.
    note_clashes([*file.allow, *file.ask], file.deny, reading.problems_of)
    note_unseen(found.policy.as_answered(), reading.problems_of)
    reading.raise_if_any()
    return found


def load_narrowing(text: str, *, name: str) -> tuple[Rule, ...]:
    """Return the deny rules of a project's file; raise ConfigErrors if it is wrong.

    An agent can write this file, so it can only take away. The keys for `claude-proxy run` are
    skipped.
    """
    reading = _Reading(SHIPPED)
    file = reading.file(name, FileRole.PROJECT)
    file.read(parse(text, file.problems))
    reading.raise_if_any()
    return tuple(file.deny)


def presets(library: Library = SHIPPED) -> list[Preset]:
    """Return a line for each preset, in alphabetical order; ConfigErrors if one is wrong."""
    return [preset_line(name, library) for name in sorted(library.names())]


def preset_line(name: str, library: Library = SHIPPED) -> Preset:
    """Return the line of one preset."""
    file = _Reading(library).preset(name, ())
    return Preset(name, file.description, len(file.allow) + len(file.ask))


def preset_text(name: str) -> str:
    """Return a shipped preset's file as it is; KeyError if there is none of that name."""
    return shipped.text(name)


def unknown_preset(name: str, *, where: str, library: Library = SHIPPED) -> ConfigError:
    """Return the error for a name that no preset has."""
    what = f"unknown preset {quoted(name)}"
    return ConfigError(what, where=where, fix=_fix_of_preset(name, library))


def _fix_of_preset(name: str, library: Library) -> str:
    return nearest(name.lower(), library.names()) or "`claude-proxy presets` lists them"


def preset_policy(name: str, library: Library = SHIPPED) -> Policy:
    """Return what a preset allows by itself, with all that it includes."""
    return _Reading(library).preset(name, ()).policy(())


class _Reading:
    """Everything that one load shares: problems by file, and what has been read already."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.credentials: list[credentials.ReadCredential] = []
        self.included: set[str] = set()
        self.open_files: dict[str, str] = {}  # being read, the outermost first: identity, name
        self._problems: dict[str, Problems] = {}
        self._known: dict[str, bool] = {}
        self._done: set[str] = set()

    def file(self, name: str, role: FileRole, trail: tuple[str, ...] = ()) -> "_File":
        problems = self._problems.setdefault(name, Problems(name))
        return _File(problems, self, role, trail)

    def problems_of(self, source: Location) -> Problems:
        """Return where a mistake at `source` is noted."""
        first = next(iter(self._problems.values()))
        return self._problems.get(source.file, first)

    def raise_if_any(self) -> None:
        """Raise ConfigErrors with the mistakes of every file."""
        found = [error for each in self._problems.values() for error in gathered(each)]
        if found:
            raise ConfigErrors(found)

    def knows_preset(self, name: str) -> bool:
        if name not in self._known:
            try:
                self.library.preset(name)
            except KeyError:
                self._known[name] = False
            except ConfigError:
                self._known[name] = True  # what is wrong is said where it is read
            else:
                self._known[name] = True
        return self._known[name]

    def preset_once(self, name: str, trail: tuple[str, ...]) -> "_File | None":
        """Return a preset's file, or none if it has been read already."""
        if name in self._done:
            return None
        file = self.preset(name, trail)
        self._done.add(name)
        return file

    def preset(self, name: str, trail: tuple[str, ...]) -> "_File":
        """Read a preset's file; raise ConfigErrors if it is wrong."""
        problems = Problems(f"{name}.yaml")
        file = _File(problems, self, FileRole.PRESET, (*trail, name))
        file.read(parse(self.library.preset(name), problems))
        problems.raise_if_any()
        return file


class _File(FieldReader):
    """Reads one file: a policy, a file that it includes, a preset, or a project's own."""

    def __init__(
        self, problems: Problems, reading: _Reading, role: FileRole, trail: tuple[str, ...]
    ) -> None:
        preset = trail[-1] if role is FileRole.PRESET else None
        super().__init__(problems, preset=preset)
        self.problems = problems
        self.allow: list[Rule] = []
        self.ask: list[Rule] = []
        self.deny: list[Rule] = []
        self.restrictions: list[ApiEntry] = []
        self.description = ""
        self.default = Default.DENY
        self.network = NetworkMode.PROXY
        self.profile: str | None = None
        self.source = Location(problems.name, 1, 1, preset)
        self._default_source = self.source
        self._reading = reading
        self._role = role
        self._trail = trail  # presets being read, the outermost first
        self._keys = table.keys_of(role)
        self._rules = RuleReader(problems, preset=preset)
        self._restrictions = ApiEntryReader(problems, preset=preset)

    def policy(self, bindings: Iterable[Binding]) -> Policy:
        """Return what the file says as rules."""
        policy = Policy(
            allow=tuple(self.allow),
            deny=tuple(self.deny),
            credentials=tuple(bindings),
            restrictions=resolved(self.restrictions),
            ask=tuple(self.ask),
        )
        if self.default is Default.ALLOW:
            return policy.allowing_by_default(self._default_source)
        if self.default is Default.ASK:
            return policy.asking_by_default(self._default_source)
        return policy

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
        known: dict[str, tuple[YamlScalar, Node]] = {}
        for key, value in root.entries:
            if self._role is FileRole.PROJECT and key.text in _KEYS_OF_RUN:
                continue
            if key.text in self._keys:
                known[key.text] = (key, value)
            else:
                self._note_unknown(key)
        for name, (_, value) in known.items():
            if name != "include":
                self._read_key(name, value)
        if "include" in known:  # last: what is written here comes first
            self._read_includes(known["include"][1])
        self._note_without_proxy(known)
        if self.default is Default.ALLOW:
            note_unkept_limits(self.allow, self._reading.problems_of)

    def _read_key(self, name: str, node: Node) -> None:
        if isinstance(node, Broken):
            return
        if name == "description":
            self.description = self._text(node, name) or ""
        elif name == "default":
            self.default = Default(self._choice(node, name, list(Default)) or Default.DENY)
            self._default_source = self._source(node)
        elif name == "network":
            mode = self._choice(node, name, list(NetworkMode))
            self.network = NetworkMode(mode or NetworkMode.PROXY)
            self.source = self._source(node)
        elif name == "profile":
            self.profile = self._profile_name(node)
        else:
            self._read_list(name, node)

    def _profile_name(self, node: Node) -> str | None:
        text = self._text(node, "profile")
        if text is not None and shipped.is_name(text) is None:
            self._problems.add(
                f"{quoted(text)} is not a profile", node, key="profile", fix=_PROFILE
            )
            return None
        return text

    def _note_unknown(self, key: YamlScalar) -> None:
        name = key.text.lower()
        name = _OTHER_NAMES.get(name, name)
        if self._role is FileRole.PROJECT and name == "allow":
            what = f"unknown key {quoted(key.text)}"
            fix = "this file may only take away: list what is denied, under deny"
        elif name in table.names_of(table.FILE) and name not in self._keys:
            what = f"{self._role.value} cannot have {name}"
            fix = f"write {name} in the policy file"
        else:
            what, fix = f"unknown key {quoted(key.text)}", self._fix_of_key(key.text.lower())
        self._problems.add(what, key, fix=fix)

    def _fix_of_key(self, name: str) -> str:
        if name in {"preset", "presets"}:
            return 'write it as an entry of allow: "- preset: NAME"'
        if (other := _OTHER_NAMES.get(name)) is not None:
            return f"write {other}"
        return nearest(name, self._keys) or f"a file has {_listed(self._keys)} only"

    def _note_without_proxy(self, known: dict[str, tuple[YamlScalar, Node]]) -> None:
        """Report what nothing would keep, as a run of this policy has no proxy."""
        if self.network is NetworkMode.PROXY:
            return
        for name, (key, value) in known.items():
            empty = isinstance(value, YamlList) and not value.items
            if name not in {"description", "network", "profile"} and not empty:
                self._problems.add(
                    f"{name} has no effect with network: {self.network}",
                    key,
                    fix=f"delete {name}, or write network: proxy",
                )

    # Included files.

    def _read_includes(self, node: Node) -> None:
        if isinstance(node, Broken) or _is_missing(node):
            return
        names = self._list(node, "include", self._text, ("[common.yaml]", "delete the line"))
        if names is None or not isinstance(node, YamlList):
            return
        for at, (name, item) in enumerate(zip(names, node.items, strict=True)):
            self._include_file(name, item, f"include[{at}]")

    def _include_file(self, name: str, node: Node, key: str) -> None:
        try:
            found = self._reading.library.include(name, self._problems.name)
        except ConfigError as error:
            what = f"{error.what} ({error.where})" if error.where else error.what
            self._problems.add(what, node, key=key, fix=error.fix)
            return
        reading = self._reading
        if found.identity in reading.open_files:
            names = list(reading.open_files.values())
            start = list(reading.open_files).index(found.identity)
            what = f"files include each other: {' -> '.join((*names[start:], found.name))}"
            self._problems.add(what, node, key=key, fix="take one of them out")
        elif len(reading.included) >= _MOST_INCLUDED:
            what = f"more than {_MOST_INCLUDED} included files"
            self._problems.add(what, node, key=key, fix="make one file of several")
        elif found.identity not in reading.included:
            reading.included.add(found.identity)
            reading.open_files[found.identity] = found.name
            file = reading.file(found.name, FileRole.INCLUDED)
            file.read(parse(found.text, file.problems))
            del reading.open_files[found.identity]
            self.allow += file.allow
            self.ask += file.ask
            self.deny += file.deny
            self.restrictions += file.restrictions

    # Lists of entries.

    def _read_list(self, name: str, node: Node) -> None:
        if isinstance(node, Broken) or _is_missing(node):
            return
        if not isinstance(node, YamlList):
            fix = 'write each entry on a line of its own, after "- "'
            self._problems.add(f"{name} is not a list", node, key=name, fix=fix)
            return
        if name == "credentials":
            self._reading.credentials += CredentialReader(self._problems).read_all(node.items)
        elif name == "anthropic":
            self.restrictions += self._restrictions.entries_of(node.items)
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
            rule = self._rules.rule_of_mapping(node, key, deny=deny)
        elif _is_missing(node):
            self._problems.add("an empty entry", node, key=key, fix="delete the line")
        elif isinstance(node, YamlScalar) and not self._is_preset_name(node, key, deny=deny):
            rule = self._rules.rule_of_text(node, key, deny=deny)
        elif isinstance(node, YamlList):
            fix = 'write each entry on a line of its own, after one "- "'
            self._problems.add("a list inside the list", node, key=key, fix=fix)
        if rule is not None:
            granting = self.ask if rule.asks else self.allow
            (self.deny if deny else granting).append(rule)

    def _is_preset_name(self, node: YamlScalar, key: str, *, deny: bool) -> bool:
        # A name without a dot may be a host of an intranet, so only the names of presets are
        # looked up; read as hosts they would allow nothing, and nobody would notice.
        if deny or "." in node.text or not self._reading.knows_preset(node.text):
            return False
        self._problems.add(
            f"{quoted(node.text)} is the name of a preset, written as a host",
            node,
            key=key,
            fix=f'write "- preset: {node.text}" (a host of that name: "- host: {node.text}")',
        )
        return True

    # Presets.

    def _read_preset_entry(self, node: YamlMapping, value: Node, key: str) -> None:
        for name, _ in node.entries:
            if name.text not in table.names_of(table.PRESET_ENTRY):
                self._problems.add(
                    f"{quoted(name.text)} beside a preset",
                    name,
                    key=key,
                    fix="a preset is an entry of its own: give the rest another entry with a host",
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
        elif not self._reading.knows_preset(value.text):
            what = f"unknown preset {quoted(value.text)}"
            fix = _fix_of_preset(value.text, self._reading.library)
            self._problems.add(what, value, key=place, fix=fix)
        else:
            self._add_preset(value, place)

    def _add_preset(self, value: YamlScalar, place: str) -> None:
        try:
            file = self._reading.preset_once(value.text, self._trail)
        except ConfigError as error:
            for problem in error.problems if isinstance(error, ConfigErrors) else (error,):
                what = f"the preset {value.text} has a mistake: {problem.what} ({problem.where})"
                self._problems.add(what, value, key=place, fix=problem.fix)
            return
        if file is not None:
            self.allow += file.allow
            self.ask += file.ask
            self.restrictions += file.restrictions


def _listed(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _is_missing(node: Node) -> bool:
    return isinstance(node, YamlScalar) and node.plain and not node.text
