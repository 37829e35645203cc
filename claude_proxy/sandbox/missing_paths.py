"""Missing paths of a project, found by one listing of it instead of a look at each.

Most names of the table of obeyed files do not exist in any one project.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from claude_proxy.sandbox.plan.model import PathInfo, PathKind


def missing_in(project: Path, paths: Iterable[Path]) -> dict[Path, PathInfo]:
    """Return those of `paths` of which not even the first directory below the project exists.

    Names are compared without regard to case: on some file systems `.Envrc` is `.envrc`.
    """
    try:
        present = {name.casefold() for name in os.listdir(project)}  # noqa: PTH208 - names
        real = Path(os.path.realpath(project))
    except OSError:
        return {}
    depth = len(project.parts)
    return {
        path: PathInfo(PathKind.MISSING, real.joinpath(*path.parts[depth:]))
        for path in paths
        if path.parts[:depth] == project.parts
        and path.parts[depth:]
        and ".." not in path.parts
        and path.parts[depth].casefold() not in present
    }
