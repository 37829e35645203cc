"""Owner's files: read only if nobody else can change them, with the state to notice a change by.

Law kept: the sandbox cannot change its own policy. A file that others may write or replace is
refused, at the start and at every reload.
"""

import os
from hashlib import sha256
from pathlib import Path

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist.loader import Included, Library
from claude_proxy.config.file_states import (
    PRESETS,
    States,
    fingerprint,
    fingerprint_of,
)
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.config.strict_yaml.file_text import MAX_BYTES, decode
from claude_proxy.errors import ConfigError
from claude_proxy.system import file_permissions


class OwnerFiles:
    """Reads the files below one configuration directory, and keeps the state of each."""

    def __init__(self, confdir: Path) -> None:
        self.confdir = confdir
        self.states: States = {}
        self.digests: dict[Path, bytes] = {}  # of what was read
        self.blank: set[Path] = set()  # files that say nothing: empty, or nothing but comments

    @property
    def library(self) -> Library:
        """What a policy file may name: presets, shipped and own, and files to include."""
        return Library(self.preset, self.preset_names, self.include)

    def read(self, path: Path, what: str, fix: str) -> str:
        """Return the text of a file that nobody else may change; ConfigError otherwise."""
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                self.states[path] = fingerprint_of(found)
                file_permissions.refuse_writable(path, found)
                raw = file.read(MAX_BYTES + 1)
            file_permissions.refuse_replaceable(path)
        except OSError as error:
            self.states.setdefault(path, fingerprint(path))
            raise ConfigError(
                f"the {what} cannot be read: {(error.strerror or type(error).__name__).lower()}",
                where=str(path),
                fix=fix,
            ) from error
        self.digests[path] = sha256(raw).digest()
        if all(not line or line.startswith(b"#") for line in map(bytes.strip, raw.splitlines())):
            self.blank.add(path)
        return decode(raw, str(path))

    def include(self, file: str, base: str) -> Included:
        """Return the text of a file that the policy file `base` includes."""
        path = Path(base).parent / Path(file).expanduser()
        text = self.read(path, "included file", "name a readable file, relative to this one")
        return Included(str(path), text, os.path.realpath(path))

    def preset(self, name: str) -> str:
        """Return a preset's file; KeyError if there is none, ConfigError if there are two."""
        own = None if preset_files.is_name(name) is None else self.own_file(PRESETS, name)
        if own is None:
            return preset_files.text(name)
        if name in preset_files.names():
            raise ConfigError(
                f"{nodes.quoted(name)} is the name of a shipped preset, and of one of yours",
                where=str(own),
                fix=f"rename your file, and write its new name after preset: (my-{name})",
            )
        return self.read(own, "preset", "make it a readable file")

    def preset_names(self) -> tuple[str, ...]:
        """Return the names of all presets, in alphabetical order."""
        return tuple(sorted({*preset_files.names(), *self.own_names(PRESETS)}))

    def own_file(self, directory: str, name: str) -> Path | None:
        """Return where the owner's file of a name is; None if there is none.

        Its absence is kept as a state, too: a file that appears later is a change.
        """
        path = self.confdir / directory / f"{name}{preset_files.SUFFIX}"
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self.states.setdefault(path, fingerprint(path))
            return None
        except OSError:
            pass  # what is wrong is said when it is read
        return path

    def own_names(self, directory: str) -> tuple[str, ...]:
        """Return the names of the owner's files in a directory, in alphabetical order."""
        try:
            found = sorted((self.confdir / directory).glob(f"*{preset_files.SUFFIX}"))
        except OSError:
            return ()
        return tuple(path.stem for path in found if preset_files.is_name(path.stem))
