"""The gateway's settings: the nearest word wins, and a key goes only where it belongs."""

from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import gateway_settings
from claude_proxy.cli.gateway_settings import GatewayOptions, Variables
from claude_proxy.config import config_yaml
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_values import parse_base
from claude_proxy.config.settings import Gateway, TcpListen
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SystemdSource,
)
from claude_proxy.vault import dotenv_file

HERE = (TcpListen("127.0.0.1", 9000),)
KEY = "sk-ant-api03-CANARY"
NO_FILE = ConfigFile(Path("/conf/config.yaml"))
CORP = "providers: {corp: {endpoint: https://corp.test, from: {env: CORP_KEY}}}\n"


def file(text: str) -> ConfigFile:
    return config_yaml.load(text, Path("/conf/config.yaml"), None)


def made(variables: Variables, config: ConfigFile = NO_FILE, **options: Any) -> Gateway:
    return gateway_settings.gateway_of(GatewayOptions(**options), HERE, variables, config).gateway


def environment(**variables: str) -> Variables:
    return Variables(variables)


def test_the_nearest_upstream_wins(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / ".env"
    path.write_text("PROXY_UPSTREAM_BASE=https://dotenv.test\n")
    path.chmod(0o600)
    dotenv = dotenv_file.read(path)
    config = file("gateway: {upstream: https://file.test}\n")
    environ = {"PROXY_API_KEY": KEY}

    def host(variables: Variables, **options: Any) -> str:
        return made(variables, config, **options).upstream.authority.host

    assert host(Variables(environ)) == "file.test"
    assert host(Variables(environ, dotenv)) == "dotenv.test"
    environ["PROXY_UPSTREAM_BASE"] = "https://variable.test"
    assert host(Variables(environ, dotenv)) == "variable.test"
    assert host(Variables(environ, dotenv), upstream=parse_base("https://a.test")) == "a.test"


def test_both_missing_words_are_reported_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        made(environment())

    assert len(caught.value.problems) == 2


def test_a_providers_key_comes_from_nowhere_else() -> None:
    with pytest.raises(ConfigError, match="not set"):
        made(environment(PROXY_API_KEY=KEY), file(CORP), provider="corp")

    source = made(environment(CORP_KEY=KEY), file(CORP), provider="corp").credential.source
    assert source == EnvironmentSource("CORP_KEY")


def test_the_key_of_the_file_is_the_last_to_be_taken() -> None:
    config = file("gateway: {upstream: https://file.test, key_systemd: llm}\n")

    assert made(environment(), config).credential.source == SystemdSource("llm")
    source = made(environment(PROXY_API_KEY=KEY), config).credential.source
    assert source == EnvironmentSource("PROXY_API_KEY")


def test_a_key_in_a_dotenv_is_read_from_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / ".env"
    path.write_text(f"PROXY_API_KEY={KEY}\n")
    path.chmod(0o600)
    variables = Variables({}, dotenv_file.read(path))

    source = made(variables, upstream=parse_base("https://a.test")).credential.source

    assert source == DotenvSource(path, "PROXY_API_KEY")
    assert KEY not in repr(variables)


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [
        ("key_file", Path("/run/key"), FileSource(Path("/run/key"))),
        ("key_env", "KEY", EnvironmentSource("KEY")),
        ("key_systemd", "llm", SystemdSource("llm")),
        ("key_command", "pass show 'my key'", CommandSource(("pass", "show", "my key"))),
        ("key_keyring", "https://llm:me", KeyringSource("https://llm", "me")),
    ],
)
def test_each_key_option_names_a_source(name: str, value: Any, source: object) -> None:
    assert gateway_settings.key_source(name, value, "--x") == source


@pytest.mark.parametrize(
    ("name", "value"),
    [("key_command", "pass 'show"), ("key_command", " "), ("key_keyring", "llm")],
)
def test_a_key_option_that_names_none_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gateway_settings.key_source(name, value, "--x")

    assert caught.value.where == "--x"


def test_an_address_is_of_options_variables_the_file_or_the_default() -> None:
    config = file("gateway: {host: '::1', port: 9009}\n")
    address_of = gateway_settings.address_of

    assert address_of(environment(), NO_FILE, None, None) == TcpListen("127.0.0.1", 9000)
    assert address_of(environment(), config, None, None) == TcpListen("::1", 9009)
    both = environment(PROXY_HOST="127.0.0.2", PROXY_PORT="1")
    assert address_of(both, config, None, None) == TcpListen("127.0.0.2", 1)
    assert address_of(both, config, "127.0.0.3", 2) == TcpListen("127.0.0.3", 2)


def test_other_machines_need_permission_and_a_token() -> None:
    wide = (TcpListen("0.0.0.0", 9000),)
    options: dict[str, Any] = {"upstream": parse_base("https://a.test")}
    variables = environment(PROXY_API_KEY=KEY)

    for allow, fix in ((False, "--allow-remote"), (True, "--token-file")):
        given = GatewayOptions(allow_remote=allow, **options)
        with pytest.raises(ConfigError) as caught:
            gateway_settings.gateway_of(given, wide, variables, NO_FILE)
        assert fix in str(caught.value.fix)

    given = GatewayOptions(allow_remote=True, new_token=True, **options)
    assert gateway_settings.gateway_of(given, wide, variables, NO_FILE).gateway.token
