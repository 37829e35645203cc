"""Shared by the tests of this directory."""

import socket
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.config.settings import (
    Listen,
    Settings,
    UnixListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.server.listening_sockets import opened


def settings(*listen: Listen, **changes: Any) -> Settings:
    return Settings(Path("a"), Path("c"), Path("s"), listen=listen, **changes)


def unix(path: Path, **changes: Any) -> Settings:
    return settings(UnixListen(path), **changes)


def refusal(given: Settings) -> ConfigError:
    with pytest.raises(ConfigError) as caught, opened(given):
        pass
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
