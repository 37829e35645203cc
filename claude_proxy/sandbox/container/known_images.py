"""Descriptions of images that are kept for as long as the engine's store of images is unchanged.

Asking podman takes as long as the rest of a start, and it answers from one file, which it replaces
as a whole with each change. Law kept: no quiet downgrade: an answer is used only while that file
and what decides which image a name means are the same files as before the engine was asked, so a
name never leads to an image that the engine would not have named.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import store


@dataclass(frozen=True, slots=True)
class KnownImages:
    """The descriptions that are kept of one store of images."""

    directory: Path
    index: Path  # the file in which the engine lists its images
    key: tuple[str, ...]  # the engine and its settings
    settings: tuple[Path, ...]  # what else decides which image a name means

    def mark(self) -> list[str]:
        """Return what changes when a name may lead to another image."""
        return [*self.key, *(mark_of(path) for path in (self.index, *self.settings))]

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Return what the engine said of an image; None: it has to be asked."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path(name).read_bytes())
            if kept["name"] == name and kept["mark"] == self.mark():
                return dict(kept["image"])
        return None

    def keep(self, name: str, image: Mapping[str, Any], mark: Sequence[str]) -> None:
        """Keep what the engine said; `mark` is from before it was asked.

        Not of an image in another store, whose changes that file does not show.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
            listed = {one["id"] for one in json.loads(self.index.read_bytes())}
            if str(image["Id"]).removeprefix("sha256:") in listed:
                content = {"name": name, "mark": list(mark), "image": image}
                store.make_directory(self.directory)
                path = self._path(name)
                store.write(path.parent, path.name, json.dumps(content).encode())

    def _path(self, name: str) -> Path:
        mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self.directory / f"image-{mark}.json"


def mark_of(path: Path) -> str:
    """Return what changes when a file is written, replaced, made or removed."""
    try:
        found = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_size}"
