"""A vault holds what the listeners of its process need, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Base, Gateway, Settings
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server.vaults import bindings_of, vault_of
from claude_proxy.wire.authority import Authority

GATEWAY = Gateway(
    listen=(),
    upstream=Base(Scheme.HTTPS, Authority.of("api.anthropic.com", 443)),
    credential=Injection(EnvironmentSource("CLAUDE_TEST_GATEWAYS"), strips=True),
)
POLICY = loader.load(
    """\
allow: [one.example]
credentials:
  - {host: one.example, name: one, inject: auto, from: {env: CLAUDE_TEST_ONE}}
""",
    name="allowlist.yaml",
)


@pytest.fixture
def settings(place: Path) -> Settings:
    return Settings(place / "a.yaml", place, place)


def test_a_proxy_has_the_bindings_of_its_policy_and_a_gateway_its_own(settings: Settings) -> None:
    both = replace(settings, gateway=GATEWAY)

    names = [
        [binding.name for binding in bindings_of(each, POLICY)]
        for each in (settings, both, replace(both, listen=()))
    ]

    assert [len(each) for each in names] == [1, 2, 1]
    assert names[0] == ["one"]
    assert "one" not in names[2]


def test_a_credential_that_is_not_there_stops_the_start(settings: Settings) -> None:
    with pytest.raises((ConfigError, ConfigErrors), match='credential "one" has no value'):
        vault_of(settings, POLICY)
