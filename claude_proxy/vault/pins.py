"""Pinned logins: credentials learned at their first use, as salted hashes in one file.

Laws: no quiet downgrade, the sandbox cannot move its own wall. A pin is on the disk before the
request that made it is sent; several processes agree on it; and a file that others could write, or
that cannot be read, is an error and never a reason to learn again.
"""

import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.system import file_permissions, file_replacement
from claude_proxy.vault.file_stamp import FileStamp, stamp_of_file

FILE_NAME: Final = "pins.json"
_LOCK_NAME: Final = "pins.lock"
_VERSION: Final = 1
_SALT_BYTES: Final = 16
_MOST_BYTES: Final = 1024 * 1024
_LOCK_S: Final = 5.0  # another process holds it for one small fsync
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_is_hex = lazy_pattern(r"(?:[0-9a-f]{2}){8,64}").fullmatch
_is_digest = lazy_pattern(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class StoredPin:
    """A login that was learned."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    since: str  # "2026-01-31T12:00:00Z"

    @property
    def login(self) -> tuple[bytes, bytes]:
        """Salt and digest, which a login is compared with."""
        return self.salt, self.digest


@dataclass(frozen=True, slots=True)
class Pins:
    """The content of the file; `salt` is for logins that are still to be learned."""

    salt: bytes = field(default=b"", repr=False)
    by_name: Mapping[str, StoredPin] = field(default_factory=dict)


class PinStore:
    """The file in one state directory."""

    def __init__(self, statedir: Path) -> None:
        self.path = statedir / FILE_NAME
        self._lock = statedir / _LOCK_NAME

    def stamp(self) -> FileStamp | None:
        """Return the state of the file, None if there is none."""
        return stamp_of_file(self.path)

    def read(self) -> Pins:
        """Return the pins, none if there is no file; ConfigError if it is damaged or unsafe."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            return Pins()
        except OSError as error:
            raise self._unusable((error.strerror or "").lower()) from None
        try:
            self._refuse_others(os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(_MOST_BYTES + 1)
        finally:
            os.close(descriptor)
        file_permissions.refuse_replaceable(self.path, "the pinned logins")
        if len(raw) > _MOST_BYTES:
            raise self._unusable("it is too large")
        try:
            return _read(raw)
        except (ValueError, RecursionError) as error:
            # The errors of `_read` quote nothing; those of `json` would quote the file.
            why = "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise self._unusable(why) from None

    def prepare(self) -> Pins:
        """Return the pins, with a salt for new ones; ConfigError, OSError."""
        pins = self.read()
        if pins.salt:
            return pins
        _make_directories(self.path.parent)
        return self._change(_with_salt)

    def learn(self, name: str, login: tuple[bytes, bytes]) -> Pins:
        """Write a pin to the disk; OSError or ConfigError if that fails or another is pinned."""

        def add(pins: Pins) -> Pins:
            known = pins.by_name.get(name)
            if known is None:
                since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                pin = StoredPin(*login, since)
                return replace(pins, by_name={**pins.by_name, name: pin})
            if known.salt != login[0] or not compare_digest(known.digest, login[1]):
                raise PermissionError("another login was pinned in the meantime")
            return pins

        return self._change(add)

    def forget(self, name: str, login: tuple[bytes, bytes] | None = None) -> bool:
        """Remove a pin (only that login, if one is given); tell whether there was one."""
        gone = False

        def remove(pins: Pins) -> Pins:
            nonlocal gone
            known = pins.by_name.get(name)
            gone = known is not None and login in {None, known.login}
            if not gone:
                return pins
            kept = {each: pin for each, pin in pins.by_name.items() if each != name}
            return replace(pins, by_name=kept)

        self._change(remove)
        return gone

    def _change(self, change: Callable[[Pins], Pins]) -> Pins:
        with self._locked():
            file_replacement.remove_unfinished(self.path)
            before = self.read()
            after = change(_with_salt(before))
            if after != before:
                self._write(after)
            return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A separate file, as the file of pins is replaced at each change.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._lock, flags, 0o600)
        try:
            give_up = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)

    def _write(self, pins: Pins) -> None:
        file_replacement.replace(self.path, _written(pins), 0o600)

    def _refuse_others(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._unusable("it is not a regular file")
        if found.st_uid not in {0, os.geteuid()}:
            raise self._unusable("it belongs to another user")
        if found.st_mode & _OTHERS_WRITE:
            raise self._unusable(f"others can write it (mode {stat.S_IMODE(found.st_mode):04o})")

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            f"the pinned logins cannot be used: {why}",
            where=str(self.path),
            fix="find out who changed the file; if you delete it, the next login of each is pinned",
        )


def _make_directories(directory: Path) -> None:
    # Not `parents=True`, which would give the parents the mode that the umask leaves.
    if not directory.exists():
        _make_directories(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _with_salt(pins: Pins) -> Pins:
    # One salt for all new pins, so that two processes that learn the same login agree.
    return pins if pins.salt else replace(pins, salt=secrets.token_bytes(_SALT_BYTES))


def _read(raw: bytes) -> Pins:
    found: Any = json.loads(raw)
    if not isinstance(found, dict) or found.keys() != {"version", "salt", "pins"}:
        raise ValueError("it is not a file of pinned logins")
    if found["version"] != _VERSION:
        raise ValueError("it was written by another version of claude-proxy")
    entries = found["pins"]
    if not _is_text(found["salt"], _is_hex) or not isinstance(entries, dict):
        raise ValueError("it is not a file of pinned logins")
    return Pins(
        bytes.fromhex(found["salt"]), {name: _pin_of(entry) for name, entry in entries.items()}
    )


def _pin_of(entry: Any) -> StoredPin:
    if not isinstance(entry, dict) or entry.keys() != {"salt", "digest", "since"}:
        raise ValueError("it contains a damaged pin")
    salt, digest, since = entry["salt"], entry["digest"], entry["since"]
    if not (_is_text(salt, _is_hex) and _is_text(digest, _is_digest) and isinstance(since, str)):
        raise ValueError("it contains a damaged pin")
    return StoredPin(bytes.fromhex(salt), bytes.fromhex(digest), since)


def _is_text(value: Any, of_kind: Callable[[str], object]) -> bool:
    return isinstance(value, str) and of_kind(value) is not None


def _written(pins: Pins) -> bytes:
    found = {
        "version": _VERSION,
        "salt": pins.salt.hex(),
        "pins": {
            name: {"salt": pin.salt.hex(), "digest": pin.digest.hex(), "since": pin.since}
            for name, pin in sorted(pins.by_name.items())
        },
    }
    return (json.dumps(found, indent=2) + "\n").encode()
