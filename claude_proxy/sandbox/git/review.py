"""Review repository of a clone: its commits, checked and copied where the sandbox cannot write.

Law kept: the sandbox cannot move its own wall. What is shown to the user is read here alone.
Objects arrive by the same way by which they come into the user's repository, which gives each the
name of its content, so what is shown is what `take` brings over.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import bring_over, clones, ref_files, scratch
from claude_proxy.sandbox.git.bring_over import BroughtRef
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.ref_files import Refs
from claude_proxy.sandbox.git.ref_moves import Known
from claude_proxy.sandbox.git.ref_names import BRANCHES
from claude_proxy.sandbox.git.user_git import user_git

_SHA256_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Review:
    """What was read from a clone: our repository, and the refs that changed."""

    git: HostGit
    refs: Refs  # all of the clone's
    changed: tuple[BroughtRef, ...]  # since the clone was made
    problems: tuple[str, ...]
    algorithm: str

    @property
    def head(self) -> str:
        """The commit that is checked out; empty: none, or one that could not be read."""
        at = self.refs.head_object
        return at if at and self.git.run("cat-file", "-e", f"{at}^{{commit}}").ok else ""


def known_of(clone: Clone, refs: Mapping[str, str]) -> Known:
    """Return what the clone, whose refs are given, and the project have had in common."""
    record = clone.record
    begun = BRANCHES + record.branch
    last = dict(record.refs)
    if record.base and refs.get(begun) == record.base:
        last[begun] = record.base  # a branch of the clone's own without a commit of its own
    return Known(begun, record.refs, last)


def host_of(clone: Clone, environ: Mapping[str, str]) -> Path | None:
    """Return the Git directory of the project; None if it is gone."""
    project = Path(clone.record.project)
    if not project.is_dir():
        return None
    return user_git(project, environ).git_directory()


def read(clone: Clone, environ: Mapping[str, str]) -> Review:
    """Read the refs and new objects of a clone; ClaudeProxyError if it cannot be read."""
    with clones.read_alone(clone):
        return _read(clone, host_of(clone, environ))


def _read(clone: Clone, host: Path | None) -> Review:
    try:
        refs = ref_files.read_refs(clone.git)
        _make(clone, host)
        at = host is not None
        brought = _bring(clone, refs, clone.record.packs if at else ())
        if any(ref.failed for ref in brought.refs):
            # The project may have dropped commits that the clone was made with, and a damaged
            # object that was copied before may be whole now.
            forget_copies(clone)
            brought = _bring(clone, refs, ())
    except OSError as error:
        raise ClaudeProxyError(
            f"the clone cannot be read: {(error.strerror or '').lower()}",
            where=str(error.filename or clone.path),
            fix="see whether there is room for the copy; then try again",
        ) from error
    algorithm = "sha256" if _is_sha256(clone, refs) else "sha1"
    return Review(HostGit(clone.review), refs, brought.refs, brought.problems, algorithm)


def forget_copies(clone: Clone) -> None:
    """Forget the copies of objects that were made to read a clone."""
    shutil.rmtree(clone.path / "incoming", ignore_errors=True)


def _bring(clone: Clone, refs: Refs, packs: Sequence[str]) -> bring_over.BroughtOver:
    return bring_over.bring_over(
        clone.git,
        clone.review,
        clone.name,
        known=known_of(clone, refs.refs),
        only_keep=True,
        scratch_directory=clone.path / "incoming",
        skip_packs=frozenset(packs),
    )


def _make(clone: Clone, host: Path | None) -> None:
    """Make the repository, which finds the project's objects where they are."""
    place, git = clone.review, HostGit(clone.review)
    if not (place / "HEAD").exists():
        kind = "sha256" if _is_sha256(clone, Refs()) else "sha1"
        git.run("init", "-q", "--bare", "--template=", f"--object-format={kind}", str(place))
        # A ref that no clone can have: git must not take attributes from what is checked out.
        (place / "HEAD").write_text("ref: refs/claude-proxy-nothing\n")
    (place / "info").mkdir(exist_ok=True)
    alternates = place / "objects" / "info" / "alternates"
    if host is None:
        alternates.unlink(missing_ok=True)
        return
    common = bring_over.common_of(host)
    alternates.write_text(f"{scratch.quoted(common / 'objects')}\n")
    for name, source in (("info/exclude", clone.path / "exclude"), ("shallow", common / "shallow")):
        if source.is_file():
            (place / name).write_bytes(source.read_bytes())


def _is_sha256(clone: Clone, refs: Refs) -> bool:
    named = (clone.record.base or "", *clone.record.refs.values(), *refs.refs.values())
    return any(len(at) == _SHA256_LENGTH for at in named)
