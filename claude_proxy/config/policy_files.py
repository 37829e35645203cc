"""Reads the policy from its files, now and whenever one of them changes.

Law 10: a file that others may write is refused, at the start and at every reload. A reload that
fails changes nothing: the last good policy stays. A file that may only narrow is another matter:
the agent can write it, so it can neither allow anything, nor take back while it runs what it has
denied, nor keep the owner's changes from applying.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from claude_proxy.config.allowlist import loader as allowlist
from claude_proxy.config.groups import loader as groups
from claude_proxy.config.groups import reader as groups_reader
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.config.strict_yaml import nodes
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Source
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule
from claude_proxy.system import file_permissions

USERS_GROUPS = "groups.toml"  # in the directory of the configuration

_NARROWING_BYTES = 256 * 1024
_NARROWING_RULES = 20_000

type Fingerprint = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy, and the state of the files that it was read from."""

    policy: Policy
    fingerprint: Fingerprint
    narrowing: tuple[Rule, ...] = ()
    # What is wrong with the file that narrows; then the rules that it held before are in force.
    complaint: ConfigError | None = None


def load(path: Path) -> Loaded:
    """Read the allowlist in `path`; ConfigError says what is wrong with it."""
    text, state = _read(path, "allowlist", "--allowlist", nodes.MAX_BYTES)
    return Loaded(allowlist.load(text, name=str(path)), state)


def load_for(settings: Settings, last: Loaded | None = None) -> Loaded:
    """Read all that the settings name; ConfigError says what is wrong with it.

    With a `last` one, a bad file that narrows is a complaint, and what it denied once stays.
    """
    loaded = load(settings.allowlist) if settings.policy is None else _of_groups(settings)
    policy = loaded.policy
    if settings.learn is not None and settings.learn[0] is Learn.EVERYTHING:
        policy = policy.allowing_by_default(Source("--learn", 1, 1), "learning lets it through")
    # Before it is read: a change in between is then seen as one.
    state = () if settings.narrowing is None else fingerprint(settings.narrowing)
    narrowing, complaint = _narrowing(settings.narrowing, last)
    return Loaded(
        policy.with_denials(narrowing) if narrowing else policy,
        loaded.fingerprint + state,
        narrowing,
        complaint,
    )


def fingerprint_for(settings: Settings) -> Fingerprint:
    """Return the state of all files that the settings name."""
    files = [settings.allowlist] if settings.policy is None else groups_files(settings)
    if settings.narrowing is not None:
        files.append(settings.narrowing)
    return tuple(number for file in files for number in fingerprint(file))


def groups_files(settings: Settings) -> list[Path]:
    """Return where groups are defined besides the built-in ones, the last word last."""
    files = [settings.confdir / USERS_GROUPS]
    if settings.groups is not None and settings.groups != files[0]:
        files.append(settings.groups)
    return files


def load_groups(settings: Settings) -> groups.Groups:
    """Read the groups files that there are; ConfigError says what is wrong with them."""
    return _groups(settings)[0]


def _of_groups(settings: Settings) -> Loaded:
    found, state = _groups(settings)
    return Loaded(groups.served(found, settings.policy or ""), state)


def _groups(settings: Settings) -> tuple[groups.Groups, Fingerprint]:
    texts: list[tuple[str, str]] = []
    states: list[int] = []
    for path in groups_files(settings):
        if path != settings.groups and _is_missing(path):
            states += fingerprint(path)
            continue
        text, state = _read(path, "groups file", "--groups", groups_reader.MAX_BYTES)
        texts.append((str(path), text))
        states += state
    return groups.load(texts), tuple(states)


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # what is wrong is said when it is read
    return False


def _narrowing(
    path: Path | None, last: Loaded | None
) -> tuple[tuple[Rule, ...], ConfigError | None]:
    if path is None:
        return (), None
    try:
        rules = allowlist.load_narrowing(_read_plain(path), name=str(path))
        return (rules if last is None else _added(last.narrowing, rules, path)), None
    except ConfigError as error:
        if last is None:
            raise
        return last.narrowing, error


def _added(before: tuple[Rule, ...], rules: tuple[Rule, ...], path: Path) -> tuple[Rule, ...]:
    """Return the rules of both; by what they say, as their lines may have moved."""
    found = {str(rule): rule for rule in (*before, *rules)}
    if len(found) > max(_NARROWING_RULES, len(before)):
        raise ConfigError(
            f"more than {_NARROWING_RULES} denials were added while it runs",
            where=str(path),
            fix="start anew",
        )
    return tuple(found.values())


def _read(path: Path, what: str, option: str, most: int) -> tuple[str, Fingerprint]:
    """Return the text of a file that nobody else may change, and its state."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            file_permissions.refuse_writable(path, found)
            raw = file.read(most + 1)
        file_permissions.refuse_replaceable(path)
    except OSError as error:
        raise ConfigError(
            f"the {what} cannot be read: {(error.strerror or type(error).__name__).lower()}",
            where=str(path),
            fix=f"name a readable {what.removesuffix(' file')} file with {option}",
        ) from error
    if len(raw) > most:
        raise _too_large(path, most)
    return nodes.decode(raw, str(path)), _fingerprint_of(found)


def _read_plain(path: Path) -> str:
    """Return the text of a file that an agent may have made: no link, no pipe, no device."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - of a descriptor
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            raw = file.read(_NARROWING_BYTES + 1) if plain else b""
    except OSError as error:
        raise _not_plain(path, (error.strerror or type(error).__name__).lower()) from error
    if not plain:
        raise _not_plain(path, "it is not a plain file")
    if len(raw) > _NARROWING_BYTES:
        raise _too_large(path, _NARROWING_BYTES)
    return nodes.decode(raw, str(path))


def _not_plain(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the file that narrows cannot be read: {why}",
        where=str(path),
        fix="put a plain file in its place, or take it away",
    )


def _too_large(path: Path, most: int) -> ConfigError:
    return ConfigError(
        f"the file is larger than {most // 1024} KiB",
        where=str(path),
        fix="is it the right file?",
    )


def fingerprint(path: Path) -> Fingerprint:
    """Return the state of the file; one that cannot be looked at has a state of its own."""
    try:
        return _fingerprint_of(path.stat())
    except OSError:
        return (0, 0, 0, 0)


def _fingerprint_of(found: os.stat_result) -> Fingerprint:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
