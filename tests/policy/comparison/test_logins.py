"""Laws of the logins that a change of credentials opens."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.difference import opened

KEY = "\ncredentials: [{host: a.example, inject: bearer, from: {env: KEY}}]"
OTHER = KEY.replace("KEY", "OTHER")
PIN = "\ncredentials: [{host: a.example, pin: learn}]"
ALLOW = "allow: [a.example]"
API = "allow: [api.anthropic.com, claude.ai]"
API_KEY = "\ncredentials: [{host: api.anthropic.com, inject: auto, from: {env: KEY}}]"
DB = "allow: [{host: a.example, scheme: tcp, ports: [5432]}]"
DB_KEY = "\ncredentials: [{host: a.example, inject: postgres, user: app, from: {env: KEY}}]"


def lines(old: str, new: str) -> list[str]:
    return list(map(str, opened(*(loader.load(text, name="list.yaml") for text in (old, new)))))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (ALLOW + KEY, ALLOW, ["any login on https://a.example"]),
        (ALLOW + PIN, ALLOW, ["any login on https://a.example"]),
        (ALLOW, ALLOW + PIN, []),
        (ALLOW + KEY, ALLOW + KEY, []),
        (
            API + API_KEY,
            API,
            ["any login on https://claude.ai", "any login on https://api.anthropic.com"],
        ),
        (DB + DB_KEY, DB, ["any login on tcp://a.example:5432"]),
    ],
)
def test_the_end_of_a_binding_opens_every_other_login(old: str, new: str, text: list[str]) -> None:
    assert lines(old, new) == text


@pytest.mark.parametrize("old", [ALLOW, ALLOW + OTHER])
def test_a_credential_of_the_owners_that_is_injected_is_an_opening(old: str) -> None:
    [line] = lines(old, ALLOW + KEY)

    assert line.startswith("the credential a.example (inject bearer from environment variable KEY)")
