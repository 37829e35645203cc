"""Clients that are tested: each has its own command, and every placeholder is filled."""

import re
from pathlib import Path

import pytest

from claude_proxy.doctor.clients import CLIENTS, JAVA_ENV, SHIMS, Client

KNOWN = {"url", "home"}
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def words(client: Client) -> list[str]:
    return [*client.argv, *client.environ.values()]


def test_every_client_has_a_name_of_its_own() -> None:
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_asks_for_the_url_of_the_server(client: Client) -> None:
    assert any("{url}" in word for word in words(client))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_has_no_placeholder_that_nothing_fills(client: Client) -> None:
    found = {name for word in words(client) for name in PLACEHOLDER.findall(word)}

    assert found <= KNOWN


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_fix_names_no_placeholder_but_the_proxy(client: Client) -> None:
    fixes = f"{client.proxy_fix} {client.trust_fix}"

    assert set(PLACEHOLDER.findall(fixes)) <= {"proxy"}


def test_java_gets_the_variable_that_only_it_needs() -> None:
    assert [client.trust_fix for client in CLIENTS if client.java] == [JAVA_ENV]


def test_a_shim_directory_is_relative_to_the_home() -> None:
    assert not any(Path(folder).is_absolute() for folder in SHIMS.values())
