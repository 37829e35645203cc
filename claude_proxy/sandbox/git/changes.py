"""Changes of a clone: commits, files and uncommitted work, compared with what it was made from.

Law kept: the sandbox cannot move its own wall. Git compares trees in a repository that the sandbox
cannot write, with no attributes, drivers or filters; the work tree is read as data.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import flagged_files, host_git, review, work_tree
from claude_proxy.sandbox.git.bring_over import BroughtRef
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.git.host_git import Answer, HostGit
from claude_proxy.sandbox.git.ignore_rules import IgnoreRules
from claude_proxy.sandbox.git.ref_names import BRANCHES, is_stash, kept_as
from claude_proxy.sandbox.git.review import Review
from claude_proxy.sandbox.git.user_git import user_git
from claude_proxy.sandbox.git.work_tree import LINK, Differences, Entry, Reading

MAX_DIFF_BYTES = 32 * 1024 * 1024
_MAX_COMMITS = 200
_MAX_JUDGED = 200  # branches and tags with commits of their own
_TOO_MANY = "not compared: there are too many"
_KEPT = "refs/claude-proxy/"

# No program, attribute or setting has a say in how a difference is shown.
_DIFF = (
    *("-c", "core.quotePath=false", "-c", "core.bigFileThreshold=16m"),
    *("-c", "diff.renameLimit=400"),
    *("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short"),
)


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a clone; all texts are the sandbox's."""

    object: str
    author: str
    date: str
    subject: str


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file that differs between two trees."""

    path: str
    old_mode: str
    new_mode: str
    reasons: tuple[str, ...]  # why it should be looked at first

    @property
    def happened(self) -> str:
        """What happened to the file, in a word."""
        if self.old_mode == "000000":
            return "added"
        return "removed" if self.new_mode == "000000" else "changed"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two trees, compared."""

    files: tuple[ChangedFile, ...] = ()
    stat: str = ""
    diff: str = ""
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch or tag of the clone that is not as it was."""

    name: str
    object: str
    ahead: int  # commits
    taken: bool  # the project has them
    problem: str = ""
    kept: str = ""  # the ref that keeps them there, if no ref of the project's own leads to them


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that a clone changed."""

    base: str  # the commit that is compared with; empty: none
    head: str
    head_name: str
    branches: tuple[Branch, ...]
    commits: tuple[Commit, ...]
    commit_count: int
    untaken_count: int  # commits of all branches and tags that the project does not have
    committed: Comparison
    uncommitted: Comparison
    work: Differences
    problems: tuple[str, ...]

    @property
    def untaken(self) -> bool:
        """Whether the clone holds commits that the project does not have."""
        return bool(self.problems) or any(not branch.taken for branch in self.branches)

    @property
    def kept(self) -> tuple[str, ...]:
        """The refs of the project that alone keep what was taken."""
        return tuple(branch.kept for branch in self.branches if branch.kept)

    @property
    def untaken_stashes(self) -> int:
        """How many stashes the project does not have."""
        return sum(is_stash(branch.name) and not branch.taken for branch in self.branches)


def changes_of(
    clone: Clone,
    environ: Mapping[str, str],
    *,
    diff: bool = True,
    whole: bool = True,
    since_start: bool = False,
) -> Changes:
    """Read what a clone changed since it was taken; ClaudeProxyError if it cannot be read.

    With `since_start`, what was taken already is shown, too.
    Without `whole`, only counts: no comparison is made. Without `diff`, no text of the files.
    """
    seen = review.read(clone, environ)
    ref, head = seen.refs.head, seen.head
    base = ("" if since_start else clone.record.taken.get(ref, "")) or clone.record.base or ""
    if base and not seen.git.run("cat-file", "-e", f"{base}^{{commit}}").ok:
        raise ClaudeProxyError(
            "the commit that the clone was made from is neither in it nor in the project",
            where=clone.name,
            fix=f"claude-proxy take {clone.name} brings over what can be read",
        )
    branches = tuple(_branches(clone, seen, environ))
    with TemporaryDirectory(prefix=".reading-", dir=clone.path) as directory:
        reader = _Reader(clone, seen, Path(directory), environ, keeps=whole)
        work = reader.differences(head)
        commits = tuple(reader.commits(base, head)) if whole else ()
        committed = reader.compare(base, head, diff=diff) if whole else Comparison()
        after = reader.tree_of(work, head) if whole and work.changed else ""
        uncommitted = reader.compare(head, after, diff=diff) if after else Comparison()
        shown = {os.fsencode(file.path) for file in uncommitted.files}
        work.unread += [path for path in work.changed if whole and path not in shown]
    return Changes(
        base=base,
        head=head,
        head_name=seen.refs.head.removeprefix(BRANCHES),
        branches=branches,
        commits=commits,
        commit_count=_ahead(seen.git, head, base),
        untaken_count=_untaken_count(clone, seen.git, branches, environ),
        committed=committed,
        uncommitted=uncommitted,
        work=work,
        problems=seen.problems,
    )


