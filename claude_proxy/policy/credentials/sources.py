"""Credential sources: environment variable, file, command, keyring, systemd, .env file.

Secrets stay outside: a source says where a value is and does not contain it. Pure.
"""

from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """A variable of the proxy's own environment."""

    name: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that only the owner can access; with `keys`, a value inside its JSON."""

    path: Path
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandSource:
    """The output of a command, run again every `refresh_s` seconds and after a 401."""

    argv: tuple[str, ...]
    refresh_s: float = 300.0


@dataclass(frozen=True, slots=True)
class KeyringSource:
    """An entry of the system's keyring."""

    service: str
    user: str


@dataclass(frozen=True, slots=True)
class SystemdSource:
    """A credential that the service manager passes (systemd.exec(5), LoadCredential=)."""

    name: str


@dataclass(frozen=True, slots=True)
class DotenvSource:
    """A variable of a .env file; the file's other variables are ignored."""

    path: Path
    name: str


type SecretSource = (
    EnvironmentSource | FileSource | CommandSource | KeyringSource | SystemdSource | DotenvSource
)


def source_name(source: SecretSource) -> str:
    """Return the name of a source for messages; it contains no secret."""
    match source:
        case EnvironmentSource(name):
            return f"environment variable {name}"
        case DotenvSource(path, name):
            return f"{name} in {path}"
        case FileSource(path, keys):
            return f"file {path}" + (f", key {'.'.join(keys)}" if keys else "")
        case CommandSource(argv):
            # Without its arguments, which may contain a secret although they should not.
            return f"command {argv[0]}"
        case KeyringSource(service, user):
            return f"keyring entry {service} of {user}"
        case SystemdSource(name):
            return f"systemd credential {name}"
