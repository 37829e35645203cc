"""YAML text for other programs: a real dumper, with comments above keys; pure.

Law kept: what is written is read back as the same value. A string that another reader could take
for a number, a date or a boolean ("no", "0755", "1e3", "12:30") is quoted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, override

import yaml

# YAML 1.1 and 1.2 disagree about more words than PyYAML knows; quotes cost nothing.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?:[:=@][A-Za-z0-9_./-]+)*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


class _Dumper(yaml.SafeDumper):
    """Writes blocks, indents lists, and has no anchors."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True

    @override
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif not _PLAIN.fullmatch(text) or text.lower() in _WORDS:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def document(value: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Return a mapping as a YAML document, with comments above some of its keys."""
    said = comments or {}
    parts = []
    for key, inner in value.items():
        above = "".join(f"# {line}".rstrip() + "\n" for line in said.get(key, "").splitlines())
        parts.append(above + _dumped({key: inner}))
    return "".join(parts)


def documents(values: Sequence[Mapping[str, Any]]) -> str:
    """Return several mappings as one YAML stream."""
    return "---\n".join(map(_dumped, values))


def _dumped(value: Mapping[str, Any]) -> str:
    return yaml.dump(
        dict(value), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=False, indent=2
    )
