"""Settings show where they lead and no secret, and their defaults bound every client."""

from pathlib import Path

import pytest

from claude_proxy.config.settings import (
    Base,
    ClientCredentials,
    Gateway,
    Limits,
    Settings,
    TcpListen,
    UnixListen,
    UpstreamProxy,
)
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

CORP = Authority.of("corp.test", 443)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (TcpListen("127.0.0.1", 1), "127.0.0.1:1"),
        (TcpListen("::1", 1), "[::1]:1"),
        (UnixListen(Path("/run/p.sock")), "unix:/run/p.sock"),
        (Base(Scheme.HTTPS, CORP, "/x"), "https://corp.test/x"),
        (Base(Scheme.HTTP, CORP), "http://corp.test:443"),
    ],
    ids=str,
)
def test_a_place_is_written_as_an_option_would(value: object, text: str) -> None:
    assert str(value) == text


@pytest.mark.parametrize(
    "value",
    [
        ClientCredentials("me", "hunter2"),
        UpstreamProxy(CORP, "me:hunter2"),
        Gateway((), Base(Scheme.HTTPS, CORP), Injection(EnvironmentSource("KEY")), token="hunter2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_shows_a_secret(value: object) -> None:
    assert "hunter2" not in repr(value)


def test_the_ca_is_in_the_configuration_directory_unless_named() -> None:
    settings = Settings(Path("a"), Path("conf"), Path("state"))

    assert settings.place_of_ca == Path("conf")
    assert Settings(Path("a"), Path("c"), Path("s"), cadir=Path("ca")).place_of_ca == Path("ca")


def test_only_loopback_is_served_unless_clients_are_named() -> None:
    assert all(network.is_loopback for network in Settings(Path(), Path(), Path()).clients)


def test_a_connection_may_be_silent_for_as_long_as_claude_code_waits() -> None:
    assert Limits().idle_timeout_s > 600


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (Settings(Path("c/allowlist.yaml"), Path("c"), Path("s")), ()),
        (Settings(Path("a.yaml"), Path("c"), Path("s")), ("--allowlist", "a.yaml")),
        (Settings(Path("a.yaml"), Path("c"), Path("s"), policy="acme"), ("--policy", "acme")),
        (Settings(Path("shipped"), Path("c"), Path("s"), awaited_allowlist=Path("c/a")), ()),
        (
            Settings(Path("c/allowlist.yaml"), Path("c"), Path("s"), names_confdir=True),
            ("--confdir", "c"),
        ),
    ],
)
def test_a_list_that_is_not_the_usual_one_is_named_by_options(
    settings: Settings, options: tuple[str, ...]
) -> None:
    assert settings.list_options == options
