"""Making of clones: a full copy of the user's repository, with a work tree and a configuration.

Laws kept: secrets stay outside: objects come over by git's own transport, so only what a branch, a
tag or a remote's branch leads to is copied, and of the configuration only harmless keys without
passwords. No path of the project is shared: no hard links, and no alternates.
"""

import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import Clone, CloneRecord
from claude_proxy.sandbox.git.host_git import Answer, HostGit
from claude_proxy.sandbox.git.ref_names import BRANCHES, is_valid
from claude_proxy.sandbox.git.user_git import UserGit, user_git

_REFS = ("refs/heads/*", "refs/tags/*", "refs/remotes/*")
_URL = lazy_pattern(r"remote\..*\.(?:url|pushurl)", re.DOTALL | re.IGNORECASE)
# What git inside needs to work as it does outside; nothing that names a program or a password.
_KEPT = lazy_pattern(
    r"remote\..*\.(?:url|pushurl|fetch|tagopt|prune)|branch\..*\.(?:remote|merge|rebase)"
    r"|user\.(?:name|email)|core\.(?:autocrlf|eol|safecrlf|ignorecase|precomposeunicode|quotepath)"
    r"|core\.(?:symlinks|filemode|abbrev|logallrefupdates|whitespace|commentchar)"
    r"|(?:pull|push|merge|rebase|diff|init|i18n|format|commit|status)\."
    r"(?:rebase|ff|default|autosetupremote|conflictstyle|renames|algorithm|defaultbranch"
    r"|commitencoding|logoutputencoding|pretty|cleanup|showuntrackedfiles)",
    re.DOTALL | re.IGNORECASE,
)
_GITLINK = b"160000 "


@dataclass(frozen=True, slots=True)
class NotCarried:
    """What of the project is not in a new clone of it."""

    uncommitted: int = 0  # files
    submodules: int = 0
    filtered: int = 0  # files that need a filter, as those of Git LFS do

    def lines(self) -> Iterator[str]:
        """Yield a sentence for each, for the user."""
        if self.uncommitted:
            yield (
                f"{_count(self.uncommitted, 'file')} of the project with uncommitted work: not in "
                "the clone; commit first if COMMAND needs it"
            )
        if self.submodules:
            yield f"{_count(self.submodules, 'submodule')}: empty in the clone"
        if self.filtered:
            yield (
                f"{_count(self.filtered, 'file')} stored by a filter such as Git LFS: in the clone "
                "as the repository stores them"
            )


@dataclass(frozen=True, slots=True)
class _Source:
    """The user's repository, as git sees it."""

    git: UserGit
    project: Path
    head: str  # the branch that is checked out; empty: none
    commit: str  # that is checked out; empty: none
    object_format: str
    bare: bool


def make(
    statedir: Path, name: str, project: Path, branch: str | None, environ: Mapping[str, str]
) -> tuple[Clone, NotCarried]:
    """Make a clone of a project's repository; ClaudeProxyError if there is none, or no room."""
    source = _source_of(project, environ)
    branch = _checked_branch(branch or source.head or name)
    with clones.new_directory(statedir, name) as path:
        clone = Clone(name, path, CloneRecord(str(project), branch, None, time.time()))
        _copy_objects(source, clone)
        clones.write_record(path, _check_out(source, clone, branch))
    made = clones.named(statedir, name)
    return made, _not_carried(source, made)


def _source_of(project: Path, environ: Mapping[str, str]) -> _Source:
    git = user_git(project, environ)
    answer = git.run("rev-parse", "--is-bare-repository", "--show-object-format")
    if not answer.ok:
        if "not a git repository" in answer.err:
            raise ConfigError(
                "--clone needs a Git repository, and the project is none",
                where=str(project),
                fix="run `git init` and commit there, or leave out --clone",
            )
        raise _failed(answer, "git cannot read the project's repository", project)
    bare, object_format = answer.out.decode().split()
    _refuse_part(git, project, bare=bare == "true")
    head = git.line("symbolic-ref", "-q", "HEAD").removeprefix(BRANCHES)
    commit = git.line("rev-parse", "-q", "--verify", "HEAD^{commit}")
    return _Source(git, project, head, commit, object_format, bare == "true")


