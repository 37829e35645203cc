"""The schema of config.yaml accepts what the reader accepts, and knows every key."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from claude_proxy.config import config_schema, config_yaml
from claude_proxy.config.option_table import FIELDS

GOOD = """\
audit_days: 90
audit_size: 256M
grace: 5
record_query: true
client: [10.0.0.0/8]
no_upstream_proxy: [localhost]
serve: {listen: [9052, "unix:~/p.sock"], port: 0}
run: {allow_ro: [~/docs], show_home: [notes]}
gateway: {provider: corp, mode: strict, model: [a=b], max_body: 1K}
providers:
  corp:
    endpoint: https://llm.example
    from: {env: KEY}
    form: bearer
    models: {"*": big}
projects: {~/src/acme: acme}
"""
BAD = [
    "audit_dayz: 3",
    "audit_days: 0",
    "audit_days: many",
    "record_query: sometimes",
    "client: 10.0.0.0/8",
    "client: []",
    "serve: {policy: x}",
    "serve: []",
    "serve: {port: 65536}",
    "gateway: {mode: lax}",
    "providers: {Corp: {endpoint: https://a.test, from: {env: A}}}",
    "providers: {corp: {endpoint: https://a.test}}",
    "projects: {work: acme}",
    "run: {dry_run: true}",
]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema.schema())


def test_a_good_file_is_valid_and_read() -> None:
    jsonschema.validate(yaml.safe_load(GOOD), config_schema.schema())
    assert config_yaml.load(GOOD, Path("/c/config.yaml"), Path("/home/me")).entries


@pytest.mark.parametrize("text", BAD)
def test_what_the_reader_refuses_is_invalid(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), config_schema.schema())


def test_every_key_is_described() -> None:
    properties = config_schema.schema()["properties"]

    for field in FIELDS:
        section = properties[field.section]["properties"] if field.section else properties
        assert (field.name in section) is field.in_file
        if field.in_file:
            assert section[field.name]["description"] == field.help
