"""How credentials and restrictions are described: hosts and places, never a value."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.summary import (
    describe_credential,
    describe_restrictions,
    restriction_lines,
)

DIGEST = "sha256:" + "0a" * 16 + ":" + "1b" * 32
CREDENTIALS = {
    "{host: a.test, inject: auto, from: {env: KEY}}": "inject auto from environment variable KEY",
    "{host: a.test, inject: basic, user: u, from: {file: ~/k}}": "inject basic as u from file ~/k",
    "{host: a.test, inject: field, field: X-Key, from: {file: /k, key: a.b}}": (
        "inject field x-key from file /k, key a.b"
    ),
    "{host: a.test, inject: bearer, from: {command: [pass, hidden]}}": (
        "inject bearer from command pass"
    ),
    "{host: a.test, inject: bearer, from: {keyring: s, user: u}}": (
        "inject bearer from keyring entry s of u"
    ),
    "{host: a.test, inject: x-api-key, from: {systemd: key}}": (
        "inject x-api-key from systemd credential key"
    ),
    "{host: a.test, pin: learn}": "pin learn",
    "{host: a.test, pin: {from: {env: KEY}}}": "pin from environment variable KEY",
    f"{{host: a.test, pin: '{DIGEST}'}}": "pin 1 by hash",
}


def load(text: str) -> Policy:
    return loader.load(text, name="a.yaml")


@pytest.mark.parametrize(("entry", "shown"), CREDENTIALS.items())
def test_a_credential_is_described_by_its_hosts_and_its_place(entry: str, shown: str) -> None:
    (binding,) = load(f"credentials: [{entry}]").credentials

    assert describe_credential(binding) == f"credential a.test for a.test: {shown}"


def test_unusual_ports_are_described() -> None:
    text = "credentials: [{hosts: [a.test, '*.b.test'], name: x, ports: [8443, 443], pin: learn}]"
    (binding,) = load(text).credentials

    assert (
        describe_credential(binding) == "credential x for a.test,*.b.test ports 443,8443: pin learn"
    )


NARROWED = """
anthropic:
  - host: a.test
    paths: [/1, /2, /3, /4, /5, /6]
    beta: none
    mcp_servers: none
    sources: [allowlisted, b.test]
    max_body: 1500
"""


def test_a_long_list_is_shortened() -> None:
    (narrowing,) = load(NARROWED).restrictions

    assert describe_restrictions(narrowing) == (
        "anthropic a.test; paths /1, /2, /3, /4, and 2 more; beta none; mcp_servers none;"
        " sources allowlisted, b.test; max_body 1500"
    )


def test_each_value_has_its_own_line_for_diffs() -> None:
    old, new = (
        load(NARROWED),
        load(NARROWED.replace("/6", "/7").replace("[allow", "[c.test, allow")),
    )

    assert "anthropic a.test beta none" in restriction_lines(old.restrictions[0])
    assert old.diff(new) == (
        ("anthropic a.test paths /7", "anthropic a.test sources c.test"),
        ("anthropic a.test paths /6",),
    )


def test_a_changed_credential_is_described_without_its_secret() -> None:
    text = "credentials: [{host: a.test, name: x, inject: auto, from: {env: KEY}}]"

    added, removed = load(text).diff(load(text.replace("env: KEY", "command: [pass, sesame]")))

    assert added == ("credential x for a.test: inject auto from command pass",)
    assert removed == ("credential x for a.test: inject auto from environment variable KEY",)


def test_a_changed_placeholder_or_hash_is_reported_without_its_value() -> None:
    text = f"""
credentials:
  - {{host: a.test, name: x, inject: auto, from: {{env: KEY}}, placeholder: our-own-text-of-a}}
  - {{host: b.test, name: y, pin: "{DIGEST}"}}
  - {{host: c.test, name: z, pin: learn}}
"""
    changed = text.replace("text-of-a", "text-of-b").replace("0a", "0b")

    assert load(text).diff(load(f"\n{changed}")) == (
        (
            "credential x (a setting that is not shown here)",
            "credential y (a setting that is not shown here)",
        ),
        (),
    )
