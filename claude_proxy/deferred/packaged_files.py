"""Files that are part of an installed package, as its code is.

`importlib.resources` does the same, and takes as long to import as a tenth of a start.
"""

from importlib.util import find_spec
from pathlib import Path


def packaged_text(package: str, name: str) -> str:
    """Return the text of a file below the directory of a package, which is not imported."""
    return (_directory_of(package) / name).read_text("utf-8")


def packaged_names(package: str, directory: str) -> tuple[str, ...]:
    """Return the names of the files in a directory of a package, in alphabetical order."""
    return tuple(sorted(path.name for path in (_directory_of(package) / directory).iterdir()))


def _directory_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}", name=package)
    return Path(next(iter(spec.submodule_search_locations)))
