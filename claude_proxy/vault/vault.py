"""The vault: the current values of all credentials, read from their sources and kept fresh.

Laws: secrets stay outside, no quiet downgrade. A source without a value at the start is an error; a
source that fails later has no value until it works again, and requests that need it are denied.
Reading a held value never waits for a command or a keyring.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Binding, Injection, LoginPin
from claude_proxy.policy.credentials.decision import AvailableSecrets, PinnedLogins
from claude_proxy.policy.credentials.login_hash import digest_of, read_hash
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    KeyringSource,
    SecretSource,
    source_name,
)
from claude_proxy.system import process_memory
from claude_proxy.vault import sources
from claude_proxy.vault.file_stamp import FileStamp
from claude_proxy.vault.pins import Pins, PinStore

logger = logging.getLogger(__name__)

_LOOK_S = 1.0  # between two checks of files
_KEYRING_S = 300.0
_RETRY_S = 30.0  # after a failure
_AFTER_REFUSAL_S = 10.0  # an upstream's 401 runs a command again, at most this often
_CLOSE_S = 2.0  # for the refresh thread to end; a keyring that does not respond is abandoned
_SALT_BYTES = 16


@dataclass(slots=True)
class _CachedSource:
    """One source, and the value last read from it."""

    source: SecretSource
    value: Secret | None = None
    stamp: FileStamp | None = None  # of the file that it reads
    read_at: float = 0.0
    due: float | None = None  # when to read it again; None: by the stamp, or never

    @property
    def is_file(self) -> bool:
        """Whether a change shows in the stamp of a file."""
        return not isinstance(self.source, CommandSource | KeyringSource | EnvironmentSource)


@dataclass(slots=True)
class PreparedSecrets:
    """The values that belong to one set of bindings."""

    bindings: tuple[Binding, ...] = ()
    held: dict[SecretSource, _CachedSource] = field(default_factory=dict)
    pins: Pins | None = field(default_factory=Pins)  # None: the file cannot be used
    pins_stamp: FileStamp | None = None

    @property
    def learns(self) -> bool:
        """Whether a login is learned at its first use."""
        return any(isinstance(each.use, LoginPin) and each.use.learn for each in self.bindings)


class Vault:
    """The values of the credentials of one process."""

    def __init__(
        self,
        bindings: Sequence[Binding],
        statedir: Path,
        environ: Mapping[str, str] | None = None,
        *,
        withheld: Iterable[str] = (),
    ) -> None:
        """Read every source; ConfigErrors names those without a value.

        The variables that they name, and those in `withheld`, are then removed from this process's
        environment. It may be made before a fork: refreshing begins with the first use.
        """
        self._environ = os.environ if environ is None else environ
        self._store = PinStore(statedir)
        self._withheld = frozenset(withheld)
        self._salt = secrets.token_bytes(_SALT_BYTES)  # for logins that are pinned by their value
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._state = PreparedSecrets()
        self._secrets: AvailableSecrets = MappingProxyType({})
        self._checked_at = 0.0
        # Variables are read once: afterwards they are removed.
        self._of_environment: dict[SecretSource, _CachedSource] = {}
        # Learned logins that no response has confirmed yet.
        self._unconfirmed: dict[str, tuple[bytes, bytes]] = {}
        self.replace(bindings)

    def __repr__(self) -> str:
        return f"Vault({len(self._state.bindings)} credentials)"

    @property
    def secrets(self) -> AvailableSecrets:
        """The current value of each binding; files are checked once a second at most."""
        if self._state.bindings:
            now = time.monotonic()
            if now - self._checked_at >= _LOOK_S:
                self._checked_at = now
                self._check_files()
                if self._thread is None:
                    self._start()
        return self._secrets

    def replace(self, bindings: Sequence[Binding]) -> None:
        """Replace the bindings; ConfigErrors, and nothing changes, if one has no value.

        This takes as long as the commands do.
        """
        self.take(self.prepare(bindings))

    def prepare(self, bindings: Sequence[Binding]) -> PreparedSecrets:
        """Read what new bindings need, for `take`; ConfigErrors if one of them has no value.

        Separate from `take`: while the old bindings decide, no value of a new one may be used.
        """
        state = PreparedSecrets(tuple(bindings))
        problems: list[ConfigError] = []
        names = self._withheld | _variables_of(state.bindings)
        for binding in state.bindings:
            try:
                self._add(state, binding.use.source, names)
            except ConfigError as error:
                problems.append(_of_binding(error, binding))
        try:
            self._read_pins(state)
        except ConfigError as error:
            problems.append(error)
        if problems:
            raise ConfigErrors(problems)
        if seen := process_memory.scrub_environment(names):
            logger.warning(
                "these variables could not be removed from the process's memory: %s",
                ", ".join(seen),
            )
        with self._wake:
            self._withheld = names
        return state

    def take(self, state: PreparedSecrets) -> None:
        """Use what was prepared, and nothing else."""
        with self._wake:
            self._state = state
            self._publish()
            self._wake.notify_all()

    def learn(self, name: str, login: tuple[bytes, bytes]) -> None:
        """Pin a first login on the disk; raises if that fails, or another was first."""
        found = self._store.learn(name, login)
        with self._wake:
            self._unconfirmed[name] = login
            self._state.pins = found
            self._state.pins_stamp = None  # to be read again, as another process may write it now
            self._publish()

    def answered(self, name: str, status: int) -> None:
        """Take note of a response: a 401 means that a value is old, or that a pin was wrong."""
        if status != HTTPStatus.UNAUTHORIZED:
            # A busy or broken server has not checked the login; an interim response says nothing.
            if 200 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:  # noqa: PLR2004
                self._unconfirmed.pop(name, None)
            return
        login = self._unconfirmed.pop(name, None)
        if login is not None:
            self._forget(name, login)
        self._refresh_soon(name)

    def close(self) -> None:
        """Stop refreshing, and the commands it waits for: no command outlives the proxy."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        sources.end_commands()
        thread, give_up = self._thread, time.monotonic() + _CLOSE_S
        # Repeatedly, as a command may just have been started.
        while thread is not None and thread.is_alive() and time.monotonic() < give_up:
            thread.join(0.05)
            sources.end_commands()

    # --- sources

    def _add(
        self, state: PreparedSecrets, source: SecretSource | None, names: frozenset[str]
    ) -> None:
        """Add a source's value to those of `state`; ConfigError if there is none."""
        if source is None or source in state.held:
            return
        # A held value is not read again: a reload must not run commands that need not run.
        known = self._state.held.get(source) or self._of_environment.get(source)
        if known is None or known.value is None:
            known = _CachedSource(source)
            self._read(known, names)
        state.held[source] = known
        if isinstance(source, EnvironmentSource):
            self._of_environment[source] = known

    def _read(self, held: _CachedSource, names: frozenset[str]) -> None:
        """Read a source; ConfigError if it has no value, and then `held.value` is None."""
        if self._closed:
            raise ConfigError("the proxy is stopping", where=source_name(held.source))
        # Before reading, so that a change in between is noticed.
        held.stamp = sources.stamp_of(held.source, self._environ)
        try:
            # The old value is used meanwhile: a command may take long.
            held.value = sources.read(held.source, self._environ, names)
        except BaseException:
            held.value = None
            raise
        finally:
            held.read_at = time.monotonic()
            held.due = _due(held)

    def _refresh(self, held: _CachedSource) -> None:
        """Read a source again; of a series of failures only the first is logged."""
        failed = held.value is None
        source = source_name(held.source)
        try:
            self._read(held, self._withheld)
        except ConfigError as error:
            if not failed and not self._closed:
                logger.warning(
                    "credential source unavailable (%s: %s); requests that need it are blocked",
                    source,
                    error.what,
                )
        except Exception as fault:  # noqa: BLE001 - fail closed: no value is held then
            if not failed:
                logger.error("reading %s failed (%s)", source, type(fault).__name__)  # noqa: TRY400
        else:
            if failed:
                logger.warning("credential source available again (%s)", source)

    def _refresh_soon(self, name: str) -> None:
        """Have the source of a refused value read again, unless it was read just now."""
        self._checked_at = 0.0
        with self._wake:
            sources = [each.use.source for each in self._state.bindings if each.name == name]
            for held in (self._state.held[each] for each in sources if each is not None):
                now = time.monotonic()
                if held.due is not None and now - held.read_at >= _AFTER_REFUSAL_S:
                    held.due = now
            self._wake.notify_all()

    # --- files, checked when the values are asked for

    def _check_files(self) -> None:
        state, changed = self._state, False
        for held in state.held.values():
            if held.is_file and (
                held.value is None or sources.stamp_of(held.source, self._environ) != held.stamp
            ):
                self._refresh(held)
                changed = True
        if state.learns and (state.pins is None or self._store.stamp() != state.pins_stamp):
            self._refresh_pins(state)
            changed = True
        if changed:
            with self._wake:
                self._publish()

    def _refresh_pins(self, state: PreparedSecrets) -> None:
        sound = state.pins is not None
        try:
            self._read_pins(state)
        except ConfigError as error:
            state.pins = None
            if sound:
                logger.warning(
                    "%s; until this is fixed, requests with such a login are blocked", error.what
                )
        else:
            if not sound:
                logger.warning("the pinned logins are available again")

    def _read_pins(self, state: PreparedSecrets) -> None:
        if not state.learns:
            return
        stamp = self._store.stamp()
        try:
            state.pins = self._store.prepare()
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            raise ConfigError(
                f"the pinned logins cannot be stored: {why}",
                where=str(self._store.path),
                fix="make the state directory writable, or name another with --statedir",
            ) from None
        state.pins_stamp = stamp

    def _forget(self, name: str, login: tuple[bytes, bytes]) -> None:
        try:
            self._store.forget(name, login)
        except (OSError, ConfigError):
            logger.warning(
                "the login that was pinned for %s was refused, and its pin could not be removed; "
                "fix: claude-proxy credentials forget %s",
                name,
                name,
            )
        self._state.pins_stamp = None

    # --- commands and keyrings, on a thread

    def _start(self) -> None:
        if any(held.due is not None for held in self._state.held.values()):
            self._thread = threading.Thread(target=self._refresh_loop, name="vault", daemon=True)
            self._thread.start()

    def _refresh_loop(self) -> None:
        while True:
            with self._wake:
                if self._closed:
                    return
                now = time.monotonic()
                timed = [each for each in self._state.held.values() if each.due is not None]
                due = [each for each in timed if each.due is not None and each.due <= now]
                if not due:
                    next_one = min((each.due or now for each in timed), default=None)
                    self._wake.wait(None if next_one is None else next_one - now)
                    continue
            for held in due:
                self._refresh(held)
                with self._wake:
                    self._publish()

    # --- the published values

    def _publish(self) -> None:
        state = self._state
        self._secrets = MappingProxyType(
            {binding.name: self._holding(state, binding) for binding in state.bindings}
        )

    def _holding(self, state: PreparedSecrets, binding: Binding) -> Secret | PinnedLogins | None:
        use = binding.use
        value = None if use.source is None else state.held[use.source].value
        if isinstance(use, Injection):
            return value
        logins = {read_hash(text) for text in use.digests}
        if use.source is not None:
            if value is None:
                return None
            logins.add((self._salt, digest_of(self._salt, value.reveal())))
        if not use.learn:
            return PinnedLogins(frozenset(logins))
        if state.pins is None:
            return None
        pin = state.pins.by_name.get(binding.name)
        if pin is None:
            return PinnedLogins(frozenset(logins), learning=True, salt=state.pins.salt)
        return PinnedLogins(frozenset({*logins, pin.login}))


def _due(held: _CachedSource) -> float | None:
    match held.source:
        case CommandSource(_, refresh_s):
            every = refresh_s
        case KeyringSource():
            every = _KEYRING_S
        case _:
            return None
    return held.read_at + (every if held.value is not None else min(every, _RETRY_S))


def _variables_of(bindings: Iterable[Binding]) -> frozenset[str]:
    """Return the environment variables that hold a value."""
    sources = (binding.use.source for binding in bindings)
    return frozenset(each.name for each in sources if isinstance(each, EnvironmentSource))


def _of_binding(error: ConfigError, binding: Binding) -> ConfigError:
    where = f"{binding.source}, {error.where}" if error.where else str(binding.source)
    what = f'the credential "{binding.name}" has no value: {error.what}'
    return ConfigError(what, where=where, fix=error.fix)
