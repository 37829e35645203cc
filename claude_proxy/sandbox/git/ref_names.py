"""Names of Git refs that come from a sandbox: which are valid, and which may be created; pure.

Law kept: the sandbox cannot move its own wall. A name is data until it has passed the rules of
git-check-ref-format(1), and no new branch or tag changes what a name of the host's leads to.
"""

from collections.abc import Collection

from claude_proxy.deferred.patterns import lazy_pattern

BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
NOTES = "refs/notes/"
STASH = "refs/stash"
HEAD = "HEAD"

_LIMIT = 1024  # of a whole name; a file name holds at most 255 bytes
_PART_LIMIT = 250
_BAD = lazy_pattern(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_OBJECT = lazy_pattern(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Where git looks for a short name, in this order (gitrevisions(7)).
_SEARCHED = ("refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")


def is_object(text: str) -> bool:
    """Tell whether a text is the full name of an object, by SHA-1 or SHA-256."""
    return _OBJECT.fullmatch(text) is not None


def is_valid(name: str) -> bool:
    """Tell whether a ref may have this name (git-check-ref-format(1)); it begins with refs/."""
    parts = name.split("/")
    return (
        name.startswith("refs/")
        and len(os_bytes(name)) <= _LIMIT
        and _BAD.search(name) is None
        and all(_is_part(part) for part in parts)
    )


def os_bytes(name: str) -> bytes:
    """Return a name as it is in a file."""
    return name.encode("utf-8", "surrogateescape")


def _is_part(part: str) -> bool:
    return (
        part not in {"", "@"}
        and len(os_bytes(part)) <= _PART_LIMIT
        and not part.startswith(".")
        and not part.endswith((".", ".lock"))
    )


def misleads(name: str, existing: Collection[str]) -> bool:
    """Tell whether a new branch or tag would change what a user means by a name.

    A tag `origin/main` is found before the remote's branch, one called `-f` is read as an option.
    """
    short = short_name(name)
    last = short.rsplit("/", 1)[-1]
    if short.startswith("-") or is_object(short) or last == HEAD or last.endswith("_HEAD"):
        return True
    others = {pattern.format(short) for pattern in _SEARCHED} - {name}
    return any(other in existing for other in others)


def short_name(name: str) -> str:
    """Return a branch's or tag's name as users write it."""
    for prefix in (BRANCHES, TAGS):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def is_stash(name: str) -> bool:
    """Tell whether a ref of a run is a stash: the newest, or an older one ("refs/stash@1")."""
    return name.partition("@")[0] == STASH


def kept_as(name: str, run: str) -> str:
    """Return the ref of the host's repository that keeps a ref of a run.

    A branch's is `refs/claude-proxy/RUN/BRANCH`. No run's name contains "@", so nothing else that
    is kept can be taken for a branch.
    """
    if name.startswith(BRANCHES):
        return f"refs/claude-proxy/{run}/{name.removeprefix(BRANCHES)}"
    return f"refs/claude-proxy/{run}@{name.removeprefix('refs/')}"


def kept_apart(name: str, run: str, object_: str) -> str:
    """Return another such name, for a ref whose own is taken by a directory or a file."""
    return kept_as(name, f"{run}@{object_[:12]}")
