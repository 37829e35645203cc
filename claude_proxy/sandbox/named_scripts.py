"""Scripts of a project that its obeyed files name: what hooks, servers and shells start from there.

`.claude/settings.json` may run `scripts/check.sh` after each edit, and `.envrc` may load another
file. A run may write these scripts, as people ask agents to; that it has is named at the end.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.model import SandboxPlan
from claude_proxy.sandbox.plan.path_texts import prefix_of

_MOST_BYTES = 64 * 1024  # of one file
_MOST_FILES = 100
_MOST_WORDS = 2000
_BETWEEN_WORDS = lazy_pattern(r"[\s;&|()<>\[\]{}\"'`=,:]+")
_VARIABLE = lazy_pattern(r"^\$\w+/?")  # such as $CLAUDE_PROJECT_DIR, with which a path may begin


def scripts_of(planned: SandboxPlan) -> dict[Path, Path]:
    """Return the scripts that the run may write, each with the file that names it."""
    found: dict[Path, Path] = {}
    for tree in planned.watched_trees:
        if not tree.whole and not tree.programs:
            sources = [tree.path / name for name in obeyed_files.starting_names()]
            found |= scripts_named_in(sources, tree.path)
    return found


def scripts_named_in(paths: Iterable[Path], project: Path) -> dict[Path, Path]:
    """Return the files of the project that some files name, each with the file that names it.

    `paths` are files, or directories whose files count.
    """
    found: dict[Path, Path] = {}
    below = prefix_of(project)
    words = 0
    for source in list(_files_in(paths))[:_MOST_FILES]:
        for word in _words_of(_text_of(source)):
            words += 1
            if words > _MOST_WORDS:
                return found
            script = os.path.normpath(f"{below}{word}" if word[:1] != "/" else word)
            # As text: most words are no files.
            if script.startswith(below) and script != str(source) and os.path.isfile(script):  # noqa: PTH113 - refuses no name
                found.setdefault(Path(script), source)
    return found


def _files_in(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            try:
                yield from sorted(path.iterdir())
            except OSError:
                continue
        else:
            yield path


def _words_of(text: str) -> Iterator[str]:
    for word in dict.fromkeys(_BETWEEN_WORDS.split(text)):
        # Without a slash or an ending it is hardly a file.
        if "/" in word or "." in word[1:-1]:
            yield word
            # What is left of "$CLAUDE_PROJECT_DIR"/script, and of ${CLAUDE_PROJECT_DIR}/script.
            yield _VARIABLE.sub("", word).lstrip("/")


def _text_of(path: Path) -> str:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            raw = file.read(_MOST_BYTES) if plain else b""
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "surrogateescape")
