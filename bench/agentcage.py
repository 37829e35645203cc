"""agentcage's data path: mitmdump with its addon, as its egress container starts it.

It is found by $AGENTCAGE, which names the directory of the package, or among the packages of this
Python. Its containers and its DNS filter are left out: what is measured is its proxy.
"""

import importlib.util
import json
import os
from pathlib import Path

from bench.place import HOST, Place
from bench.proxies import Mitmdump, Target

_VARIABLE = "AGENTCAGE"
_ADDON = "data/proxy/addon.py"


class Agentcage(Mitmdump):
    """agentcage's inspectors as they come, but for its limit of ten requests a second."""

    name = "agentcage"

    def __init__(self, place: Place, target: Target) -> None:
        super().__init__(place, target)
        self._package = _package()

    def version(self) -> str:
        """Return what the directory beside the package says."""
        beside = self._package.parent.glob("agentcage-*.dist-info") if self._package else ()
        return next((path.name.split("-")[1].removesuffix(".dist") for path in beside), "")

    def missing(self) -> str | None:
        """Need the package and what mitmdump needs."""
        if self._package is None or not (self._package / _ADDON).exists():
            return (
                "not installed; pip install --no-deps --target DIRECTORY agentcage, and name "
                f"DIRECTORY/agentcage in ${_VARIABLE}"
            )
        return super().missing()

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return mitmdump with the options that its supervisor gives it."""
        config = directory / "config.json"  # JSON is YAML
        config.write_text(json.dumps(_CONFIG))
        argv, ca = self.mitmdump(port)
        argv += ["--set", "connection_strategy=lazy", "--set", "keep_host_header=true"]
        argv += ["--scripts", (self._package or Path()) / _ADDON]
        log = {"AGENTCAGE_AUDIT_LOG": str(directory / "audit.jsonl")}
        return argv, {**os.environ, "AGENTCAGE_CONFIG": str(config), **log}, ca


# The load generator's body, one letter ten thousand times, would be blocked as large Base64.
_CONFIG = {
    "domains": {"mode": "allowlist", "list": [HOST]},
    "content_type": {"detect_base64": False},
    "rate_limit": {"requests_per_second": 0},
}


def _package() -> Path | None:
    if named := os.environ.get(_VARIABLE):
        return Path(named)
    found = importlib.util.find_spec("agentcage")
    return Path(found.origin).parent if found and found.origin else None