def _branches(clone: Clone, seen: Review, environ: Mapping[str, str]) -> Iterator[Branch]:
    host = review.host_of(clone, environ)
    project = None if host is None else HostGit(host)
    judged: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
    for ref in seen.changed:
        start = clone.record.refs.get(ref.name) or clone.record.base or ""
        at = (ref.object, start)
        if ref.failed:
            yield Branch(ref.name, ref.object, 0, taken=False, problem=ref.problem)
        elif at not in judged and len(judged) >= _MAX_JUDGED:
            yield Branch(ref.name, ref.object, 0, taken=False, problem=_TOO_MANY)
        else:
            if at not in judged:
                judged[at] = _ahead(seen.git, ref.object, start), _leading_to(project, ref)
            ahead, leading = judged[at]
            kept = _kept(leading, kept_as(ref.name, clone.name))
            yield Branch(ref.name, ref.object, ahead, taken=bool(leading), kept=kept)


def _leading_to(project: HostGit | None, ref: BroughtRef) -> tuple[str, ...]:
    """Return the refs of the project that lead to an object."""
    if project is None or ref.failed:
        return ()
    answer = project.run("for-each-ref", "--format=%(refname)", "--contains", ref.object)
    if not answer.ok:
        # Not a commit, as a tag may name anything.
        answer = project.run("for-each-ref", "--format=%(refname)", "--points-at", ref.object)
    return tuple(_text(answer.out).splitlines()) if answer.ok else ()


def _kept(leading: tuple[str, ...], own: str) -> str:
    """Return the ref that keeps an object; empty if a ref of the project's own leads to it."""
    if not leading or any(not name.startswith(_KEPT) for name in leading):
        return ""
    return own if own in leading else leading[0]


def _untaken_count(
    clone: Clone, git: HostGit, branches: tuple[Branch, ...], environ: Mapping[str, str]
) -> int:
    """Return how many commits no ref of the project leads to, without those of stashes."""
    new = [one.object for one in branches if not one.taken and not is_stash(one.name)]
    if not new:
        return 0
    had = {*clone.record.refs.values(), *filter(None, [clone.record.base])}
    if host := review.host_of(clone, environ):
        had.update(_text(HostGit(host).run("for-each-ref", "--format=%(objectname)").out).split())
    lines = "".join(f"{at}\n" for at in (*new, *(f"^{at}" for at in sorted(had))))
    # Objects that are missing are named beside the branch that leads to them.
    words = ("rev-list", "--count", "--ignore-missing", "--stdin")
    answer = git.run(*words, stdin=lines.encode())
    return int(answer.out) if answer.ok else 0


def _ahead(git: HostGit, at: str, base: str) -> int:
    if not at:
        return 0
    answer = git.run("rev-list", "--count", at, *((f"^{base}",) if base else ()), "--")
    return int(answer.out) if answer.ok else 0


