"""Copy of the allowlist in a run, and Git's settings by it, which follow the list in the run.

The sandbox sees their directory read-only; the run's proxy replaces both after each policy that it
applies. Credentials are not in it (secrets stay outside).
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.plan.environment import FOLLOWED
from claude_proxy.sandbox.run_spec import list_files

DIRECTORY = "list"  # in the run's directory


def place_in(run_directory: Path) -> Path:
    """Return the directory of the copy, which a run shows."""
    return run_directory / DIRECTORY


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replace each copy as a whole: a reader inside sees the old or the new one."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in FOLLOWED:
        _replace(directory, name, files[name])


def _replace(directory: Path, name: str, text: bytes) -> None:
    new = directory / f".{name}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o444)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
        file.write(text)
    new.replace(directory / name)


def follow(directory: Path, settings: Settings) -> None:
    """Write the copy of a policy that was just applied; a failure leaves the one before."""
    with suppress(ClaudeProxyError, OSError):
        write(directory, list_files(settings))
