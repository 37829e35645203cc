"""Paths of the configuration, the state and the allowlist, and reading of the allowlist.

Default-deny where a file is missing: only "there is no such file" leads to the shipped default. A
file that is there and cannot be read is an error, never a reason to use another list.
"""

import os
import sys
from pathlib import Path

import claude_proxy
from claude_proxy.errors import ConfigError

PROGRAM = "claude-proxy"
ALLOWLIST = "allowlist.yaml"
_CONFIG = "config.yaml"
CONFDIR_VARIABLE = "CLAUDE_PROXY_CONFDIR"


def default_confdir() -> Path:
    """Return where the CA and the user's allowlist are kept unless --confdir says otherwise."""
    if sys.platform == "win32":
        import platformdirs  # noqa: PLC0415 - a third of the start-up time of `check`

        return Path(platformdirs.user_config_dir(PROGRAM, appauthor=False))
    # macOS as well: the tools that read the CA certificate are pointed at this path.
    base = os.environ.get("XDG_CONFIG_HOME", "") if sys.platform != "darwin" else ""
    # The XDG specification has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else _home() / ".config") / PROGRAM  # noqa: PTH117


def default_statedir() -> Path:
    """Return where the audit log is kept unless --statedir says otherwise."""
    if sys.platform != "linux":
        import platformdirs  # noqa: PLC0415 - it takes long

        return Path(platformdirs.user_state_dir(PROGRAM, appauthor=False))
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else _home() / ".local" / "state") / PROGRAM  # noqa: PTH117


def statedir_in_force() -> Path:
    """Return the directory of the audit log for a command that has no --confdir.

    It is the one in config.yaml, if that names one; --statedir wins over it.
    """
    confdir = Path(os.environ.get(CONFDIR_VARIABLE) or default_confdir())
    if os.path.lexists(confdir / _CONFIG):
        from claude_proxy.config import config_file  # noqa: PLC0415 - only if there is a file

        written: Path | None = config_file.read(confdir).value("statedir")
        if written is not None:
            return written
    return default_statedir()


def shipped_allowlist() -> Path:
    """Return the path of the default allowlist: in the package, or above it in a checkout."""
    package = Path(claude_proxy.__file__).parent
    for candidate in (package / ALLOWLIST, package.parent / ALLOWLIST):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        "the default allowlist is missing from the installation",
        where=str(package / ALLOWLIST),
        fix="install claude-proxy again, or name a list with --allowlist",
    )


def allowlist_path(confdir: Path) -> Path:
    """Return the allowlist to use when none is named: the user's if there is one."""
    own = confdir / ALLOWLIST
    try:
        # Not `exists`: it answers no as well when the directory may not be searched or a link
        # dangles, and the user's list must not be passed over then.
        own.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return shipped_allowlist()
    except OSError as error:
        raise _unreadable(own, error) from error
    return own


def read_allowlist(path: Path) -> str:
    """Return the text of an allowlist file; raise ConfigError if there is none to be had."""
    # A quarter of the start-up time of `env` and `ca`, which read no allowlist.
    from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, decode  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode(raw, str(path))


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError(
            "there is no home directory", where="HOME", fix="set HOME, or give --confdir"
        ) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    reason = (error.strerror or type(error).__name__).lower()
    fix = "name an allowlist file with --allowlist"
    if isinstance(error, PermissionError):
        fix = "make it readable for the user who runs claude-proxy"
    return ConfigError(f"the allowlist cannot be read: {reason}", where=str(path), fix=fix)
