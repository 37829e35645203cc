"""Policies as arguments: a policy's name, a file, the allowlist in force, the shipped list, or `-`.

For commands that only compare and print: nothing is served by what they read.
"""

import os
import sys
from pathlib import Path

from claude_proxy.cli import paths
from claude_proxy.config import policy_files, preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.model import NetworkMode, PolicyFile
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, decode
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy

STANDARD_INPUT = "-"
ALLOWLIST = "allowlist"  # the list in force: the owner's, else the shipped one
SHIPPED = "shipped"  # the list that comes with claude-proxy
RUNNING = "running"  # what the running proxy judges by; `running:NAME` where there are several
WORDS = (ALLOWLIST, SHIPPED)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy, as it was asked for."""

    name: str
    file: PolicyFile

    @property
    def policy(self) -> Policy:
        """The rules of a proxy; none where there is no network."""
        return self.file.policy

    @property
    def is_unfiltered(self) -> bool:
        """Whether a run of it has the machine's own network, where nothing is judged."""
        return self.file.network is NetworkMode.OPEN


def policy_of(text: str, confdir: Path, where: str) -> NamedPolicy:
    """Return the policy that an argument names; ConfigError says what is wrong with it."""
    files = OwnerFiles(confdir)
    if text == STANDARD_INPUT:
        return NamedPolicy("standard input", _read_standard_input(files))
    if _is_running(text, files):
        return _running(text.partition(":")[2] or None)
    if is_file(text):
        return NamedPolicy(text, _read(files, Path(text)))
    if text in WORDS and text not in policy_files.policy_names(files):
        own = paths.allowlist_path(confdir) if text == ALLOWLIST else paths.shipped_allowlist()
        return NamedPolicy(str(own), _read(files, own))
    return NamedPolicy(f"policy {text}", policy_files.read_named(files, text, where))


def _is_running(text: str, files: OwnerFiles) -> bool:
    if text == RUNNING:
        return RUNNING not in policy_files.policy_names(files)
    return text.startswith(f"{RUNNING}:")


def _running(name: str | None) -> NamedPolicy:
    # Most comparisons ask no proxy.
    from claude_proxy.cli import running  # noqa: PLC0415
    from claude_proxy.control.running_policy import policy_in_force  # noqa: PLC0415

    proxy = running.meant(name)
    where = Location(proxy.name, 0, 0)
    return NamedPolicy(f"running {proxy.name}", PolicyFile(policy_in_force(proxy), where))


def is_file(text: str) -> bool:
    """Return whether an argument names a file, not a policy."""
    return os.sep in text or text.endswith((".yaml", ".yml")) or preset_files.is_name(text) is None


def _read(files: OwnerFiles, path: Path) -> PolicyFile:
    text = paths.read_allowlist(path)
    identity = os.path.realpath(path)
    return loader.read(text, name=str(path), library=files.library, identity=identity)


def _read_standard_input(files: OwnerFiles) -> PolicyFile:
    raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    here = Path("standard input")  # what it includes is relative to the current directory
    return loader.read(decode(raw, str(here)), name=str(here), library=files.library)
