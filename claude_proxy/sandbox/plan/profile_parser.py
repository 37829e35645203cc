"""Profile parser: reads the YAML of a profile and of a project's restrictions; pure.

Laws kept: an unknown key is an error with its place (fail closed). A project's file may have been
written by the agent, so it can only restrict.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

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
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.plan.model import Profile
from claude_proxy.wire.authority import normalise_host

_VARIABLE = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

type _ReadField = Callable[["_FieldReader", Node, str], Any]


@dataclass(frozen=True, slots=True)
class ProjectRestrictions:
    """What a project's file forbids its own runs; its `deny` is read with the allowlist."""

    path: Path | None = None
    hide: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    network: bool = True
    denies: bool = False
    text: str | None = None  # of the file


def parse_profile(text: str, where: str) -> dict[str, Any]:
    """Return the fields of a profile; raise ConfigErrors with every mistake in it."""
    problems = Problems(where)
    reader = _FieldReader(problems)
    fields = reader.read(parse(text, problems), PROFILE_KEYS, required="a profile")
    problems.raise_if_any()
    return fields


def extended(base: Profile, name: str, fields: dict[str, Any]) -> Profile:
    """Return a profile that adds to a base: lists grow, single values are replaced."""
    merged: dict[str, Any] = {"commands": frozenset()}  # the base keeps its own commands
    for key, value in fields.items():
        if key == "set_env":
            merged[key] = tuple({**dict(base.set_env), **dict(value)}.items())
        elif isinstance(value, tuple):
            merged[key] = tuple(dict.fromkeys((*getattr(base, key), *value)))
        else:
            merged[key] = value
    return replace(base, name=name, **merged)


def parse_restrictions(text: str, path: Path) -> ProjectRestrictions:
    """Return what a project's file restricts; raise ConfigErrors with every mistake in it."""
    problems = Problems(str(path))
    fields = _FieldReader(problems).read(parse(text, problems), _RESTRICTION_KEYS)
    problems.raise_if_any()
    return ProjectRestrictions(
        path=path,
        hide=fields.get("hide", ()),
        read_only=fields.get("read_only", ()),
        network=fields.get("network", True),
        denies="deny" in fields,
        text=text,
    )


