"""The subject of a diagnosis: settings of the proxy, environment of the shell, platform."""

from collections.abc import Mapping
from dataclasses import dataclass

from claude_proxy.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Subject:
    """One installation, as its user would start it."""

    settings: Settings
    environ: Mapping[str, str]
    platform: str  # as in `sys.platform`
