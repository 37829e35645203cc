"""A policy as it was read, with the state of the files that it was read from.

Imports nothing that reads a policy: a proxy may be given one that its launcher has read.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from claude_proxy.config.file_states import Fingerprint, changed
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy, and the state of the files that it was read from."""

    policy: Policy
    states: Mapping[Path, Fingerprint] = field(default_factory=dict)
    digests: Mapping[Path, bytes] = field(default_factory=dict)
    blank: frozenset[Path] = frozenset()  # of its files, those that say nothing
    narrowing: tuple[Rule, ...] = ()
    # What is wrong with the project's file; then the rules that it held before are in force.
    complaint: ConfigError | None = None

    @property
    def is_stale(self) -> bool:
        """Whether a file has changed since it was read."""
        return changed(self.states)
