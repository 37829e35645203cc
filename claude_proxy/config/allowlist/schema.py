"""JSON Schema of a policy file, for editors; generated from the table of keys. Pure."""

from collections.abc import Iterable
from typing import Any

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.credentials import MOST
from claude_proxy.config.allowlist.format import Field, FileRole, Kind
from claude_proxy.config.allowlist.messages import KEYS
from claude_proxy.policy.methods import METHODS

type Fragment = dict[str, Any]

_NAME_WITH_WILDCARD = r"^(?!\*+$)[!-+\--~]+$"


def schema(own_presets: Iterable[str] = ()) -> Fragment:
    """Return the JSON Schema of a policy file, for an owner who has these presets."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "claude-proxy policy file",
        "description": "What clients of claude-proxy may reach. What no entry of allow covers is "
        "denied; what an entry of deny covers is denied whatever allow says.",
        "type": ["object", "null"],
        **_object(field for field in table.FILE if FileRole.POLICY in field.where),
        "$defs": _definitions((*preset_files.names(), *own_presets)),
    }


def _object(fields: Iterable[Field]) -> Fragment:
    properties = {field.name: _property(field) for field in fields}
    return {"additionalProperties": False, "properties": properties}


def _property(field: Field) -> Fragment:
    default = f" Default: {field.default}." if field.default else ""
    return {"description": field.help + default, **_FRAGMENTS[field.kind]}


def _ref(name: str) -> Fragment:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Fragment) -> Fragment:
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": items}


def _entries(name: str, most: int | None = None) -> Fragment:
    limit = {} if most is None else {"maxItems": most}
    return {"type": ["array", "null"], **limit, "items": _ref(name)}


def _text(pattern: str) -> Fragment:
    return {"type": "string", "pattern": pattern}


def _words(*words: str) -> Fragment:
    return {"enum": list(words)}


_FRAGMENTS: dict[Kind, Fragment] = {
    Kind.TEXT: {"type": "string"},
    Kind.DEFAULT: _words("deny", "ask", "allow"),
    Kind.NETWORK: _words("proxy", "none", "open"),
    Kind.PROFILE: _text("^[a-z0-9][a-z0-9._-]{0,62}$"),
    Kind.FILES: _list({"type": "string", "minLength": 1}),
    Kind.ALLOW: _entries("allowEntry"),
    Kind.DENY: _entries("denyEntry"),
    Kind.CREDENTIALS: _entries("credential", MOST),
    Kind.ANTHROPIC: _entries("narrowing"),
    Kind.PRESET: _ref("presetName"),
    Kind.HOST: _ref("host"),
    Kind.HOSTS: _list(_ref("host")),
    Kind.NAMED_HOST: _ref("namedHost"),
    Kind.NAMED_HOSTS: _list(_ref("namedHost")),
    Kind.PORTS: _ref("ports"),
    Kind.TLS_PORTS: {"allOf": [_ref("ports"), {"not": {"contains": {"const": 80}}}]},
    Kind.SCHEME: _words("https", "http", "tcp"),
    Kind.METHODS: _ref("methods"),
    Kind.PATHS: _ref("paths"),
    Kind.TLS: _words("intercept", "passthrough"),
    Kind.NETWORKS: _list(_ref("network")),
    Kind.YES_NO: {"type": "boolean"},
    Kind.NAME: {**_text("^[a-z0-9][a-z0-9._-]{0,252}$"), "not": {"const": "gateway"}},
    Kind.FORM: _words("auto", "x-api-key", "bearer", "basic", "field", "postgres"),
    Kind.SERVER_TLS: _words("verify", "none"),
    Kind.LOGINS: _list(_words("scram-sha-256", "md5", "password")),
    Kind.FIELD: _text("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"),
    Kind.USER: _text("^[!-9;-~]+$"),
    Kind.SOURCE: _ref("source"),
    Kind.PLACEHOLDER: _text("^[!-~]{16,256}$"),
    Kind.VARIABLES: _list(_ref("variable")),
    Kind.PIN: {
        "anyOf": [
            {"const": "learn"},
            _ref("digest"),
            _list(_ref("digest")),
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["from"],
                "properties": {"from": _ref("source")},
            },
        ]
    },
    Kind.VARIABLE: _ref("variable"),
    Kind.PATH: _text(r"^(/|~/)[^\n]*[^/\n]$"),
    Kind.JSON_KEY: _text(r"^[^.]+(\.[^.]+)*$"),
    Kind.COMMAND: {"type": "array", "minItems": 1, "items": {"type": "string"}},
    Kind.DURATION: {"type": ["string", "number"]},
    Kind.PRINTABLE: {"type": "string", "minLength": 1},
    Kind.UNIT: _text("^[A-Za-z0-9_.@:-]{1,255}$"),
    Kind.API_PATHS: {"anyOf": [{"const": "all"}, _ref("paths")]},
    Kind.MODELS: {"anyOf": [_words("all"), _list(_text(_NAME_WITH_WILDCARD))]},
    Kind.WORDS: {"anyOf": [_words("all", "none"), _list(_text(_NAME_WITH_WILDCARD))]},
    Kind.TOOLS: {
        "anyOf": [
            _words("all", "none"),
            _list(_text("^(?!.*[_-][0-9]{8}$)[a-z][a-z0-9_]{0,63}$")),
        ]
    },
    Kind.REACH: _ref("reach"),
    Kind.SIZE: {"type": ["string", "integer"]},
}


def _definitions(presets: Iterable[str]) -> dict[str, Fragment]:
    return {
        "allowEntry": _entry(
            {
                "if": {"required": ["preset"]},
                "then": _ref("presetEntry"),
                "else": _ref("allowRule"),
            }
        ),
        "denyEntry": _entry(_ref("denyRule")),
        "presetEntry": {
            "type": "object",
            "required": ["preset"],
            **_object(table.PRESET_ENTRY),
        },
        "allowRule": {
            "type": "object",
            "required": ["host"],
            **_object(table.ALLOW),
            "allOf": _CONDITIONS_OF_ALLOW,
        },
        "denyRule": {
            "type": "object",
            "required": ["host"],
            **_object(table.DENY),
            "allOf": [_when("scheme", "tcp", _without("methods", "paths"))],
        },
        "credential": {
            "type": "object",
            **_object(table.CREDENTIAL),
            "allOf": [_one_of("host", "hosts"), *_CONDITIONS_OF_CREDENTIAL],
        },
        "source": {
            "type": "object",
            **_object(table.SOURCE),
            "oneOf": [
                {"required": [name]} for name in ("env", "file", "command", "keyring", "systemd")
            ],
            "dependentRequired": {
                "key": ["file"],
                "refresh": ["command"],
                "user": ["keyring"],
                "keyring": ["user"],
            },
        },
        "narrowing": {
            "type": "object",
            **_object(table.ANTHROPIC),
            "allOf": [
                _one_of("host", "hosts"),
                {"anyOf": [{"required": [key]} for key in KEYS]},
            ],
        },
        **_VALUES,
        "presetName": _words(*presets),
    }


def _entry(mapping: Fragment) -> Fragment:
    return {"if": {"type": "object"}, "then": mapping, "else": _ref("host")}


def _one_of(one: str, other: str) -> Fragment:
    return {
        "oneOf": [
            {"required": [one], "not": {"required": [other]}},
            {"required": [other], "not": {"required": [one]}},
        ]
    }


def _when(key: str, value: str, then: Fragment, otherwise: Fragment | None = None) -> Fragment:
    condition = {"required": [key], "properties": {key: {"const": value}}}
    return {"if": condition, "then": then, **({} if otherwise is None else {"else": otherwise})}


def _without(*keys: str) -> Fragment:
    return {"properties": dict.fromkeys(keys, False)}


def _without_port(port: int) -> Fragment:
    return {"ports": {"not": {"contains": {"const": port}}}}


_CONDITIONS_OF_ALLOW = [
    _when(
        "tls",
        "passthrough",
        {
            "description": "Requests inside a tunnel that is passed through cannot be seen, so "
            "they cannot be limited.",
            **_without("methods", "paths"),
        },
    ),
    _when(
        "scheme",
        "http",
        {"properties": {"tls": False, **_without_port(443)}},
        {"properties": _without_port(80)},
    ),
    _when(
        "scheme",
        "tcp",
        {
            "description": "Bytes of any protocol cannot be judged as requests are.",
            "required": ["ports"],
            "properties": {"methods": False, "paths": False, "tls": False, **_without_port(443)},
        },
    ),
]
_CONDITIONS_OF_CREDENTIAL = [
    {
        "if": {"required": ["pin"]},
        "then": _without(
            *("inject", "field", "user", "from", "placeholder", "variables"),
            *("database", "tls", "auth"),
        ),
        "else": {"required": ["inject", "from"]},
    },
    _when("inject", "field", {"required": ["field"]}, _without("field")),
    {
        "if": {"required": ["inject"], "properties": {"inject": _words("basic", "postgres")}},
        "then": {"required": ["user"]},
        "else": _without("user"),
    },
    _when("inject", "postgres", {}, _without("database", "tls", "auth")),
]
_VALUES: dict[str, Fragment] = {
    "host": {
        "type": "string",
        "anyOf": [
            {
                "pattern": r"^(\*?\.)?[^\s!-,/:-@\[-^`{-~]+$",
                "not": {"pattern": r"^\*\.[^.]+\.?$"},
            },
            _ref("network"),
        ],
    },
    "network": {
        "description": "An IP address or a network in CIDR notation, in its canonical spelling.",
        **_text(r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f]*:[0-9a-f:]*)(/[0-9]{1,3})?$"),
    },
    "namedHost": {
        "description": "As host, but never an address or a network.",
        "allOf": [_ref("host"), {"not": _ref("network")}],
    },
    "ports": _list({"type": "integer", "minimum": 1, "maximum": 65535}),
    "methods": _list(_words(*METHODS)),
    "paths": _list(_text("^/[^?#]*$")),
    "variable": {
        "description": "The name of an environment variable.",
        **_text("^[A-Za-z_][A-Za-z0-9_]{0,127}$"),
    },
    "reach": {
        "anyOf": [
            _words("all", "none", "allowlisted"),
            _list(
                {
                    "anyOf": [
                        {"const": "allowlisted"},
                        {"allOf": [_ref("host"), {"not": _words("all", "none")}]},
                    ]
                }
            ),
        ]
    },
    "digest": _text("^sha256:([0-9a-f]{2}){8,64}:[0-9a-f]{64}$"),
}
