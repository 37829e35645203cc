"""System listings: what is in the directories of the system that contain a secret; usually none."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from claude_proxy.sandbox.plan import system_walls
from claude_proxy.sandbox.plan.model import PathInfo


def listings_of(
    walls: Iterable[Path], paths: Mapping[Path, PathInfo]
) -> dict[Path, tuple[str, ...]]:
    """Return the names in each directory of the system that cannot be shown as a whole."""
    both = {wall for path in walls for wall in (path, paths[path].real)}
    found = {}
    for path, real in system_walls.directories_to_list(both, paths):
        try:
            found[path] = tuple(sorted(os.listdir(real)))  # noqa: PTH208 - names
        except OSError:
            continue  # nothing there
    return found
