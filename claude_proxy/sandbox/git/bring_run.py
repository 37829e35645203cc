"""All Git directories of one run, brought over: each with the HEAD of every worktree it shares.

Only the standard library is imported, so that a helper process can do it as well.
"""

from claude_proxy.sandbox.git import record
from claude_proxy.sandbox.git.bring_over import BroughtOver, bring_over, common_of, known_of
from claude_proxy.sandbox.git.lfs_objects import bring_lfs_objects
from claude_proxy.sandbox.git.new_modules import add_new_modules
from claude_proxy.sandbox.git.new_worktrees import add_new_worktrees
from claude_proxy.sandbox.git.record import Progress, Record
from claude_proxy.sandbox.git.ref_files import has_head, is_untouched
from claude_proxy.sandbox.plan.git_facts import GitDirectory

# Where commits are written: in a repository that an earlier run has made, a link could lead out.
_WRITTEN = ("objects", "refs", "logs", "lfs", "worktrees", "modules", "packed-refs", "index")


def bring(run: Record, *, ended: bool) -> list[tuple[GitDirectory, BroughtOver]]:
    """Bring over what is new in the private directories of a run."""
    with record.bringing(run.place):
        return [(directory, _bring(run, directory, ended=ended)) for directory in run.directories]


def _bring(run: Record, directory: GitDirectory, *, ended: bool) -> BroughtOver:
    """Bring over one directory: with the HEAD of each worktree whose files the run shares."""
    linked = next((name for name in _WRITTEN if (directory.host / name).is_symlink()), None)
    try:
        progress = record.progress_of(directory)
        found: list[BroughtOver] = []
        scratch = directory.start / "scratch"
        for worktree in directory.worktrees or ("",):
            if worktree and not has_head(directory.private, worktree):
                continue  # the run has removed it
            if progress.last is None and is_untouched(directory.private, directory.start, worktree):
                continue
            if linked is not None:
                why = f"{linked} is a symbolic link there, so nothing is written"
                return BroughtOver(problems=(why,))
            known = progress.known(known_of(directory.start, worktree), worktree)
            done = bring_over(
                directory.private,
                directory.host / worktree,
                run.run,
                known=known,
                shares_tree=bool(directory.worktrees),
                ended=ended,
                scratch_directory=scratch,
                worktree=worktree,
            )
            if done.known != known:
                progress = Progress(
                    {**progress.heads, worktree: done.known.head}, dict(done.known.last)
                )
                record.note_progress(directory, progress)
            found.append(done)
        problems = []
        if ended and linked is None:
            problems += bring_lfs_objects(directory.private, common_of(directory.host))
            problems += add_new_worktrees(directory, run.project)
            problems += add_new_modules(directory, run.project, run.run)
    except OSError as error:
        return BroughtOver(problems=(f"{error.filename}: {(error.strerror or '').lower()}",))
    return _together(found, tuple(problems))


def _together(found: list[BroughtOver], problems: tuple[str, ...]) -> BroughtOver:
    """Return one result for all worktrees: a branch moves with the one that has it checked out."""
    if not found:
        return BroughtOver(problems=problems)
    refs = {ref.name: ref for done in found for ref in done.refs}
    return BroughtOver(
        tuple(refs.values()),
        found[-1].known,
        next((done.head for done in found if done.head), ""),
        next((done.head_problem for done in found if done.head_problem), ""),
        tuple(dict.fromkeys((*problems, *(one for done in found for one in done.problems)))),
    )
