"""Providers: every mistake has its place, and no API key is in the file."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config import config_yaml
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.providers import ANTHROPIC, Provider, find_provider
from claude_proxy.config.settings import Base
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Form
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SystemdSource,
)
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

PROVIDERS = """\
providers:
  corp:
    endpoint: https://llm.corp.example/anthropic/
    from: {env: CORP_LLM_KEY}
    form: bearer
    models: {"*": corp-large, claude-haiku-4-5: corp-small}
  local:
    endpoint: http://127.0.0.1:8080
    from: {file: /etc/llm/key, key: llm.key}
    models: llama
"""


def load(text: str) -> ConfigFile:
    return config_yaml.load(text, Path("/conf/config.yaml"), None)


def provider(lines: str) -> str:
    """Return a file with one provider, of those lines."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"providers:\n  one:\n{indented}"


GOOD = "endpoint: https://llm.example\nfrom: {env: KEY}"


def test_everything_that_can_be_said_is_read() -> None:
    corp = Base(Scheme.HTTPS, Authority.of("llm.corp.example", 443), "/anthropic")

    assert load(PROVIDERS).providers == {
        "corp": Provider(
            "corp",
            corp,
            EnvironmentSource("CORP_LLM_KEY"),
            Form.BEARER,
            (("*", "corp-large"), ("claude-haiku-4-5", "corp-small")),
        ),
        "local": Provider(
            "local",
            Base(Scheme.HTTP, Authority.of("127.0.0.1", 8080)),
            FileSource(Path("/etc/llm/key"), ("llm", "key")),
            models=(("*", "llama"),),
        ),
    }


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("{env: KEY}", EnvironmentSource("KEY")),
        ("{file: /run/key}", FileSource(Path("/run/key"))),
        ("{command: [pass, show, llm], refresh: 1m}", CommandSource(("pass", "show", "llm"), 60.0)),
        ("{keyring: llm, user: me}", KeyringSource("llm", "me")),
        ("{systemd: llm}", SystemdSource("llm")),
    ],
)
def test_a_key_comes_from_where_the_credentials_of_the_allowlist_may(
    written: str, source: object
) -> None:
    text = provider(f"endpoint: https://llm.example\nfrom: {written}")

    assert load(text).providers["one"].source == source


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("providers: []", "not a mapping", 1),
        ("providers: {Corp: {}}", "not the name of a provider", 1),
        ("providers: {corp: x}", "not a mapping", 1),
        (provider("from: {env: KEY}"), "endpoint is missing", 3),
        (provider("endpoint: https://llm.example"), "from is missing", 3),
        (provider(f"{GOOD}\nurl: x"), "unknown key", 5),
        (provider(f"{GOOD}\nform: basic"), "is not a value of form", 5),
        (provider(f"{GOOD}\nmodels: [a]"), "not a single value", 5),
        (provider(f"{GOOD}\nmodels: {{a: [b]}}"), "a list where a string belongs", 5),
        (provider(f"{GOOD}\nmodels: {{a b: c}}"), "is not the name of a model", 5),
        (provider("endpoint: http://llm.example\nfrom: {env: KEY}"), "must begin with https://", 3),
        (provider("endpoint: https://llm.example\nfrom: KEY"), "names no source", 4),
    ],
)
def test_a_mistake_is_reported_with_its_place_and_how_to_fix_it(
    text: str, what: str, line: int
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(text)

    [problem, *_] = caught.value.problems
    assert what in problem.what
    assert str(problem.where).startswith(f"/conf/config.yaml:{line}:")
    assert problem.fix


@pytest.mark.parametrize(
    "text",
    [
        provider("endpoint: https://llm.example\nfrom: sk-ant-api03-canarycanarycanary"),
        provider("endpoint: https://llm.example\nfrom: {key: sk-ant-api03-canarycanarycanary}"),
        provider("endpoint: https://me:canary@llm.example\nfrom: {env: KEY}"),
        provider("endpoint: https://llm.example/?key=canary\nfrom: {env: KEY}"),
    ],
)
def test_a_key_in_the_file_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(text)

    assert "canary" not in "\n".join(caught.value.lines())


def test_one_provider_is_built_in() -> None:
    found = find_provider({}, "anthropic", "--provider")

    assert found == ANTHROPIC
    assert str(found.endpoint) == "https://api.anthropic.com"


def test_a_provider_of_the_owner_replaces_the_built_in_one() -> None:
    own = load(f"providers:\n  anthropic: {{{GOOD.replace(chr(10), ', ')}}}\n").providers

    found = find_provider(own, "anthropic", "--provider")

    assert found.endpoint.authority == Authority.of("llm.example", 443)


def test_a_provider_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError) as caught:
        find_provider(load(PROVIDERS).providers, "nobody", "PROXY_PROVIDER")

    assert caught.value.where == "PROXY_PROVIDER"
    assert "anthropic, corp, local" in str(caught.value.fix)


@given(
    st.text()
    | st.from_regex(
        r"(providers|  a|    endpoint|    from|    models)"
        r": ?[\[\]{}a-z0-9:/,\"]*\n",
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        load(text)