def _refuse_part(git: UserGit, project: Path, *, bare: bool) -> None:
    """Refuse a directory that is only a part of a repository."""
    if bare:
        # Of a bare repository, git finds the top from any directory below.
        top = git.line("rev-parse", "--absolute-git-dir")
    elif git.line("rev-parse", "--is-inside-git-dir") == "true":
        raise ConfigError(
            "the project is the Git directory of a repository",
            where=str(project),
            fix="name the directory of its files with --dir",
        )
    else:
        top = git.line("rev-parse", "--show-toplevel")
    if os.path.realpath(top or project) != os.path.realpath(project):
        raise ConfigError(
            "the project is only a part of a repository, which is cloned as a whole",
            where=str(project),
            fix=f"add --dir {top}, or leave out --clone",
        )


def _failed(answer: Answer, what: str, where: Path) -> ClaudeProxyError:
    return ClaudeProxyError(
        f"{what}: {answer.reason}", where=str(where), fix="look at the repository with git"
    )


def _done(answer: Answer, where: Path) -> bytes:
    if not answer.ok:
        raise _failed(answer, "the clone cannot be made", where)
    return answer.out


def _checked_branch(branch: str) -> str:
    if not is_valid(BRANCHES + branch) or branch.startswith("-") or branch == "HEAD":
        raise ConfigError(
            f"{branch!r} cannot be the name of a branch",
            where="--branch",
            fix="see git-check-ref-format(1) for what a name may contain",
        )
    return branch


def _copy_objects(source: _Source, clone: Clone) -> None:
    """Copy what the branches, the tags and the remotes' branches lead to."""
    init = ("init", "-q", "--bare", "--template=", f"--object-format={source.object_format}")
    _done(HostGit(clone.git).run(*init, str(clone.git)), clone.git)
    (clone.git / "hooks").mkdir()  # tools write there without making it
    clone.tree.mkdir(mode=0o755)
    (clone.tree / ".git").mkdir(mode=0o755)  # where the Git directory is mounted
    _fetch(source, clone, *(f"+{refs}:{refs}" for refs in _REFS))


def _fetch(source: _Source, clone: Clone, *refs: str) -> None:
    # No search for deltas, which takes most of the time: those that there are stay.
    sender = f"{shlex.quote(source.git.program)} -c pack.window=0 upload-pack"
    # With the user's settings, by which git may trust a repository of another owner.
    answer = source.git.run(
        *("-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1"),
        *("fetch", "--no-tags", "--no-write-fetch-head", "--update-shallow", "--quiet"),
        f"--upload-pack={sender}",
        *(os.path.realpath(source.project), *refs),
        git_dir=clone.git,
    )
    if not answer.ok and source.git.line("config", "--get-regexp", r"^remote\..*\.promisor$"):
        raise ClaudeProxyError(
            "the project is a partial clone, which has not all objects itself",
            where=str(source.project),
            fix="get the others first: git fetch --refetch --no-filter",
        )
    _done(answer, source.project)


def _check_out(source: _Source, clone: Clone, branch: str) -> CloneRecord:
    """Check out the branch, which is created if there is none, and return the record."""
    ours = HostGit(clone.git)
    ref = BRANCHES + branch
    listed = _done(ours.run("for-each-ref", "--format=%(objectname) %(refname)"), clone.git)
    lines = listed.decode("utf-8", "surrogateescape").splitlines()
    refs = {name: at for at, _, name in (line.partition(" ") for line in lines)}
    commit = source.commit if source.head == branch else _commit_of(ours, branch) or source.commit
    if commit:
        if not ours.run("cat-file", "-e", f"{commit}^{{commit}}").ok:
            # It is checked out, and no branch leads to it.
            _fetch(source, clone, f"+HEAD:{ref}")
        _done(ours.run("update-ref", ref, commit), clone.git)
    _done(ours.run("symbolic-ref", "HEAD", ref), clone.git)
    if commit:
        tree = f"--work-tree={clone.tree}"
        _done(ours.run(tree, "read-tree", "-m", "-u", "HEAD"), clone.tree)
    _write_config(source, clone)
    packs = _keep_packs(clone)
    return replace(clone.record, branch=branch, base=commit or None, refs=refs, packs=packs)


