"""Prints what a poetry.lock pins as requirements with hashes, for `pip install --require-hashes`.

Every group is taken. It keeps the lock file the one place where a version is chosen, for those
who have pip and no Poetry.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def requirements(lock: dict[str, Any]) -> Iterator[str]:
    """Yield one requirement a package."""
    for package in lock["package"]:
        marker = marker_of(package)
        condition = f" ; {marker}" if marker else ""
        hashes = "".join(f" \\\n    --hash={file['hash']}" for file in package["files"])
        yield f"{package['name']}=={package['version']}{condition}{hashes}"


def marker_of(package: dict[str, Any]) -> str:
    """Return when a package is needed by any of its groups; empty if always."""
    markers = package.get("markers", "")
    if isinstance(markers, str):
        return markers
    if set(markers) != set(package["groups"]):
        return ""  # a group without a marker needs it always
    return " or ".join(f"({marker})" for marker in sorted(set(markers.values())))


if __name__ == "__main__":
    sys.stdout.write(
        "\n".join(requirements(tomllib.loads(Path(sys.argv[1]).read_text("utf-8")))) + "\n"
    )
