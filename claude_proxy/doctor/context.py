"""Holds what is looked at: what the proxy would be told, the shell around, the machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from claude_proxy.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Subject:
    """One installation as its user would start it."""

    settings: Settings
    environ: Mapping[str, str]
    platform: str  # as `sys.platform` has it
