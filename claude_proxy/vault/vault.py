"""Holds what the credentials' sources give, and keeps it as new as they do.

Laws kept: secrets stay outside (9), no quiet downgrade (11). A source that gives nothing at the
start is an error; one that fails later gives nothing until it works again, and then nothing passes.
To ask for what is held never waits for a command or a keyring.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

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
from claude_proxy.vault.pins import FileStamp, Pins, PinStore

logger = logging.getLogger(__name__)

_LOOK_S = 1.0  # between two looks at files
_KEYRING_S = 300.0
_RETRY_S = 30.0  # after a failure
_AFTER_REFUSAL_S = 10.0  # an upstream's 401 has a command asked again, but not one for each
_CLOSE_S = 2.0  # for the refreshing to end; a keyring that answers nothing is left behind
_SALT_BYTES = 16


@dataclass(slots=True)
class _CachedSource:
    """One source, and what it gave last."""

    source: SecretSource
    value: Secret | None = None
    stamp: FileStamp | None = None  # of the file that it reads
    asked: float = 0.0
    due: float | None = None  # when it is asked again; None: by the stamp, or never

    @property
    def is_file(self) -> bool:
        """Whether a look can tell that there is something new."""
        return not isinstance(self.source, CommandSource | KeyringSource | EnvironmentSource)


@dataclass(slots=True)
class PreparedSecrets:
    """All that belongs to one set of bindings."""

    bindings: tuple[Binding, ...] = ()
    held: dict[SecretSource, _CachedSource] = field(default_factory=dict)
    pins: Pins | None = field(default_factory=Pins)  # None: the file is not sound
    pins_stamp: FileStamp | None = None

    @property
    def learns(self) -> bool:
        """Whether there is a login to be learned, or that was."""
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
        """Read every source; ConfigErrors names those that give nothing.

        The variables that they name, and those in `withheld`, are gone from this process's
        environment then. It may be made before a fork: the refreshing begins with the first use.
        """
        self._environ = os.environ if environ is None else environ
        self._store = PinStore(statedir)
        self._withheld = frozenset(withheld)
        self._salt = secrets.token_bytes(_SALT_BYTES)  # for pins that are given by their value
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._state = PreparedSecrets()
        self._secrets: AvailableSecrets = MappingProxyType({})
        self._looked = 0.0
        # Variables are read once: afterwards they are gone.
        self._of_environment: dict[SecretSource, _CachedSource] = {}
        # First uses that no answer has confirmed yet.
        self._unconfirmed: dict[str, tuple[bytes, bytes]] = {}
        self.replace(bindings)

    def __repr__(self) -> str:
        return f"Vault({len(self._state.bindings)} credentials)"

    @property
    def secrets(self) -> AvailableSecrets:
        """What is known now of each binding; files are looked at once a second at most."""
        if self._state.bindings:
            now = time.monotonic()
            if now - self._looked >= _LOOK_S:
                self._looked = now
                self._look()
                if self._thread is None:
                    self._start()
        return self._secrets

    def replace(self, bindings: Sequence[Binding]) -> None:
        """Take other bindings into use; ConfigErrors, and nothing is changed, if one cannot be.

        It may take as long as the commands do.
        """
        self.take(self.prepare(bindings))

    def prepare(self, bindings: Sequence[Binding]) -> PreparedSecrets:
        """Read what other bindings need, for `take`; ConfigErrors if one of them cannot be had.

        Apart from it, as whoever judges by the old bindings must not be given a new one's value.
        """
        state = PreparedSecrets(tuple(bindings))
        problems: list[ConfigError] = []
        names = self._withheld | _variables_of(state.bindings)
        for binding in state.bindings:
            try:
                self._take(state, binding.use.source, names)
            except ConfigError as error:
                problems.append(_of_binding(error, binding))
        try:
            self._read_pins(state)
        except ConfigError as error:
            problems.append(error)
        if problems:
            raise ConfigErrors(problems)
        if seen := process_memory.scrub_environment(names):
            logger.warning("still to be seen in the environment: %s", ", ".join(seen))
        with self._wake:
            self._withheld = names
        return state

    def take(self, state: PreparedSecrets) -> None:
        """Hold what was prepared, and nothing else."""
        with self._wake:
            self._state = state
            self._publish()
            self._wake.notify_all()

    def learn(self, name: str, login: tuple[bytes, bytes]) -> None:
        """Pin a first login on the disk; raises if it cannot be kept, or another was first."""
        found = self._store.learn(name, login)
        with self._wake:
            self._unconfirmed[name] = login
            self._state.pins = found
            self._state.pins_stamp = None  # to be looked at again, as others may write it now
            self._publish()

    def answered(self, name: str, status: int) -> None:
        """Take note of an answer: a 401 says that a value is old, or that a pin was none."""
        if status != HTTPStatus.UNAUTHORIZED:
            # A server that is busy or broken has not looked, and an interim answer says nothing.
            if 200 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:  # noqa: PLR2004
                self._unconfirmed.pop(name, None)
            return
        login = self._unconfirmed.pop(name, None)
        if login is not None:
            self._unlearn(name, login)
        self._ask_soon(name)

    def close(self) -> None:
        """End the refreshing, and what it is waiting for: no command outlives the proxy."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        sources.end_commands()
        thread, give_up = self._thread, time.monotonic() + _CLOSE_S
        # More than once, as one may just have been started.
        while thread is not None and thread.is_alive() and time.monotonic() < give_up:
            thread.join(0.05)
            sources.end_commands()

    # --- sources

    def _take(
        self, state: PreparedSecrets, source: SecretSource | None, names: frozenset[str]
    ) -> None:
        """Have a source's value among those of `state`; ConfigError if it gives none."""
        if source is None or source in state.held:
            return
        # What is held is not asked for again: a reload must not run commands that are good still.
        known = self._state.held.get(source) or self._of_environment.get(source)
        if known is None or known.value is None:
            known = _CachedSource(source)
            self._ask(known, names)
        state.held[source] = known
        if isinstance(source, EnvironmentSource):
            self._of_environment[source] = known

    def _ask(self, held: _CachedSource, names: frozenset[str]) -> None:
        """Read a source; ConfigError if it gives nothing, and then nothing is held of it."""
        if self._closed:
            raise ConfigError("the proxy is stopping", where=source_name(held.source))
        # Before it is read: a change in between is then seen as one.
        held.stamp = sources.stamp_of(held.source, self._environ)
        try:
            # What was held stays meanwhile: a command may take its time.
            held.value = sources.read(held.source, self._environ, names)
        except BaseException:
            held.value = None
            raise
        finally:
            held.asked = time.monotonic()
            held.due = _due(held)

    def _refresh(self, held: _CachedSource) -> None:
        """Read a source once more; of what goes wrong, the first time is told."""
        failed = held.value is None
        source = source_name(held.source)
        try:
            self._ask(held, self._withheld)
        except ConfigError as error:
            if not failed and not self._closed:
                logger.warning(
                    "a credential's source gives nothing now (%s: %s); what needs it is denied",
                    source,
                    error.what,
                )
        except Exception as fault:  # noqa: BLE001 - whatever it is, nothing is held then
            if not failed:
                logger.error("reading %s failed (%s)", source, type(fault).__name__)  # noqa: TRY400
        else:
            if failed:
                logger.warning("a credential's source works again (%s)", source)

    def _ask_soon(self, name: str) -> None:
        """Have the source of a refused value asked again, if it was not just now."""
        self._looked = 0.0
        with self._wake:
            sources = [each.use.source for each in self._state.bindings if each.name == name]
            for held in (self._state.held[each] for each in sources if each is not None):
                now = time.monotonic()
                if held.due is not None and now - held.asked >= _AFTER_REFUSAL_S:
                    held.due = now
            self._wake.notify_all()

    # --- files, looked at by whoever asks for the secrets

    def _look(self) -> None:
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
                logger.warning("%s; until this is fixed no such login passes", error.what)
        else:
            if not sound:
                logger.warning("the pinned logins can be used again")

    def _read_pins(self, state: PreparedSecrets) -> None:
        if not state.learns:
            return
        stamp = self._store.stamp()
        try:
            state.pins = self._store.prepare()
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            raise ConfigError(
                f"the pinned logins cannot be kept: {why}",
                where=str(self._store.path),
                fix="make the state directory writable, or name another with --statedir",
            ) from None
        state.pins_stamp = stamp

    def _unlearn(self, name: str, login: tuple[bytes, bytes]) -> None:
        try:
            self._store.forget(name, login)
        except (OSError, ConfigError):
            logger.warning(
                "the login that was pinned for %s was refused, and could not be unlearned; "
                "fix: claude-proxy credentials forget %s",
                name,
                name,
            )
        self._state.pins_stamp = None

    # --- commands and keyrings, on a thread

    def _start(self) -> None:
        if any(held.due is not None for held in self._state.held.values()):
            self._thread = threading.Thread(target=self._keep_new, name="vault", daemon=True)
            self._thread.start()

    def _keep_new(self) -> None:
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

    # --- what is handed out

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
    return held.asked + (every if held.value is not None else min(every, _RETRY_S))


def _variables_of(bindings: Iterable[Binding]) -> frozenset[str]:
    """Return the variables of the environment that hold a value."""
    sources = (binding.use.source for binding in bindings)
    return frozenset(each.name for each in sources if isinstance(each, EnvironmentSource))


def _of_binding(error: ConfigError, binding: Binding) -> ConfigError:
    where = f"{binding.source}, {error.where}" if error.where else str(binding.source)
    what = f'the credential "{binding.name}" has no value: {error.what}'
    return ConfigError(what, where=where, fix=error.fix)
