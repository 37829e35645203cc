"""config.yaml: the options that hold without being typed, and providers and projects.

Fail closed: a key that is not known, a value that an option would not take, or one that is written
twice is a problem with its line and column; nothing is ignored or guessed. Pure.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from claude_proxy.config.option_kinds import (
    Choice,
    Flag,
    FreeText,
    ParsedText,
    PathText,
    WholeNumber,
)
from claude_proxy.config.option_table import FIELDS, OptionField, Subcommand, fields_in_section
from claude_proxy.config.providers import Provider, ProviderReader
from claude_proxy.config.settings import UnixListen
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest, type_of
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlMapping,
    YamlScalar,
    parse,
    quoted,
)
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

NAME = "config.yaml"
GATEWAY_NAME = "gateway.yaml"  # the older file
PROVIDERS = "providers"
PROJECTS = "projects"
SECTIONS = tuple(command.value for command in Subcommand)

_BY_KEY = {field.key: field for field in FIELDS}
_FLAGS: Mapping[str, bool] = {"true": True, "false": False}
_FEW = 12
_NUMBER = lazy_pattern(r"0|[1-9][0-9]{0,11}", re.ASCII)
_FIX_OF_PROJECTS = "write DIRECTORY: POLICY, such as ~/src/acme: acme"


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One value of config.yaml and its place."""

    key: str
    value: Any = field(repr=False)  # it may hold a password
    where: str  # "PATH:LINE:COLUMN, KEY", as error messages name it
    line: int


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What one config.yaml says; empty where there is none."""

    path: Path
    exists: bool = False
    entries: Mapping[str, ConfigEntry] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    projects: Mapping[Path, str] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """Return the value of a key, None where the file does not say it."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def where(self, key: str) -> str:
        """Return the place of a key, as error messages name it."""
        entry = self.entries.get(key)
        return f"{self.path}, {key}" if entry is None else entry.where

    @property
    def configures_gateway(self) -> bool:
        """Whether it says anything that gateway.yaml could say too."""
        section = f"{Subcommand.GATEWAY}."
        return bool(self.providers) or any(key.startswith(section) for key in self.entries)


def load(text: str, path: Path, home: Path | None) -> ConfigFile:
    """Return what the file says; raise ConfigErrors with everything that is wrong with it.

    A relative path in it starts at the file's own directory; without a `home` no path may use "~".
    """
    return _load(text, path, home, _ConfigReader.file_of)


def load_gateway(text: str, path: Path, home: Path | None) -> ConfigFile:
    """Return what a gateway.yaml says, which held the gateway's options before config.yaml did."""
    return _load(text, path, home, _ConfigReader.gateway_file_of)


def _load(
    text: str,
    path: Path,
    home: Path | None,
    read: "Callable[[_ConfigReader, YamlMapping], ConfigFile]",
) -> ConfigFile:
    problems = Problems(str(path))
    root = parse(text, problems)
    found = ConfigFile(path, exists=True)
    if isinstance(root, YamlMapping):
        found = read(_ConfigReader(problems, path, home), root)
    elif isinstance(root, YamlScalar) and type_of(root) == "null":
        pass  # comments only
    elif root is not None and not isinstance(root, Broken):
        problems.add("the file is not a mapping", root, fix="write KEY: VALUE lines")
    problems.raise_if_any()
    return found


