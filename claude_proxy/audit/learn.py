"""Learning: writes the hosts that a run used into a preset, which a policy can include.

Secrets stay outside: it records hosts only, no path or query. The file is a valid preset at every
moment: it is written under another name and then renamed, and its other content stays. No request
waits for it, and a failure to write is reported once.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_proxy.config import preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import AllowEntry, EditError, with_entries
from claude_proxy.config.file_states import PRESETS
from claude_proxy.config.settings import Learn
from claude_proxy.errors import ConfigError
from claude_proxy.events import (
    PASSTHROUGH_SCHEME,
    TCP_SCHEME,
    DecisionMade,
    Event,
    OutcomeSeen,
    Phase,
)
from claude_proxy.policy.patterns import HostPattern, PatternError
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.system import file_replacement
from claude_proxy.wire.authority import Authority

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 10.0
# A client whose requests for a million names are denied must not fill the disk.
MOST_HOSTS = 10_000
MAX_BYTES = 4 * 1024 * 1024
_OVERFLOWED = f"# There were more than {MOST_HOSTS}; the rest was not written down."
_PENDING = 16_384
_TRIES, _PAUSE_S = 20, 0.1
# Denials of a host as a whole. Other reasons concern invalid hosts, or single requests to an
# allowed host.
_OF_THE_HOST = frozenset(
    {
        Reason.NO_RULE.value,
        Reason.DENY_RULE.value,
        Reason.PORT_NOT_ALLOWED.value,
        Reason.SCHEME_NOT_ALLOWED.value,
    }
)

# An address that was denied is in the outcome, although it was not dialled.
_DENIED_ADDRESS = frozenset({Reason.ADDRESS_NOT_ALLOWED, Reason.PROXY_LOOP, Reason.DENY_RULE})

type Way = tuple[str, str, int]  # host, scheme, port


class Hosts:
    """The hosts that a run has used, collected from audit events."""

    def __init__(self, learn: Learn) -> None:
        self._denials = learn is Learn.DENIALS
        self._pending: OrderedDict[int, tuple[str, str]] = OrderedDict()
        self.ways: dict[Way, None] = {}
        self.overflowed = False

    def take(self, event: Event) -> bool:
        """Process an event; return whether something new was learned."""
        if isinstance(event, DecisionMade):
            if event.scheme == TCP_SCHEME:
                return False  # an owner names it, or nobody
            if self._denials and not event.allowed and event.reason in _OF_THE_HOST:
                return self._add(event.target, event.scheme)
            # An intercepted tunnel does not count yet; its requests do.
            seen = event.phase is Phase.REQUEST or event.scheme == PASSTHROUGH_SCHEME
            if not self._denials and event.allowed and seen:
                self._await(event)
        elif isinstance(event, OutcomeSeen) and not self._denials:
            target, scheme = self._pending.pop(event.decision, ("", ""))
            # Only if an address was dialled: unknown or unreachable hosts are not learned.
            if target and event.upstream is not None and event.error not in _DENIED_ADDRESS:
                return self._add(target, scheme)
        return False

    def _await(self, event: DecisionMade) -> None:
        self._pending[event.id] = (event.target, event.scheme)
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)

    def _add(self, target: str, scheme: str) -> bool:
        try:
            authority = Authority.parse(target)
            pattern = HostPattern.parse(authority.host)
        except (ValueError, PatternError):
            return False
        way = (str(pattern), "http" if scheme == "http" else "https", authority.port)
        if way in self.ways:
            return False
        if len(self.ways) >= MOST_HOSTS:
            self.overflowed = True
            return False
        self.ways[way] = None
        return True


def text_with(
    text: str, ways: Iterable[Way], when: str, *, name: str, overflowed: bool = False
) -> str:
    """Return the preset `text` with an entry for each of `ways`; ConfigError if it is invalid."""
    begun = text if text.strip() else f'description: "Learned from {when}"\n\nallow:\n'
    missing = sorted(set(ways) - _ways_in(begun, name))
    new = [AllowEntry(host, Scheme(scheme), port) for host, scheme, port in missing]
    try:
        after = with_entries(begun, new)
    except EditError as error:
        where = f"{name}:{error.line}"
        raise ConfigError(str(error), where=where, fix=error.fix) from error
    if overflowed and _OVERFLOWED not in after:
        after = f"{after.rstrip()}\n{_OVERFLOWED}\n"
    _ways_in(after, name)
    return after


def _ways_in(text: str, name: str) -> set[Way]:
    """Return what a preset allows; ConfigError if it is invalid."""
    if len(text) > MAX_BYTES:
        fix = "start another file, or delete old entries from it"
        raise ConfigError("the file to learn into is full", where=name, fix=fix)
    library = loader.Library(preset=lambda wanted: _text(wanted, name, text))
    policy = loader.preset_policy(name, library)
    return {
        (rule.name, str(rule.scheme), port)
        for rule in policy.allow
        if not rule.limited
        for port in rule.ports or ()
    }


def _text(wanted: str, name: str, text: str) -> str:
    return text if wanted == name else preset_files.text(wanted)


def usage_of(path: Path, confdir: Path) -> str:
    """Return the line of a policy file that uses the learned preset."""
    path = path.absolute()
    is_preset = path.parent == (confdir / PRESETS).absolute() and path.suffix == preset_files.SUFFIX
    if is_preset and preset_files.is_name(path.stem) and path.stem not in preset_files.names():
        return f"allow: [{{preset: {path.stem}}}]"
    return f"include: [{json.dumps(str(path), ensure_ascii=False)}]"


def usage_line(path: Path, confdir: Path) -> str:
    """Return the message at the end of learning."""
    if not os.path.lexists(path):
        return f"learning: nothing was met, and {path} was not written"
    return f"learning: {path} is written; to use it, write in a policy: {usage_of(path, confdir)}"


class Learner:
    """A sink that keeps the preset in a file up to date."""

    def __init__(
        self,
        learn: Learn,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        pause_s: float = WRITE_EVERY_S,
    ) -> None:
        self._path = path.absolute()
        self._hosts = Hosts(learn)
        self._when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(clock())))
        self._written: set[Way] = set()
        self._new = False
        self._works = True
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._check()
        self._thread = threading.Thread(target=self._run, name="learn", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Learn from an event."""
        with self._lock:
            if self._hosts.take(event):
                self._new = True

    def close(self) -> None:
        """Write new entries and end the thread."""
        self._stop.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Write new entries, if there are any; a failure is reported once."""
        with self._lock:
            if not self._new:
                return
            try:
                self._put()
            except (OSError, ConfigError) as error:
                self._fails(error)
            else:
                self._new, self._works = False, True

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            try:
                self.write()
            except Exception:  # the edge of a thread
                logger.exception("writing what was learned failed")

    def _fails(self, error: OSError | ConfigError) -> None:
        if self._works:
            self._works = False
            why = error.what if isinstance(error, ConfigError) else error.strerror
            logger.error("what was learned cannot be written to %s: %s", self._path, why)

    # The file.

    def _check(self) -> None:
        """Raise ConfigError unless the file can be added to."""
        directory = self._path.resolve().parent
        try:
            _ways_in(self._read(), str(self._path))
        except OSError as error:
            raise self._unwritable((error.strerror or type(error).__name__).lower()) from error
        if not directory.is_dir():
            raise self._unwritable("there is no such directory")
        if not os.access(directory, os.W_OK):
            raise self._unwritable("permission denied")

    def _unwritable(self, why: str) -> ConfigError:
        return ConfigError(
            f"the file to learn into cannot be written: {why}",
            where=str(self._path),
            fix="name a file in a directory that you may write in",
        )

    def _put(self) -> None:
        # Other workers, and other proxies, may add to the same file.
        with _locked(self._path.parent):
            file_replacement.remove_unfinished(self._path.resolve())
            now = self._read()
            ways = set(self._hosts.ways) - self._written  # what the owner deletes stays deleted
            after = text_with(
                now,
                ways,
                self._when,
                name=str(self._path),
                overflowed=self._hosts.overflowed,
            )
            if after != now:
                # If the path is a link, its target is replaced. Mode 0600, as it shows which hosts
                # a user reached.
                file_replacement.replace(self._path.resolve(), after.encode(), 0o600)
            self._written |= ways

    def _read(self) -> str:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return ""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError("the file is not UTF-8", where=str(self._path)) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    # Limited, because in a directory like /tmp any user can hold the lock.
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
