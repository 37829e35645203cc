"""config.yaml in the configuration directory: found, checked for its owner, and read.

Fail closed: a file that other users may change, or that cannot be read or understood, stops the
start; only a file that is not there says nothing.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from claude_proxy.config.config_yaml import (
    GATEWAY_NAME,
    NAME,
    ConfigFile,
    load,
    load_gateway,
)
from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, decode
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.system import file_permissions

_HOLDS = "what the proxy does and where the key goes"
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


def read(confdir: Path) -> ConfigFile:
    """Return what config.yaml says, and gateway.yaml where there is one still."""
    config = _read(confdir / NAME, load)
    older = _read(confdir / GATEWAY_NAME, load_gateway)
    if not older.exists:
        return config
    if config.configures_gateway:
        raise ConfigError(
            f"the gateway is configured by two files, {NAME} and {GATEWAY_NAME}",
            where=str(older.path),
            fix=f"move its keys below gateway: in {NAME}, and its providers: to the top of it, "
            f"then delete {GATEWAY_NAME}",
        )
    return replace(config, entries={**config.entries, **older.entries}, providers=older.providers)


def _read(path: Path, parse: Callable[[str, Path, Path | None], ConfigFile]) -> ConfigFile:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            file_permissions.refuse_writable(path, found, _HOLDS)
            raw = file.read(MAX_BYTES + 1)
        file_permissions.refuse_replaceable(path, _HOLDS)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():  # it leads nowhere, which the owner did not mean
            raise _unreadable(path, error) from error
        return ConfigFile(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    config = parse(decode(raw, str(path)), path, _home())
    _refuse_shared_password(config, found.st_mode)
    return config


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _refuse_shared_password(config: ConfigFile, mode: int) -> None:
    proxy = config.value("upstream_proxy")
    if proxy is None or proxy.credentials is None or not mode & _OTHERS_READ:
        return
    raise ConfigError(
        "other users can read the password of the upstream proxy",
        where=f"{config.where('upstream_proxy')} (mode {stat.S_IMODE(mode):04o})",
        fix=f"chmod 600 {config.path}, and change the password if others may have read it",
    )


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the file cannot be read: {(error.strerror or type(error).__name__).lower()}",
        where=str(path),
        fix="make it readable for the user who runs claude-proxy, or remove it",
    )
