"""Kinds of option values: a flag, a number, a choice, a path, a text that is parsed.

One description serves the command line, config.yaml, its JSON Schema and the reference page. Pure.
"""

from collections.abc import Callable
from typing import Any

from claude_proxy.deferred.data_classes import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no; `off` is the option that says no."""

    off: str | None = None  # None: "--no-" and the option's name


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """A whole number between two bounds, both included."""

    least: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text, such as a name."""


@dataclass(frozen=True, slots=True)
class PathText:
    """The path of a file or a directory."""

    allows_file: bool = True
    allows_directory: bool = True
    must_exist: bool = False
    must_be_listable: bool = True  # if it is there
    allows_dash: bool = False  # "-" is standard output


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A text that a function turns into a value, or refuses with ValueError."""

    name: str
    parse: Callable[[str], Any]
    fix: str
    example: str
    is_number: bool = False  # YAML may write it without quotes as a number
    is_list: bool = False  # one text holds several: a list in YAML
    is_secret: bool = False  # it may hold a password, so it is never shown


type ValueKind = Flag | WholeNumber | Choice | FreeText | PathText | ParsedText


def schema_of(kind: ValueKind) -> dict[str, Any]:
    """Return the JSON Schema of one value as config.yaml has it."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    match kind:
        case Flag():
            schema = {"type": "boolean"}
        case WholeNumber(least, most):
            schema = {"type": "integer", "minimum": least}
            if most is not None:
                schema["maximum"] = most
        case Choice(words):
            schema = {"enum": list(words)}
        case ParsedText(is_list=True, example=example):
            schema = {"type": "array", "items": schema, "minItems": 1, "examples": [[example]]}
        case ParsedText(is_number=is_number, example=example):
            if is_number:
                schema["type"] = ["string", "number"]
            schema["examples"] = [example]
    return schema


def name_of(kind: ValueKind) -> str:
    """Return what the reference page calls a value of this kind."""
    name = "text"
    match kind:
        case Flag():
            name = "true or false"
        case WholeNumber(least, most):
            name = f"number, {least} or more" if most is None else f"number, {least} to {most}"
        case Choice(words):
            name = " or ".join(words)
        case PathText(allows_file=allows_file):
            name = "path" if allows_file else "directory"
        case ParsedText(example=example):
            name = f"text like `{example}`"
    return name
