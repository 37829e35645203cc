"""Writes the hosts that were met into a group of a groups file, for a policy to be made of.

It knows hosts alone, never a path or a query. Its file is a sound groups file at every moment: it
is written whole beside its place and then put there; what else it holds stays as it is. Nothing
waits for it, and that it cannot be written is said once.
"""

import fcntl
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_proxy.config.groups.reader import MAX_BYTES, File, read
from claude_proxy.config.settings import Learn
from claude_proxy.config.strict_yaml.nodes import Problems
from claude_proxy.errors import ConfigError
from claude_proxy.events import PASSTHROUGH_SCHEME, DecisionMade, Event, OutcomeSeen, Phase
from claude_proxy.policy.patterns import HostPattern, PatternError
from claude_proxy.policy.reason import Reason
from claude_proxy.wire.authority import Authority

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 10.0
# Whoever denies himself a million names shall not fill the disk with them.
MOST_HOSTS = 10_000
_PENDING = 16_384
_TRIES, _PAUSE_S = 20, 0.1
_USUAL = ("https", 443)
# Denials of the host as such. Of the rest, some are no host at all, and some are about a single
# request to a host that is allowed.
_OF_THE_HOST = frozenset(
    {
        Reason.NO_RULE.value,
        Reason.DENY_RULE.value,
        Reason.PORT_NOT_ALLOWED.value,
        Reason.SCHEME_NOT_ALLOWED.value,
    }
)

type Way = tuple[str, str, int]  # host, scheme, port


class Hosts:
    """The hosts that a run has met and shall remember; what it is given are audit events."""

    def __init__(self, learn: Learn) -> None:
        self._denials = learn is Learn.DENIALS
        self._pending: OrderedDict[int, tuple[str, str]] = OrderedDict()
        self.ways: dict[Way, None] = {}
        self.overflowed = False

    def take(self, event: Event) -> bool:
        """Take an event into account; tell whether something new was learned."""
        if isinstance(event, DecisionMade):
            if self._denials and not event.allowed and event.reason in _OF_THE_HOST:
                return self._add(event.target, event.scheme)
            # A tunnel that is looked into is no visit yet; its requests are.
            seen = event.phase is Phase.REQUEST or event.scheme == PASSTHROUGH_SCHEME
            if not self._denials and event.allowed and seen:
                self._await(event)
        elif isinstance(event, OutcomeSeen) and not self._denials:
            target, scheme = self._pending.pop(event.decision, ("", ""))
            # An address that was connected to: what is not there, or not found, is not learned.
            if target and event.upstream is not None:
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


def text_of(name: str, hosts: Hosts, when: str) -> str:
    """Return the group as TOML. What a group cannot say, other ports and plain HTTP, is told."""
    usual = sorted({host for host, *way in hosts.ways if tuple(way) == _USUAL})
    others = sorted(way for way in hosts.ways if way[1:] != _USUAL)
    lines = [f"[network.groups.{name}]", f'description = "Learned from {when}"', "hosts = ["]
    lines += [f'  "{host}",' for host in usual]
    lines += ["]"]
    if others:
        lines.append("# Met as well, which a group does not allow (an allowlist can):")
        lines += [f"# {scheme}://{_spelled(host)}:{port}" for host, scheme, port in others]
    if hosts.overflowed:
        lines.append(f"# There were more than {MOST_HOSTS}; the rest was not written down.")
    return "\n".join((*lines, ""))


def _spelled(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Learner:
    """A sink that keeps one group of a file up to date."""

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
        self._suffix = "_denied" if learn is Learn.DENIALS else ""
        self._began = int(clock())
        self._when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._began))
        self._written = ""  # the group as it stands in the file
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
        """Write what is new and end."""
        self._stop.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Write the group if there is something new in it; a failure is said once."""
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
            _parsed(self._read(), self._path)
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
            now = self._read()
            kept = now.replace(self._written, "", 1) if self._written else now
            kept = kept.rstrip("\n") + "\n\n" if kept.strip() else ""
            group = text_of(self._free_name(kept), self._hosts, self._when)
            _parsed(kept + group, self._path)
            _replace(self._path, kept + group)
            self._written = group

    def _free_name(self, text: str) -> str:
        taken = _parsed(text, self._path).groups
        number = self._began
        while f"learned_session_{number}{self._suffix}" in taken:
            number += 1
        return f"learned_session_{number}{self._suffix}"

    def _read(self) -> str:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return ""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError("the file is not UTF-8", where=str(self._path)) from error


def _parsed(text: str, path: Path) -> File:
    """Return the groups in a text; raise ConfigError if it is no sound groups file."""
    if len(text) > MAX_BYTES:
        fix = "begin another file, or delete old groups from it"
        raise ConfigError("the file to learn into is full", where=str(path), fix=fix)
    problems = Problems(str(path))
    file = read(text, problems)
    problems.raise_if_any()
    return file


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    # Not for ever: in a directory like /tmp anybody may hold it.
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _replace(path: Path, text: str) -> None:
    """Put a whole file in the place of the old one; 0600, as it tells where somebody went."""
    # A link is the owner's way to keep the file elsewhere: what it leads to is replaced.
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        partial.unlink()  # of an earlier process of our number
    try:
        with open(os.open(partial, flags, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
