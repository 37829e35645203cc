"""Laws of the JSON Schema: it accepts and refuses what the loader does."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from claude_proxy.config import preset_files as packaged
from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.rules import ALLOW_FIELDS, DENY_FIELDS
from claude_proxy.config.allowlist.schema import schema
from claude_proxy.errors import ConfigErrors
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Tls

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = (ROOT / "allowlist.yaml").read_text("utf-8")

NAMES = packaged.names()
SCHEMA = jsonschema.Draft202012Validator(schema())


def of_yaml(text: str) -> Any:
    """Return what any YAML parser makes of a text."""
    return yaml.safe_load(text)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_schema_accepts_the_shipped_list_and_every_preset() -> None:
    SCHEMA.validate(of_yaml(SHIPPED))
    for name in NAMES:
        preset = of_yaml(loader.preset_text(name))
        assert isinstance(preset.pop("description"), str)
        SCHEMA.validate(preset)


def test_the_schema_knows_what_the_loader_knows() -> None:
    definitions = schema()["$defs"]

    assert tuple(definitions["presetName"]["enum"]) == NAMES
    assert tuple(definitions["methods"]["items"]["enum"]) == METHODS
    assert tuple(definitions["allowRule"]["properties"]) == ALLOW_FIELDS
    assert tuple(definitions["denyRule"]["properties"]) == DENY_FIELDS
    fields = definitions["allowRule"]["properties"]
    assert fields["scheme"]["enum"] == [scheme.value for scheme in (*Scheme, *RawScheme)]
    assert fields["tls"]["enum"] == [tls.value for tls in Tls]


GOOD = (
    *("{}", "allow:", "allow: []\ndeny: []", "allow: [a.example.com]", 'allow: ["*.example.com"]'),
    *('allow: [".example.com", 192.0.2.1, 192.0.2.0/24, "2001:db8::1", "2001:db8::/32"]',),
    *("allow: [xn--bcher-kva.example, bücher.example, a_b.example.com, a.example.com.]",),
    *("allow: [{host: a.test, ports: [443, 8443], methods: [GET], paths: [/, /a/*, /b/**]}]",),
    *("allow: [{host: a.example.com, scheme: http, ports: [80, 8080], note: x}]",),
    *("allow: [{host: a.example.com, tls: passthrough, addresses: [10.0.0.0/8, '::1']}]",),
    *("allow: [{preset: claude}]", "deny: [{host: a.example.com, ports: [80, 443]}]"),
    *("deny: ['*.example.com', {host: a.example.com, methods: [DELETE], paths: [/a]}]",),
)
BAD = (
    *("[a.example.com]", "allow: a.example.com", "allows: []", "allow: [[a]]", "allow: [~]"),
    *("allow: ['*']", "allow: ['*.com']", "allow: [https://a.example.com]", "allow: [NO]"),
    *("allow: [a.example.com/x]", "allow: ['a.example.com:443']", "allow: [u@a.example.com]"),
    *("allow: ['^a$']", "allow: ['a.*.example.com']", "allow: ['[::1]']", "allow: [443.5]"),
    *("allow: ['']", "allow: ['a b']", "allow: [{preset: nothing}]", "deny: [{preset: claude}]"),
    *("allow: [{preset: claude, note: x}]", "allow: [{ports: [443]}]", "allow: [{}]"),
    *("allow: [{host: a.example.com, ports: 443}]", "allow: [{host: a.example.com, ports: []}]"),
    *("allow: [{host: a.example.com, ports: ['443']}]",),
    *("allow: [{host: a.example.com, ports: [0]}]", "allow: [{host: a.example.com, ports: [80]}]"),
    *("allow: [{host: a.example.com, ports: [65536]}]",),
    *("allow: [{host: a.example.com, ports: [443.5]}]",),
    *("allow: [{host: a.example.com, ports: [443, 443]}]",),
    *("allow: [{host: a.example.com, scheme: ftp}]", "allow: [{host: a.example.com, tls: off}]"),
    *("allow: [{host: a.example.com, scheme: http, ports: [443]}]",),
    *("allow: [{host: a.example.com, scheme: http, tls: intercept}]",),
    *("allow: [{host: a.example.com, methods: [get]}]",),
    *("allow: [{host: a.example.com, methods: [TRACE]}]",),
    *("allow: [{host: a.example.com, methods: GET}]",),
    *("allow: [{host: a.example.com, methods: []}]", "allow: [{host: a.example.com, paths: []}]"),
    *(
        "allow: [{host: a.example.com, paths: [a]}]",
        "allow: [{host: a.example.com, paths: ['/?a']}]",
    ),
    *("allow: [{host: a.example.com, tls: passthrough, methods: [GET]}]",),
    *("allow: [{host: a.example.com, tls: passthrough, paths: [/]}]",),
    *("allow: [{host: a.example.com, addresses: []}]",),
    *("allow: [{host: a.example.com, addresses: [b.example.com]}]",),
    *("allow: [{host: a.example.com, colour: red}]", "allow: [{host: a.example.com, note: 1}]"),
    *("deny: [{host: a.example.com, tls: intercept}]",),
    *("deny: [{host: a.example.com, addresses: [10.0.0.0/8]}]",),
)


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_the_loader_accepts(text: str) -> None:
    loader.load(text, name="a.yaml")

    SCHEMA.validate(of_yaml(text))


@pytest.mark.parametrize("text", BAD)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    with pytest.raises(ConfigErrors):
        loader.load(text, name="a.yaml")

    assert not SCHEMA.is_valid(of_yaml(text))


POLICIES = (
    *("default: allow", "default: deny", "network: none", "network: open\nprofile: claude"),
    *("include: [a.yaml]", "description: x\nprofile: shell\nnetwork: proxy"),
)


@pytest.mark.parametrize("text", POLICIES)
def test_the_schema_accepts_the_keys_of_a_policy(text: str) -> None:
    SCHEMA.validate(of_yaml(text))


@pytest.mark.parametrize(
    "text", ["default: Allow", "network: off", "profile: ../x", "include: a.yaml", "include: []"]
)
def test_the_schema_refuses_values_that_no_key_has(text: str) -> None:
    assert not SCHEMA.is_valid(of_yaml(text))


def test_the_built_in_policies_fit_the_schema() -> None:
    for name in packaged.policy_names():
        SCHEMA.validate(of_yaml(packaged.policy_text(name)))


def test_every_key_of_the_tables_is_described() -> None:
    properties = schema()["properties"]

    assert list(properties) == [field.name for field in table.FILE]
    assert all(each["description"] for each in properties.values())


def test_the_presets_of_an_owner_can_be_added() -> None:
    own = jsonschema.Draft202012Validator(schema(["mine"]))

    assert own.is_valid({"allow": [{"preset": "mine"}]})
    assert not SCHEMA.is_valid({"allow": [{"preset": "mine"}]})
