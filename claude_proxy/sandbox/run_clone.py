"""Clone of a run: made or continued before the start, held while the run goes on, reported after.

Law kept: no quiet downgrade. If the clone cannot be made, nothing is run; a clone that was made for
a run that did not start is removed.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.bubblewrap.mount_sources import file_id
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.plan.model import FileId, ProjectClone
from claude_proxy.sandbox.run_spec import RunSpec

_UNNAMED = "NAME"  # in a dry run, which chooses no name


def prepare(
    run_spec: RunSpec,
    name: str,
    held: ExitStack,
    starting: ExitStack,
    say: Callable[[str], None],
) -> RunSpec:
    """Return the specification of a run in the clone `name`, which is made if there is none.

    `held` ends with the run; `starting` is undone if COMMAND does not start. Raises
    ClaudeProxyError.
    """
    # Only runs with a clone start git.
    from claude_proxy.sandbox.git import clone_making  # noqa: PLC0415

    statedir, project = run_spec.settings.statedir, run_spec.sandbox.project
    _refuse_replaced(project, run_spec.sandbox.project_id)
    clone = clones.find(statedir, name)
    if clone is not None and run_spec.name is None:
        raise ConfigError(
            f"there is a clone called {name!r} already, and this run was not to go on in it",
            where=str(clone.path),
            fix=f"try again for another name, or go on in it with --name {name}",
        )
    if clone is not None:
        held.enter_context(clones.locked(clone.path))
        clone_making.continue_clone(clone, project, run_spec.branch)
        say(f"note: going on in the clone {name} (branch {clone.record.branch})")
    else:
        clone, missing = clone_making.make(statedir, name, project, run_spec.branch, os.environ)
        held.enter_context(clones.locked(clone.path))
        starting.callback(clones.discard, clone)
        _refuse_replaced(project, run_spec.sandbox.project_id)
        for line in missing.lines():
            say(f"note: {line}")
    shown = replace(run_spec.sandbox, clone=_shown(clone.path), project_id=file_id(clone.tree))
    return replace(run_spec, sandbox=shown)


def _refuse_replaced(project: Path, expected: FileId | None) -> None:
    """Refuse a project that is not the directory that it was when the run began."""
    try:
        same = expected is None or file_id(project) == expected
    except OSError:
        same = False
    if not same:
        raise ConfigError(
            "the project directory was replaced while the run started; nothing was run",
            where=str(project),
            fix="look for links that another run creates; then try again",
        )


def as_planned(run_spec: RunSpec) -> RunSpec:
    """Return the specification for a dry run: with the paths that the clone would have."""
    path = clones.directory_in(run_spec.settings.statedir) / (run_spec.name or _UNNAMED)
    return replace(run_spec, sandbox=replace(run_spec.sandbox, clone=_shown(path)))


def report(run_spec: RunSpec, name: str, say: Callable[[str], None]) -> None:
    """Say what the clone holds after the run, and how to look at it and bring it over."""
    report_left(run_spec.settings.statedir, name, say)


def report_left(
    statedir: Path, name: str, say: Callable[[str], None], *, who: str = "this run"
) -> None:
    """Say what is left in the clone that `who` worked in."""
    from claude_proxy.sandbox.git.changes import changes_of  # noqa: PLC0415 - as above

    try:
        found = changes_of(clones.named(statedir, name), os.environ, whole=False)
        if not (found.untaken or found.work.count):
            say(
                f"the clone {name} has nothing that the project has not; to remove it: "
                f"claude-proxy clones --remove {name}"
            )
            return
        held = f"{counted(found.untaken_count, 'commit')} and {counted(found.work.count, 'file')}"
        held += " with uncommitted work"
    except ClaudeProxyError as error:
        held = f"it cannot be read ({error.what})"
    say(f"{who} worked in the clone {name}: {held}")
    say(f"  to look at it: claude-proxy changes {name}; to bring it over: claude-proxy take {name}")


def discard_unworked(statedir: Path, name: str) -> None:
    """Remove a clone unless something works in it, or has."""
    from claude_proxy.sandbox.git.changes import changes_of  # noqa: PLC0415 - as above

    with suppress(ClaudeProxyError):
        clone = clones.named(statedir, name)
        found = changes_of(clone, os.environ, whole=False)
        if not (found.untaken or found.work.count):
            clones.remove(clone)


def _shown(path: Path) -> ProjectClone:
    clone = Clone(path.name, path, clones.CloneRecord("", "", None, 0.0))
    return ProjectClone(clone.tree, clone.git)


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
