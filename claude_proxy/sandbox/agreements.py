"""Agreements: the content of a project's file that its owner has seen, kept per project.

Law kept: the sandbox cannot move its own wall. A project's file can only restrict, but an agent
that may write beside it can take a restriction away for the next run: by changing the file, by
removing it, or by putting a weaker one nearer to the files. So each of these is a change, and a
changed file counts only after its owner has seen it. The first content is taken as it is: there was
no restriction before that it could take away.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.profiles import PROJECT_FILE

DIRECTORY = "agreements"  # in the state directory
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """What was agreed to for one path; `text` is None if the file was gone."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What the owner has to see before the next run."""

    path: Path
    text: str | None  # of now; None: the file is gone
    before: str | None  # what was agreed to, here or in the file that this one replaces
    replaces: Path | None = None  # an agreed file further up, which no longer counts

    @property
    def is_first(self) -> bool:
        """Whether there was no restriction before."""
        return self.before is None


def change_of(
    project: Path, found: Path | None, text: str | None, known: Callable[[Path], Known | None]
) -> Change | None:
    """Return what differs from what was agreed to; None if nothing does.

    `found` is the nearest project file, whose content is `text`.
    """
    change = None
    for directory in (project, *project.parents):
        path = directory / PROJECT_FILE
        agreed = known(path)
        before = None if agreed is None else agreed.text
        if change is not None:
            if before is not None:  # the new file takes the place of this one
                return Change(change.path, change.text, before, replaces=path)
        elif path == found:
            if agreed is not None and before == text:
                return None
            change = Change(path, text, before)
            if before is not None:
                return change
        elif before is not None:  # it was here, nearer than any that there is now
            return Change(path, None, before)
    return change


class Agreements:
    """The agreements of one user, in the state directory."""

    def __init__(self, statedir: Path) -> None:
        self._directory = statedir / DIRECTORY

    def known(self, path: Path) -> Known | None:
        """Return what was agreed to for a path; ClaudeProxyError if it cannot be read."""
        path = _real(path)
        place = self._place_of(path)
        try:
            with place.open("rb") as file:
                raw = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(place, (error.strerror or "").lower()) from error
        try:
            found = json.loads(raw)
            text = found["text"]
            if found["path"] == str(path) and (text is None or isinstance(text, str)):
                return Known(text)
        except (ValueError, KeyError, TypeError):
            pass
        raise _unreadable(place, "it is damaged")

    def record(self, path: Path, text: str | None) -> None:
        """Keep what is agreed to from now on."""
        path = _real(path)
        place = self._place_of(path)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps({"path": str(path), "text": text}).encode()
        import tempfile  # noqa: PLC0415 - few runs write one

        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).replace(place)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    @property
    def is_empty(self) -> bool:
        """Whether nothing was agreed to yet, for any project."""
        return not self._directory.is_dir()

    def _place_of(self, path: Path) -> Path:
        from hashlib import sha256  # noqa: PLC0415 - few projects have such a file

        return self._directory / f"{sha256(os.fsencode(path)).hexdigest()}.json"


def _real(path: Path) -> Path:
    """Return the same path for a file, however its directory was reached."""
    return Path(os.path.realpath(path.parent)) / path.name


def _unreadable(place: Path, reason: str) -> ClaudeProxyError:
    return ClaudeProxyError(
        f"what was agreed to for a project cannot be read: {reason}",
        where=str(place),
        fix="remove this file, and look at the project's .claude-proxy.yaml: claude-proxy agree",
    )
