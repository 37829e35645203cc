"""Git directories of a run's own: made before it starts, brought over while it runs and at its end.

Law kept: nothing is lost. A private directory is removed when the host's repository has everything
that was committed in it; what a killed launcher leaves is brought over by the next start.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.git import kept_start, private_directory, record
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.record import FOLDER, Record
from claude_proxy.sandbox.git_directories import git_of
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import SandboxSpec

type Reporter = Callable[[str], None]


def found_in(spec: SandboxSpec, statedir: Path, run: str) -> GitMounts:
    """Return the Git directories of a run's project; nothing is created."""
    if spec.clone is not None:
        return GitMounts()  # it has its own, and of the project none is shown
    worktree, trusted, _ = git_of(spec.project, (*spec.allow_ro, *spec.allow_rw))
    return discover(
        spec.project, worktree, trusted, free(Path(os.path.realpath(statedir)) / FOLDER, run)
    )


def free(folder: Path, run: str) -> Path:
    """Return a directory for a run; one of the same name may still wait to be brought over."""
    place, number = folder / run, 1
    while os.path.lexists(place):
        number += 1
        place = folder / f"{run}~{number}"
    return place


@contextmanager
def prepared(spec: SandboxSpec, statedir: Path, run: str, say: Reporter) -> Iterator[GitMounts]:
    """Make private Git directories for a run, and bring them over when it has ended."""
    recover(statedir, say)
    git = found_in(spec, statedir, run)
    if not git.complete:
        say(
            "note: the project is too large to look everywhere for repositories within it; those "
            "in the nearest directories are protected, changes in others are named at the end"
        )
    if not git.directories:
        yield git
        return
    place = git.directories[0].private.parent
    made = Record(run, spec.project, place, git.directories)
    with explained(place):
        descriptor = record.create(made)
    try:
        with explained(place):
            for directory in git.directories:
                private_directory.make(directory)
                kept_start.add(directory, place.name)
        yield git
    finally:
        finish(made, say)
        os.close(descriptor)


def recover(statedir: Path, say: Reporter) -> None:
    """Bring over what runs have left whose launcher was killed."""
    for left, descriptor in record.dead(statedir):
        lines: list[str] = []
        finish(left, lines.append)
        os.close(descriptor)
        for line in lines:
            # A command is at the end of a line, where it can be copied.
            kind, _, text = line.partition(": ")
            say(f"{kind}: from run {left.run}, which was killed: {text}")


def finish(ended: Record, say: Reporter) -> bool:
    """Bring over everything of a run that has ended, and remove its private directories.

    Returns whether that was all; if not, they are kept.
    """
    from claude_proxy.sandbox.git.bring_run import bring  # noqa: PLC0415 - when a run has ended
    from claude_proxy.sandbox.git.gitlinks import lines_of_gitlinks  # noqa: PLC0415 - as above
    from claude_proxy.sandbox.git.report import lines_of  # noqa: PLC0415 - as above

    try:
        found = bring(ended, ended=True)
    except OSError as error:
        say(f"warning: commits of this run were not brought over: {error}")
        return False
    complete = True
    for directory, done in found:
        for line in lines_of(done, directory.host, directory.private):
            say(line)
        for line in lines_of_gitlinks(done, directory.host):
            say(line)
        complete = complete and done.complete
    for directory in ended.directories:
        kept_start.remove(directory.host, ended.place.name)
    if complete:
        _remove(ended.place)
    return complete


def _remove(place: Path) -> None:
    def make_writable(_: Callable[..., object], path: str, __: BaseException) -> None:
        above = Path(path).parent
        if above.is_relative_to(place) and not above.is_symlink():
            above.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                Path(path).chmod(0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink(missing_ok=True)

    shutil.rmtree(place, ignore_errors=False, onexc=make_writable)


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that says what to do."""
    try:
        yield
    except ClaudeProxyError:
        raise
    except OSError as error:
        raise ConfigError(
            "the repository cannot be copied for the run: "
            f"{(error.strerror or type(error).__name__).lower()}",
            where=str(error.filename or place),
            fix="make it readable, and make room in the state directory",
        ) from error