class _ConfigReader(FieldReader):
    """Turns the nodes of the file into values; every mistake goes to `problems`."""

    def __init__(self, problems: Problems, path: Path, home: Path | None) -> None:
        super().__init__(problems, preset=None)
        self._file = path
        self._home = home
        self._entries: dict[str, ConfigEntry] = {}
        self._providers: Mapping[str, Provider] = {}
        self._projects: dict[Path, str] = {}

    def file_of(self, root: YamlMapping) -> ConfigFile:
        known = tuple(field.name for field in fields_in_section(""))
        fields = self._fields(root, "", (*known, *SECTIONS, PROVIDERS, PROJECTS), _fix_in(""))
        for name, node in fields.items():
            if isinstance(node, Broken):
                continue
            if name in SECTIONS:
                self._read_section(node, name)
            elif name == PROVIDERS:
                self._providers = ProviderReader(self._problems).providers(node, name) or {}
            elif name == PROJECTS:
                self._read_projects(node, name)
            else:
                self._read_option(node, name)
        return self._found()

    def gateway_file_of(self, root: YamlMapping) -> ConfigFile:
        known = tuple(field.name for field in fields_in_section(Subcommand.GATEWAY))
        fix_of = _fix_in(Subcommand.GATEWAY)
        for name, node in self._fields(root, "", (*known, PROVIDERS), fix_of).items():
            if isinstance(node, Broken):
                continue
            if name == PROVIDERS:
                self._providers = ProviderReader(self._problems).providers(node, name) or {}
            else:
                self._read_option(node, f"{Subcommand.GATEWAY}.{name}", shown=name)
        return self._found()

    def _found(self) -> ConfigFile:
        return ConfigFile(
            self._file,
            exists=True,
            entries=self._entries,
            providers=self._providers,
            projects=self._projects,
        )

    def _read_section(self, node: Node, section: str) -> None:
        if not isinstance(node, YamlMapping):
            fix = f"write the options of `claude-proxy {section}` below it, indented"
            self._problems.add(f"{section} is not a mapping", node, key=section, fix=fix)
            return
        known = tuple(field.name for field in fields_in_section(section))
        for name, value in self._fields(node, section, known, _fix_in(section)).items():
            if not isinstance(value, Broken):
                self._read_option(value, f"{section}.{name}")

    def _read_option(self, node: Node, key: str, shown: str | None = None) -> None:
        shown = shown or key
        value = self._value(_BY_KEY[key], node, shown)
        if value is None:
            return
        where = f"{self._file}:{node.line}:{node.column}, {shown}"
        self._entries[key] = ConfigEntry(key, value, where, node.line)

    # --- values

    def _value(self, option: OptionField, node: Node, key: str) -> Any:
        kind = option.kind
        if option.repeatable:
            items = self._list(node, key, self._reader_of(option), _example(option))
            return None if items is None else tuple(items)
        if isinstance(kind, ParsedText) and kind.is_list:
            lists = self._list(node, key, self._reader_of(option), _example(option))
            return None if lists is None else tuple(item for items in lists for item in items)
        return self._reader_of(option)(node, key)

    def _reader_of(self, option: OptionField) -> Callable[[Node, str], Any]:
        match option.kind:
            case Flag():
                return self._flag
            case WholeNumber(least, most):
                return lambda node, key: self._number(node, key, least, most)
            case Choice(words):
                return lambda node, key: self._choice(node, key, list(words))
            case PathText(allows_dash=allows_dash):
                return lambda node, key: self._location(node, key, allows_dash=allows_dash)
            case ParsedText() as parsed:
                return lambda node, key: self._parsed(node, key, parsed)
            case FreeText():
                return self._nonempty

    def _flag(self, node: Node, key: str) -> bool | None:
        if isinstance(node, YamlScalar) and node.plain and node.text in _FLAGS:
            return _FLAGS[node.text]
        self._problems.add("not true or false", node, key=key, fix="write true or false")
        return None

    def _number(self, node: Node, key: str, least: int, most: int | None) -> int | None:
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        if isinstance(node, YamlScalar) and node.plain and _NUMBER.fullmatch(node.text):
            number = int(node.text)
            if least <= number and (most is None or number <= most):
                return number
            self._problems.add(f"{number} is out of range", node, key=key, fix=f"write {bounds}")
            return None
        fix = f"write a number without quotes, {bounds}"
        self._problems.add("not a whole number", node, key=key, fix=fix)
        return None

    def _nonempty(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text == "":
            self._problems.add("the value is empty", node, key=key, fix="write it, or delete it")
            return None
        return text

    def _location(self, node: Node, key: str, *, allows_dash: bool) -> Path | None:
        text = self._nonempty(node, key)
        if text is None:
            return None
        if allows_dash and text == "-":
            return Path("-")
        return self._absolute(text, node, key)

    def _absolute(self, text: str, node: Node, key: str) -> Path | None:
        """Return a path that leads to the same place from every directory."""
        if "\0" in text:
            self._problems.add("not a path", node, key=key, fix="delete the null character")
            return None
        first, _, rest = text.partition("/")
        if not first.startswith("~"):
            return self._file.parent.absolute() / text
        if first != "~" or self._home is None:
            what = "there is no home directory" if first == "~" else "the home of another user"
            self._problems.add(what, node, key=key, fix="write the whole path")
            return None
        return self._home / rest.lstrip("/")

    def _parsed(self, node: Node, key: str, kind: ParsedText) -> Any:
        if not isinstance(node, YamlScalar):
            self._problems.add("not a single value", node, key=key, fix=kind.fix)
            return None
        is_number = node.plain and kind.is_number and type_of(node) == "a number"
        text = node.text if is_number else self._text(node, key)
        if text is None:
            return None
        try:
            value = kind.parse(text)
        except ValueError as error:
            self._problems.add(str(error), node, key=key, fix=kind.fix)
            return None
        if isinstance(value, UnixListen):
            path = self._absolute(str(value.path), node, key)
            return None if path is None else UnixListen(path)
        return value

    # --- projects

    def _read_projects(self, node: Node, key: str) -> None:
        if not isinstance(node, YamlMapping):
            what = f"{key} is not a mapping"
            self._problems.add(what, node, key=key, fix=_FIX_OF_PROJECTS)
            return
        for name, value in node.entries:
            place = f"{key}.{name.text}"
            policy = None if isinstance(value, Broken) else self._nonempty(value, place)
            directory = self._directory(name, key)
            if policy is None or directory is None:
                continue
            if directory in self._projects:
                what = f"the directory {quoted(name.text)} is named twice"
                self._problems.add(what, name, key=key, fix="keep one of the two")
                continue
            self._projects[directory] = policy

    def _directory(self, name: YamlScalar, key: str) -> Path | None:
        if name.text.startswith(("/", "~")):
            return self._absolute(name.text, name, key)
        what = f"{quoted(name.text)} is a relative directory"
        self._problems.add(what, name, key=key, fix="write the whole path, or one that starts ~/")
        return None


def _example(option: OptionField) -> tuple[str, str]:
    kind = option.kind
    example = kind.example if isinstance(kind, ParsedText) else option.metavar or "TEXT"
    return f'["{example}"]', "delete the line"


# What a key of earlier versions is now.
_REMOVED = {
    (Subcommand.RUN.value, "keep_home"): "delete it: the whole home is not shown any more; name "
    "what is needed below show_home",
}


def _fix_in(section: str) -> Callable[[str], str]:
    """Return a function that says where an unknown key belongs, or which one is like it."""
    known = [field.name for field in fields_in_section(section)]
    if not section:
        known += [*SECTIONS, PROVIDERS, PROJECTS]

    def fix(name: str) -> str:
        name_in_file = name.replace("-", "_")
        for option in FIELDS:
            if name_in_file not in {option.name, option.parameter(Subcommand.SERVE)}:
                continue
            if not option.in_file:
                return f"delete it: config.yaml cannot set {option.option(option.commands[0])}"
            if option.section == section:
                return f"write {option.name}"
            place = f"below {option.section}:" if option.section else "at the top of the file"
            return f"write {option.name}: {place}"
        if near := _REMOVED.get((section, name_in_file)) or nearest(name_in_file, known):
            return near
        if len(known) <= _FEW:
            return f"the keys are {', '.join(known)}"
        return "`claude-proxy config show` lists the keys"

    return fix