class _Reader:
    """Compares the commits and the work tree of one clone."""

    def __init__(
        self,
        clone: Clone,
        seen: Review,
        directory: Path,
        environ: Mapping[str, str],
        *,
        keeps: bool,
    ) -> None:
        self._keeps = keeps  # the files that differ, so that they can be compared
        self._clone = clone
        self._seen = seen
        self._git = seen.git
        self._directory = directory
        self._environ = environ

    def commits(self, base: str, head: str) -> Iterator[Commit]:
        """Yield the newest commits that the base does not have."""
        if not head:
            return
        answer = self._git.run(
            *("log", "-z", f"--max-count={_MAX_COMMITS}", "--no-decorate", "--no-notes"),
            *("--no-show-signature", "--encoding=UTF-8", "--date=short"),
            *("--format=%H%x1f%an%x1f%ad%x1f%s", head, *((f"^{base}",) if base else ()), "--"),
        )
        for line in _text(answer.out).split("\0"):
            fields = line.split("\x1f", 3)
            if len(fields) == 4:  # noqa: PLR2004 - as the format above has
                yield Commit(*fields)

    def differences(self, head: str) -> Differences:
        """Compare the work tree with what is checked out."""
        rules = self._directory / "rules"
        rules.mkdir()
        with IgnoreRules(self._git_words(), rules, host_git.environment()) as ignored:
            write = self._write_blob if self._keeps else lambda _: ""
            reading = Reading(ignored.ignores, ignored.note, write, self._seen.algorithm)
            try:
                return work_tree.differences(self._clone.tree, self._entries(head), reading)
            except OSError as error:
                raise ClaudeProxyError(
                    f"the clone's files cannot be read: {(error.strerror or '').lower()}",
                    where=str(self._clone.tree),
                    fix="see who owns the directory",
                ) from error

    def _git_words(self) -> list[str]:
        excludes = user_git(self._clone.path, self._environ).line(
            "config", "--global", "--type=path", "--get", "core.excludesFile"
        )
        base = self._environ.get("XDG_CONFIG_HOME") or f"{self._environ.get('HOME', '')}/.config"
        rules = ("-c", f"core.excludesFile={excludes or f'{base}/git/ignore'}")
        return [host_git.find_git() or "git", *host_git.options_for(self._git.directory), *rules]

    def _entries(self, commit: str) -> dict[bytes, Entry]:
        """Return the files of a commit; none for no commit."""
        if not commit:
            return {}
        found = {}
        listed = self._checked(self._git.run("ls-tree", "-r", "-z", "--full-tree", commit))
        for line in listed.split(b"\0"):
            described, _, path = line.partition(b"\t")
            words = described.decode("ascii", "replace").split(" ")
            if path:
                found[path] = Entry(words[0], words[-1])
        return found

    def _write_blob(self, data: bytes) -> str:
        """Write a file's content into the review repository as git does."""
        name = work_tree.blob_name(data, self._seen.algorithm)
        place = self._git.directory / "objects" / name[:2] / name[2:]
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            new = place.with_name(f"new-{token_hex(8)}")
            new.write_bytes(zlib.compress(b"blob %d\0%b" % (len(data), data), 1))
            new.replace(place)
        return name

    def tree_of(self, work: Differences, head: str) -> str:
        """Return a tree with the differences of the work tree."""
        index = self._directory / "index"
        if head:
            self._checked(self._git.run("read-tree", head, index=index))
        nothing = "0" * (64 if self._seen.algorithm == "sha256" else 40)
        removed = [path for path, entry in work.changed.items() if entry is None]
        lines = [b"0 %b\t%b\0" % (nothing.encode(), path) for path in removed]
        lines += [
            f"{entry.mode} {entry.object}\t".encode() + path + b"\0"
            for path, entry in work.changed.items()
            if entry is not None
        ]
        # Names that other file systems take for others are names here.
        words = ("-c", "core.protectNTFS=false", "-c", "core.protectHFS=false")
        info = ("update-index", "-z", "--index-info")
        self._checked(self._git.run(*words, *info, stdin=b"".join(lines), index=index))
        return self._checked(self._git.run(*words, "write-tree", index=index)).decode().strip()

    def compare(self, old: str, new: str, *, diff: bool) -> Comparison:
        """Compare two commits or trees; an empty name is the empty tree."""
        if not new:
            return Comparison()
        trees = (old or self._empty_tree(), new)
        files = tuple(self._files(trees))
        if not files:
            return Comparison()
        stat = _text(self._diff("-M", "--stat=100,70", *trees))
        if not diff:
            return Comparison(files, stat)
        raw = self._diff("-M", "-p", "--src-prefix=a/", "--dst-prefix=b/", *trees)
        return Comparison(files, stat, _text(raw[:MAX_DIFF_BYTES]), len(raw) > MAX_DIFF_BYTES)

    def _diff(self, *words: str) -> bytes:
        return self._checked(self._git.run(*_DIFF, *words, "--"))

    def _checked(self, answer: Answer) -> bytes:
        """Return an output; ClaudeProxyError if there is none: nothing counts as no change."""
        if not answer.ok:
            raise ClaudeProxyError(
                f"the clone cannot be compared: {answer.reason}",
                where=self._clone.name,
                fix=f"claude-proxy take {self._clone.name} keeps its commits for git to show",
            )
        return answer.out

    def _files(self, trees: tuple[str, str]) -> Iterator[ChangedFile]:
        fields = self._diff("--no-renames", "--raw", "-z", *trees).split(b"\0")
        for described, name in zip(fields[::2], fields[1::2], strict=False):
            old_mode, new_mode, _, new, _ = described.decode("ascii", "replace").split(" ")
            path = _text(name)
            link = self._link(new) if new_mode == LINK else ""
            found = flagged_files.reasons(path, old_mode[1:], new_mode, link=link)
            yield ChangedFile(path, old_mode[1:], new_mode, tuple(found))

    def _link(self, name: str) -> str:
        return _text(self._git.run("cat-file", "blob", name).out[:1000])

    def _empty_tree(self) -> str:
        return self._git.run("hash-object", "-t", "tree", os.devnull).out.decode().strip()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
