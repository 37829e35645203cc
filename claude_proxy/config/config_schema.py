"""JSON Schema of config.yaml, made from the table of options. Pure."""

from typing import Any

from claude_proxy.config.config_yaml import PROJECTS, PROVIDERS, SECTIONS
from claude_proxy.config.option_kinds import schema_of
from claude_proxy.config.option_table import OptionField, fields_in_section
from claude_proxy.config.providers import PROVIDER_KEYS, PROVIDER_NAME, REQUIRED_PROVIDER_KEYS

_SECTION_TEXT = {
    "serve": "Options of `serve` alone.",
    "gateway": "Options of the gateway: of `gateway`, `serve --gateway` and `run --gateway`.",
    "run": "Options of `run` alone.",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    properties = _properties("")
    for section in SECTIONS:
        properties[section] = {
            "description": _SECTION_TEXT[section],
            "type": "object",
            "additionalProperties": False,
            "properties": _properties(section),
        }
    properties[PROVIDERS] = _providers()
    properties[PROJECTS] = _projects()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "claude-proxy config.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _properties(section: str) -> dict[str, Any]:
    return {field.name: _property(field) for field in fields_in_section(section)}


def _property(field: OptionField) -> dict[str, Any]:
    value = schema_of(field.kind)
    if field.repeatable:
        value = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    described: dict[str, Any] = {"description": field.help, **value}
    if field.default not in (None, ()):
        described["default"] = field.default
    return described


def _providers() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    source = {"type": "object", "minProperties": 1}
    shapes: dict[str, Any] = {
        "endpoint": text,
        "from": source,
        "form": schema_of(_form_kind()),
        "models": {"anyOf": [text, {"type": "object", "additionalProperties": text}]},
    }
    return {
        "description": "Services that answer Anthropic's API, by name.",
        "type": "object",
        "propertyNames": {"pattern": f"^{PROVIDER_NAME.pattern}$"},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "required": list(REQUIRED_PROVIDER_KEYS),
            "properties": {key: shapes[key] for key in PROVIDER_KEYS},
        },
    }


def _form_kind() -> Any:
    return next(field.kind for field in fields_in_section("gateway") if field.name == "form")


def _projects() -> dict[str, Any]:
    return {
        "description": "The policy of a project directory, for `run`.",
        "type": "object",
        "propertyNames": {"pattern": "^[/~]"},
        "additionalProperties": {"type": "string", "minLength": 1},
    }