class _FieldReader:
    """Turns the nodes of one file into values, and collects the mistakes."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def read(
        self, root: Node | None, keys: dict[str, _ReadField], *, required: str | None = None
    ) -> dict[str, Any]:
        if root is None or isinstance(root, Broken):
            if root is None and required is not None:
                self._problems.add_at(
                    f"{required} cannot be an empty file", 1, 1, fix="add its keys"
                )
            return {}
        if not isinstance(root, YamlMapping):
            self._problems.add(
                "the file is not a mapping", root, fix=f"its keys are {_listed(keys)}"
            )
            return {}
        found = {}
        for key, node in root.entries:
            read = keys.get(key.text)
            if read is None:
                fix = f"the keys are {_listed(keys)}"
                self._problems.add(f"unknown key {quoted(key.text)}", key, fix=fix)
            else:
                found[key.text] = read(self, node, key.text)
        return found

    def text(self, node: Node, key: str) -> str:
        if isinstance(node, YamlScalar):
            return node.text
        self._note("is not a single value", node, key, "write one value")
        return ""

    def texts(self, node: Node, key: str) -> tuple[str, ...]:
        return tuple(item.text for item in self._scalars(node, key))

    def paths(self, node: Node, key: str) -> tuple[str, ...]:
        """Return paths that are relative and do not lead upwards."""
        found = []
        for item in self._scalars(node, key):
            text = item.text.removeprefix("~/" if key.startswith("home") else "").removeprefix("./")
            pure = PurePosixPath(text)
            if not text or pure.is_absolute() or ".." in pure.parts or pure == PurePosixPath():
                what = f"has {quoted(item.text)}, which is not a relative path without .."
                self._note(what, item, key, "write a path below that directory")
            elif "\0" in text or any(char in text for char in "*?["):
                self._note(f"has a pattern, {quoted(item.text)}", item, key, "write out each path")
            else:
                found.append(f"{pure}/" if text.endswith("/") else str(pure))
        return tuple(found)

    def hosts(self, node: Node, key: str) -> tuple[str, ...]:
        for item in self._scalars(node, key):
            try:
                normalise_host(item.text)
            except ValueError:
                what = f"has {quoted(item.text)}, which is not a host name"
                self._note(what, item, key, "write only names, such as api.example.com")
        return self.texts(node, key)

    def variables(self, node: Node, key: str) -> tuple[str, ...]:
        for item in self._scalars(node, key):
            if not _VARIABLE.fullmatch(item.text):
                what = f"has {quoted(item.text)}, which is not a variable name"
                self._note(what, item, key, "write only names, such as GH_TOKEN")
        return self.texts(node, key)

    def values(self, node: Node, key: str) -> tuple[tuple[str, str], ...]:
        if not isinstance(node, YamlMapping):
            self._note("is not a mapping", node, key, "write each as NAME: value")
            return ()
        found = []
        for name, value in node.entries:
            if not _VARIABLE.fullmatch(name.text):
                what = f"has {quoted(name.text)}, which is not a variable name"
                self._note(what, name, key, "write each as NAME: value")
            found.append((name.text, self.text(value, key)))
        return tuple(found)

    def names(self, node: Node, key: str) -> frozenset[str]:
        return frozenset(self.texts(node, key))

    def ports(self, node: Node, key: str) -> tuple[int, ...]:
        found = []
        for item in self._scalars(node, key):
            if item.text.isascii() and item.text.isdigit() and 0 < int(item.text[:6]) < 65536:  # noqa: PLR2004
                found.append(int(item.text))
            else:
                what = f"has {quoted(item.text)}, which is not a port"
                self._note(what, item, key, "write a number from 1 to 65535")
        return tuple(found)

    def no_network(self, node: Node, key: str) -> bool:
        if not isinstance(node, YamlScalar) or node.text != "none":
            what = "can only be none: this file can only restrict"
            self._note(what, node, key, "write `network: none`, or remove the line")
        return False

    def ignored(self, _node: Node, _key: str) -> None:
        """Ignore a key that another reader of the file handles."""

    def _scalars(self, node: Node, key: str) -> list[YamlScalar]:
        if not isinstance(node, YamlList):
            self._note("is not a list", node, key, 'write each on its own line, after "- "')
            return []
        for item in node.items:
            if not isinstance(item, YamlScalar | Broken):
                self._note(
                    "contains something that is not a single value", item, key, "write one value"
                )
        return [item for item in node.items if isinstance(item, YamlScalar)]

    def _note(self, what: str, node: Node, key: str, fix: str) -> None:
        if not isinstance(node, Broken):
            self._problems.add(f"{key} {what}", node, key=key, fix=fix)


def _listed(keys: dict[str, _ReadField]) -> str:
    *most, last = keys
    return f"{', '.join(most)} and {last}"


PROFILE_KEYS: dict[str, _ReadField] = {
    "description": _FieldReader.text,
    "extends": _FieldReader.text,
    "commands": _FieldReader.names,
    "policy": _FieldReader.text,
    "home_state": _FieldReader.paths,
    "home_seed": _FieldReader.paths,
    "home_login": _FieldReader.paths,
    "login_hosts": _FieldReader.hosts,
    "home_write": _FieldReader.paths,
    "home_read": _FieldReader.paths,
    "home_protect": _FieldReader.paths,
    "pass_env": _FieldReader.variables,
    "set_env": _FieldReader.values,
    "protect": _FieldReader.paths,
    "unattended": _FieldReader.texts,
    "callback_ports": _FieldReader.ports,
}
_RESTRICTION_KEYS: dict[str, _ReadField] = {
    "deny": _FieldReader.ignored,
    "hide": _FieldReader.paths,
    "read_only": _FieldReader.paths,
    "network": _FieldReader.no_network,
}
