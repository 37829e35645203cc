"""Commits of live runs that wait: those of a run that goes on, or whose launcher was killed.

Law kept: nothing is lost. The private directories of a run that has ended are removed only if the
project has all that was committed in them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from claude_proxy.sandbox.git import bring_run, private_repositories, record
from claude_proxy.sandbox.git.bring_over import BroughtOver
from claude_proxy.sandbox.git.record import FOLDER, Record
from claude_proxy.sandbox.git.user_git import user_git
from claude_proxy.sandbox.plan.git_facts import GitDirectory

_KEPT = "refs/claude-proxy/"

type Brought = list[tuple[GitDirectory, BroughtOver]]


def take(statedir: Path, name: str) -> Brought | None:
    """Bring over what the runs of a name have committed; None if no run of that name waits."""
    found: Brought = []
    any_waits = False
    for ended, descriptor in record.dead(statedir):
        try:
            if ended.run == name:
                any_waits = True
                found += bring_run.bring(ended, ended=True)
                private_repositories.finish(ended, lambda _: None)
        finally:
            os.close(descriptor)
    for running in _records(statedir):
        if running.run == name:
            any_waits = True
            found += bring_run.bring(running, ended=False)
    return found if any_waits else None


def kept_of(name: str, directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the refs that keep what runs of a name have committed, in a directory's repository."""
    listed = user_git(directory, environ).run("for-each-ref", "--format=%(refname)", _KEPT)
    refs = listed.out.decode("utf-8", "surrogateescape").splitlines() if listed.ok else []
    return [ref for ref in refs if ref.startswith((f"{_KEPT}{name}/", f"{_KEPT}{name}@"))]


def _records(statedir: Path) -> Iterator[Record]:
    """Yield the records that are left, which are those of runs that go on."""
    with suppress(OSError):
        for place in sorted((statedir / FOLDER).iterdir()):
            if place.name.startswith("."):
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):
                yield record.read(place)
