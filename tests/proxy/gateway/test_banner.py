"""What is said of a gateway: where its key comes from and never the key."""

from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Base, Ceilings, Gateway
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
)
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gateway import banner
from claude_proxy.wire.authority import Authority

SOURCES: list[tuple[SecretSource, str, set[str]]] = [
    (EnvironmentSource("OUR_KEY"), "environment variable OUR_KEY", {"OUR_KEY"}),
    (DotenvSource(Path("/w/.env"), "PROXY_API_KEY"), "PROXY_API_KEY in /w/.env", set()),
    (FileSource(Path("/run/key"), ("a",)), "file /run/key, key a", set()),
    (CommandSource(("pass", "show", "canary")), "command pass", set()),
    (KeyringSource("llm", "me"), "keyring entry llm of me", set()),
    (SystemdSource("llm"), "systemd credential llm", set()),
]


def gateway(source: SecretSource, ceilings: Ceilings = Ceilings()) -> Gateway:  # noqa: B008
    base = Base(Scheme.HTTPS, Authority.of("llm.test", 443), "/api")
    return Gateway((), base, Injection(source), token="canary", ceilings=ceilings)


@pytest.mark.parametrize(("source", "said", "variables"), SOURCES)
def test_a_source_is_named_and_its_variables_are_known(
    source: SecretSource, said: str, variables: set[str]
) -> None:
    lines = "\n".join(banner.lines_of(gateway(source), ["http://127.0.0.1:9000"], Policy()))

    assert f"  key:            {said}\n" in lines
    assert "canary" not in lines
    assert banner.secret_variables(gateway(source)) == {"PROXY_API_KEY", *variables}


def test_the_upstream_is_shown_as_its_user_spells_it() -> None:
    [line] = [
        line
        for line in banner.lines_of(gateway(SystemdSource("a")), ["unix:/g"], Policy())
        if "upstream" in line
    ]

    assert line.endswith(" https://llm.test/api")


@pytest.mark.parametrize(
    ("ceilings", "said"),
    [
        (Ceilings(60), "60 requests a minute"),
        (Ceilings(None, 5), "5 tokens a day"),
        (Ceilings(60, 5), "60 requests a minute, 5 tokens a day"),
    ],
)
def test_ceilings_are_told(ceilings: Ceilings, said: str) -> None:
    lines = banner.lines_of(gateway(SystemdSource("a"), ceilings), ["unix:/g"], Policy())

    assert lines[-1].endswith(f" {said}")


def test_callers_on_unix_sockets_need_no_token() -> None:
    lines = banner.lines_of(gateway(SystemdSource("a")), ["unix:/a", "unix:/b"], Policy())

    assert "known by their user" in "\n".join(lines)


def test_it_is_said_what_narrows_the_upstream_and_that_nothing_does() -> None:
    narrowed = loader.load("anthropic: [{host: llm.test, models: [m]}]", name="list.yaml")
    there = gateway(EnvironmentSource("K"))

    assert "  narrowed:       by list.yaml:1" in banner.lines_of(there, [], narrowed)
    assert any("from anywhere" in line for line in banner.lines_of(there, [], Policy()))
