"""The law of sources: a message says where a value is, and nothing that could be secret."""

from pathlib import Path

import pytest

from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
    source_name,
)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (EnvironmentSource("KEY"), "environment variable KEY"),
        (DotenvSource(Path("/a/.env"), "KEY"), "KEY in /a/.env"),
        (FileSource(Path("/a")), "file /a"),
        (FileSource(Path("/a"), ("b", "c")), "file /a, key b.c"),
        (CommandSource(("pass", "CANARY")), "command pass"),
        (KeyringSource("service", "me"), "keyring entry service of me"),
        (SystemdSource("key"), "systemd credential key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_source_is_named_without_a_commands_arguments(source: SecretSource, name: str) -> None:
    assert source_name(source) == name
