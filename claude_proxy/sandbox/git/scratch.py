"""Scratch repository: the run's objects and refs in a Git directory that only the host writes.

Law kept: the sandbox cannot move its own wall. Nothing of the run's settings, hooks, alternates or
indexes is in it, so that git can fetch from it as from any repository.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.object_files import copy_objects

_CONFIG = "[core]\n\trepositoryformatversion = {}\n\tbare = true\n{}"
_SHA256 = "[extensions]\n\tobjectFormat = sha256\n"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch repository, and what could not be copied into it."""

    directory: Path
    problems: tuple[str, ...] = ()


def fill(
    private: Path,
    common: Path,
    directory: Path,
    *,
    sha256: bool,
    skip_packs: Collection[str] = (),
) -> Scratch:
    """Copy what is new in `private` into the scratch repository at `directory`.

    `common` is the host's Git directory that has the objects. A scratch repository that is there
    already is kept, so that nothing is copied twice. `skip_packs` are those of objects that the
    host has. OSError if it cannot be written.
    """
    for name in ("objects/info", "objects/pack", "refs"):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "HEAD").write_text("ref: refs/heads/nothing\n")
    (directory / "config").write_text(_CONFIG.format(int(sha256), _SHA256 if sha256 else ""))
    (directory / "objects/info/alternates").write_text(f"{quoted(common / 'objects')}\n")
    shallow = common / "shallow"
    if shallow.is_file():
        (directory / "shallow").write_bytes(shallow.read_bytes())
    copied = copy_objects(private, directory / "objects", skip_packs)
    problems = [copied.problem] if copied.problem else []
    git = HostGit(directory)
    for pack in sorted((directory / "objects/pack").glob("pack-*.pack")):
        if not pack.with_suffix(".idx").exists():
            answer = git.run("index-pack", str(pack))
            if not answer.ok:
                pack.unlink()
                problems.append(f"{pack.name}: {answer.reason}")
    return Scratch(directory, tuple(problems))


def quoted(path: Path) -> str:
    """Return a path as a line of objects/info/alternates (gitrepository-layout(5))."""
    text = str(path)
    if not text.startswith(('"', "#")) and "\n" not in text:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def name_refs(directory: Path, refs: Mapping[str, str]) -> None:
    """Make these the only refs of the scratch repository."""
    lines = sorted(f"{object_} {name}\n" for name, object_ in refs.items())
    data = "".join(lines).encode("utf-8", "surrogateescape")
    (directory / "packed-refs").write_bytes(data)


def types_of(git: HostGit, objects: Iterable[str]) -> dict[str, str]:
    """Return the types of the objects that a repository has."""
    names = list(dict.fromkeys(objects))
    answer = git.run("cat-file", "--batch-check", stdin="\n".join((*names, "")).encode())
    found = {}
    for line in answer.out.decode("ascii", "replace").split("\n"):
        words = line.split(" ")
        if len(words) == 3:  # noqa: PLR2004 - object, type, size; else "missing"
            found[words[0]] = words[1]
    return found
