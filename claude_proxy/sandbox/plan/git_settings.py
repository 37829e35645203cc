"""Git settings that name something in a project, by Git's own rules; pure.

Git reads its settings from many files, and its settings name more: files to include, directories
of hooks, programs and their scripts. What is in the project of these is read-only inside. A setting
that is not known to be harmless counts, so that those of a later Git do as well.
Source: git-config(1), githooks(5).
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

# Their values are no programs, or data that nothing is run from.
_HARMLESS = lazy_pattern(
    r"(?:branch|color|column|advice|user|author|committer|url|safe|gui|i18n|format|push|pull|log)\..*"
    r"|remote\..*\.(?:url|pushurl|fetch|push|tagopt|prune|mirror|promisor|partialclonefilter)"
    r"|submodule\..*\.(?:url|active|branch|path|ignore)"
    r"|core\.(?:excludesfile|bare|worktree|repositoryformatversion|filemode|logallrefupdates)"
    r"|(?:commit\.template|blame\.ignorerevsfile|mailmap\.(?:file|blob)|init\.defaultbranch)",
    re.DOTALL,
)
_INCLUDE = lazy_pattern(r"include\.path|includeif\..*\.path", re.DOTALL)
# A path as a whole, whether it exists or not: what Git would obey once it does.
_PATHS = frozenset({"core.hookspath", "core.attributesfile", "init.templatedir"})
_BETWEEN_WORDS = lazy_pattern(r"[\s;&|()<>\"'`=,]+")
_MOST_WORDS = 2000

HOOKS = (
    *("applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit"),
    *("prepare-commit-msg", "commit-msg", "post-commit", "pre-rebase", "post-checkout"),
    *("post-merge", "pre-push", "pre-receive", "update", "proc-receive", "post-receive"),
    *("post-update", "reference-transaction", "push-to-checkout", "pre-auto-gc", "post-rewrite"),
    *("sendemail-validate", "fsmonitor-watchman", "post-index-change"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, and the file that it is in; None if it is in no file."""

    key: str  # the section and the name in lower case, as Git prints them
    value: str
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where relative paths in settings begin."""

    project: Path
    top: Path  # of the work tree that the project is in
    home: Path


def settings_in(listing: bytes, directory: Path) -> Iterator[Setting]:
    """Yield the settings of `git config --list --show-origin -z`, as run in a directory."""
    parts = listing.decode("utf-8", "surrogateescape").split("\0")
    for origin, setting in zip(parts[::2], parts[1::2], strict=False):
        kind, _, name = origin.partition(":")
        key, _, value = setting.partition("\n")
        file = _without_dots(directory / name) if kind == "file" else None
        yield Setting(key, value, file)


def work_tree_of(settings: list[Setting], git: Path) -> Path:
    """Return where the files of a Git directory are checked out."""
    given = [setting.value for setting in settings if setting.key == "core.worktree"]
    return _without_dots(git / (given[-1] if given else ".."))


def named_paths(settings: list[Setting], places: Places) -> Iterator[Path]:
    """Yield the paths, in the project or not, that count whether they exist or not."""
    files = {setting.file for setting in settings if setting.file is not None}
    for path in (*sorted(files), *_values(settings, places)):
        if path == places.project:
            # Not the whole project: only what Git would run in it.
            yield from (path / hook for hook in HOOKS)
        else:
            yield path


def _values(settings: list[Setting], places: Places) -> Iterator[Path]:
    for setting in settings:
        if _INCLUDE.fullmatch(setting.key):
            base = setting.file.parent if setting.file is not None else places.top
            yield _path_of(setting.value, base, places)
        elif setting.key in _PATHS and setting.value:
            yield _path_of(setting.value, places.top, places)


def named_files(settings: list[Setting], places: Places) -> Iterator[Path]:
    """Yield paths, in the project or not, that could be scripts which settings run."""
    words: dict[str, None] = {}
    for setting in settings:
        if not _HARMLESS.fullmatch(setting.key) and not _is_plain_alias(setting):
            words |= dict.fromkeys(_words_of(setting.value))
    for word in list(words)[:_MOST_WORDS]:
        for base in dict.fromkeys((places.top, places.project)):
            yield _path_of(word, base, places)


def _is_plain_alias(setting: Setting) -> bool:
    """Tell whether a setting is an alias for a command of Git, and not for a program."""
    return setting.key.startswith("alias.") and not setting.value.lstrip().startswith("!")


def _words_of(value: str) -> Iterator[str]:
    try:
        quoted = shlex.split(value)
    except ValueError:
        quoted = []
    for word in (*quoted, *_BETWEEN_WORDS.split(value)):
        if text := word.removeprefix("!"):
            yield text


def _path_of(text: str, base: Path, places: Places) -> Path:
    if text == "~" or text.startswith("~/"):
        return _without_dots(places.home / text[2:])
    return _without_dots(base / text)


def _without_dots(path: Path) -> Path:
    """Return an absolute path without "..", as written."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif len(parts) > 1:
            parts.pop()
    return Path(*parts)
