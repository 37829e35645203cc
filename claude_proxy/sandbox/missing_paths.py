"""Missing paths of a directory, found by one listing of it instead of a look at each.

Most names of the table of obeyed files do not exist in any one project, and most places of secrets
in no one home.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from claude_proxy.sandbox.plan.model import PathInfo, PathKind


def missing_in(directory: Path, paths: Iterable[Path]) -> dict[Path, PathInfo]:
    """Return those of `paths` of which not even the first name below a directory exists.

    Names are compared without regard to case: on some file systems `.Envrc` is `.envrc`.
    """
    try:
        present = {name.casefold() for name in os.listdir(directory)}  # noqa: PTH208 - names
    except NotADirectoryError:
        present = set()
    except OSError:
        return {}
    real = os.path.realpath(directory)
    # As text: there are hundreds of paths, and their parts are made again each time.
    above = f"{directory}/"
    below = {path: text[len(above) :] for path in paths if (text := str(path)).startswith(above)}
    direct = real == str(directory)  # then a path is its own real path
    return {
        path: PathInfo(PathKind.MISSING, path if direct else Path(f"{real}/{name}"))
        for path, name in below.items()
        if name.partition("/")[0].casefold() not in present and ".." not in name.split("/")
    }
