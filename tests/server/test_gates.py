"""Proxy and gateway change their policy at the same time, with their credentials."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Base, Gateway, Limits, Settings
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.decision import CredentialDecision
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.server.gates import Gates, limits_of
from claude_proxy.server.vaults import vault_of
from claude_proxy.vault.vault import Vault
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import Ledger

API = Authority.of("api.anthropic.com", 443)
OTHER = Authority.of("other.example", 443)
KEY, FIRST, SECOND = "CLAUDE_TEST_GATEWAYS", "CLAUDE_TEST_FIRST", "CLAUDE_TEST_SECOND"
GATEWAY = Gateway(
    listen=(),
    upstream=Base(Scheme.HTTPS, API),
    credential=Injection(EnvironmentSource(KEY), strips=True),
)

type Make = Callable[..., tuple[Gates, Vault]]


def policy_of(variable: str = FIRST, host: str = "api.anthropic.com", deny: str = "") -> Policy:
    text = f"""\
allow: [api.anthropic.com, other.example]
deny: [{deny}]
credentials:
  - {{host: {host}, name: one, inject: auto, from: {{env: {variable}}}}}
"""
    return loader.load(text, name="allowlist.yaml")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    for name in (KEY, FIRST, SECOND):
        monkeypatch.setenv(name, f"sk-ant-api03-{name.lower()}")

    def made(gateway: Gateway | None = GATEWAY, *, alone: bool = False) -> tuple[Gates, Vault]:
        settings = Settings(tmp_path / "a.yaml", tmp_path, tmp_path, gateway=gateway)
        settings = replace(settings, listen=()) if alone else settings
        vault = vault_of(settings, policy_of())
        return Gates(settings, policy_of(), Ledger().events.append, vault), vault

    return made


def credential_at(gate: Gate | None, target: Authority = API) -> CredentialDecision:
    assert gate is not None
    request = Request(Scheme.HTTPS, target, target, "POST", "/v1/messages")
    return gate.request(ClientInfo(1, "here", "there"), request, "/v1/messages").credential


def put_in(gate: Gate | None, target: Authority = API) -> bytes:
    """Return which key a request is given."""
    values = [value for name, value in credential_at(gate, target).extra if name == b"x-api-key"]
    return values[0] if values else b""


def test_proxy_and_gateway_each_inject_their_own_key(make: Make) -> None:
    gates, vault = make()

    assert put_in(gates.proxy) == b"sk-ant-api03-claude_test_first"
    assert put_in(gates.gateway) == b"sk-ant-api03-claude_test_gateways"
    vault.close()


def test_without_a_gateway_there_is_one_gate(make: Make) -> None:
    gates, vault = make(None)

    assert gates.gateway is None
    assert put_in(gates.proxy) == b"sk-ant-api03-claude_test_first"
    vault.close()


def test_a_new_policy_takes_effect_in_all_gates_at_once(make: Make) -> None:
    """A value that is bound to another host now must not be given to the one it was bound to."""
    gates, vault = make()

    take = gates.prepare(policy_of(SECOND, host="other.example"))
    before = put_in(gates.proxy), credential_at(gates.proxy, OTHER).credential
    take()
    after = credential_at(gates.proxy).credential, credential_at(gates.proxy, OTHER).credential

    assert before == (b"sk-ant-api03-claude_test_first", None)
    assert after == (None, "one")
    vault.close()


def test_a_policy_with_an_unavailable_credential_changes_nothing(make: Make) -> None:
    gates, vault = make()

    with pytest.raises(ConfigError):
        gates.prepare(policy_of("CLAUDE_TEST_MISSING"))

    assert put_in(gates.proxy) == b"sk-ant-api03-claude_test_first"
    assert put_in(gates.gateway) == b"sk-ant-api03-claude_test_gateways"
    vault.close()


def test_a_new_denial_holds_for_both(make: Make) -> None:
    gates, vault = make()

    gates.prepare(policy_of(deny="api.anthropic.com"))()

    assert gates.gateway is not None
    assert not gates.proxy.policy.decide_connect(API).allowed
    assert not gates.gateway.policy.decide_connect(API).allowed
    vault.close()


def test_a_gateway_whose_key_is_missing_does_not_start(make: Make) -> None:
    missing = Injection(EnvironmentSource("CLAUDE_TEST_MISSING"), strips=True)

    with pytest.raises(ConfigError, match="gateway"):
        make(replace(GATEWAY, credential=missing))


@pytest.mark.parametrize("timeout_s", [1.0, 30.0, 600.0])
def test_no_wait_for_the_upstream_is_longer_than_the_gateways_timeout(timeout_s: float) -> None:
    limits = limits_of(replace(GATEWAY, timeout_s=timeout_s), Limits())

    assert limits.idle_timeout_s == timeout_s
    assert limits.connect_timeout_s + limits.handshake_timeout_s <= timeout_s
    assert limits.connections == Limits().connections


def test_a_gateway_alone_asks_for_no_other_key_than_its_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FIRST)

    gates, vault = make(alone=True)
    gates.prepare(policy_of(SECOND))()

    assert set(vault.secrets) == {"gateway"}
    with pytest.raises(ConfigErrors):
        make()