def _commit_of(git: HostGit, branch: str) -> str:
    """Return the commit of a branch, or of the remote's branch of that name; empty: neither."""
    for place in (BRANCHES + branch, f"refs/remotes/origin/{branch}"):
        answer = git.run("rev-parse", "-q", "--verify", f"{place}^{{commit}}")
        if answer.ok:
            return answer.out.decode().strip()
    return ""


def _write_config(source: _Source, clone: Clone) -> None:
    """Give the clone the harmless settings of the project's repository."""
    ours = HostGit(clone.git)
    _done(ours.run("config", "core.bare", "false"), clone.git)
    listed = source.git.run("config", "--local", "--includes", "--list", "-z").out
    for entry in listed.split(b"\0"):
        key, _, value = entry.decode("utf-8", "surrogateescape").partition("\n")
        if _KEPT.fullmatch(key):
            shown = _without_password(value) if _URL.fullmatch(key) else value
            ours.run("config", "--add", key, shown)
    if exclude := source.git.line("rev-parse", "--git-path", "info/exclude"):
        _copy_exclude(source.project / exclude, clone)


def _copy_exclude(path: Path, clone: Clone) -> None:
    try:
        text = path.read_bytes()
    except OSError:
        return
    (clone.git / "info").mkdir(exist_ok=True)
    (clone.git / "info" / "exclude").write_bytes(text)
    (clone.path / "exclude").write_bytes(text)


def _without_password(url: str) -> str:
    """Return the address of a remote without the user name and the password in it."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme == "ssh" and parts.password is None:
        return url  # the user name is a part of the address, as in ssh://git@
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _keep_packs(clone: Clone) -> tuple[str, ...]:
    """Mark the packs, so that git inside does not write them again; return their names."""
    directory = clone.git / "objects" / "pack"
    names = sorted(path.stem for path in directory.glob("pack-*.pack"))
    for name in names:
        (directory / f"{name}.keep").touch()
    return tuple(names)


def _not_carried(source: _Source, clone: Clone) -> NotCarried:
    ours = HostGit(clone.git)
    listed = ours.run("ls-files", "-s", "-z").out.split(b"\0")
    submodules = sum(entry.startswith(_GITLINK) for entry in listed)
    paths = b"\0".join(entry.partition(b"\t")[2] for entry in listed if entry)
    words = ("-c", "core.bare=true", "check-attr", "--cached", "-z", "--stdin", "filter")
    filtered = ours.run(*words, stdin=paths).out
    values = filtered.split(b"\0")[2::3]
    return NotCarried(
        uncommitted=0 if source.bare else _uncommitted(source.git),
        submodules=submodules,
        filtered=sum(value not in {b"unspecified", b"unset", b"set"} for value in values),
    )


def _uncommitted(git: UserGit) -> int:
    """Return how many files of the project have work that is in no commit."""
    # Not the submodules: git would obey their configurations, which a run may have written.
    words = ("status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all")
    return git.without_filters().run(*words).out.count(b"\0")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def continue_clone(clone: Clone, project: Path, branch: str | None) -> Clone:
    """Return a clone to go on in; ConfigError if it is another project's, or of another branch."""
    if os.path.realpath(clone.record.project) != os.path.realpath(project):
        raise ConfigError(
            f"the clone {clone.name!r} is one of {clone.record.project}",
            where="--name",
            fix="choose another name",
        )
    if branch is not None and branch != clone.record.branch:
        raise ConfigError(
            f"the clone {clone.name!r} was made for the branch {clone.record.branch!r}",
            where=f"--branch {branch}",
            fix="leave out --branch: git inside can switch; or choose another --name",
        )
    if not (clone.tree.is_dir() and clone.git.is_dir()):
        raise ClaudeProxyError(
            "the clone is incomplete",
            where=str(clone.path),
            fix=f"claude-proxy clones --remove {clone.name}",
        )
    return clone
