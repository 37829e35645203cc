"""Protection is put back on what replaced an entry, and nothing that an agent made is obeyed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap.guarded_entries import digest_of
from tests.conftest import FindProgram

SETUP = """\
import os, sys
from pathlib import Path
from claude_proxy.sandbox.bubblewrap import mount_calls
from claude_proxy.sandbox.bubblewrap.guarded_entries import *
top = Path(sys.argv[1])
os.chdir("/proc")
def entries(*wanted):
    return GuardedEntries([Entry(kind, str(top), str(top / name)) for kind, name in wanted])
def bare(guarded):
    return [entry.at.removeprefix(f"{top}/") for entry in guarded.unprotected()]
def put_back(guarded):
    for entry in guarded.unprotected():
        guarded.protect(entry)
def writes(name):
    try:
        (top / name).write_text("evil")
    except OSError as error:
        return error.strerror
    return "written"
"""

type Inside = Callable[[str], list[str]]


@pytest.fixture
def inside(tmp_path: Path, program: FindProgram) -> Inside:
    """Return a function that runs a script in a mount namespace of its own."""
    unshare = program("unshare")
    top = tmp_path / "project"
    top.mkdir()

    def run(script: str) -> list[str]:
        command = [unshare, "--user", "--map-root-user", "--mount", sys.executable, "-c"]
        done = subprocess.run(
            [*command, SETUP + script, str(top)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_a_file_that_has_lost_its_protection_is_read_only_again(inside: Inside) -> None:
    assert inside("""
(top / "a").write_text("1")
guarded = entries((READ, "a"))
put_back(guarded)
print(bare(guarded), writes("a"))
mount_calls._libc.umount2(bytes(top / "a"), 2)
print(bare(guarded), writes("a"))
put_back(guarded)
print(bare(guarded), writes("a"))
""") == ["[] Read-only file system", "['a'] written", "[] Read-only file system"]


def test_a_hidden_file_and_a_hidden_directory_show_nothing(inside: Inside) -> None:
    assert inside("""
(top / "file").write_text("secret")
(top / "directory").mkdir()
(top / "directory" / "file").write_text("secret")
guarded = entries((HIDE, "file"), (HIDE, "directory"))
put_back(guarded)
print(bare(guarded), repr((top / "file").read_text()), os.listdir(top / "directory"))
""") == ["[] '' []"]


def test_both_ways_to_an_entry_below_a_pinned_directory_are_protected(inside: Inside) -> None:
    assert inside("""
(top / "sub").mkdir()
(top / "sub" / "a").write_text("1")
before = os.open(top / "sub", os.O_PATH)
guarded = entries((PIN, "sub"), (READ, "sub/a"))
put_back(guarded)
print(bare(guarded), writes("sub/a"))
try:
    os.open("a", os.O_WRONLY, dir_fd=before)
except OSError as error:
    print(error.strerror)
""") == ["[] Read-only file system", "Read-only file system"]


def test_what_belongs_to_the_run_is_mounted_again(inside: Inside) -> None:
    assert inside("""
(top / "own").mkdir()
(top / "own" / "a").write_text("ours")
(top / "x").mkdir()
libc = mount_calls._libc
assert libc.mount(bytes(top / "own"), bytes(top / "x"), None, 0x1000, None) == 0
guarded = entries((OWN, "x"))
libc.umount2(bytes(top / "x"), 2)
print(bare(guarded), os.listdir(top / "x"))
put_back(guarded)
print(bare(guarded), os.listdir(top / "x"))
libc.umount2(bytes(top / "x"), 2)
put_back(guarded)
print(bare(guarded), os.listdir(top / "x"))
""") == ["['x'] []", "[] ['a']", "[] ['a']"]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ('os.symlink("/etc/passwd", top / "a")', "it is a symbolic link now"),
        ('os.mkfifo(top / "a")', "it is neither a file nor a directory now"),
        (
            '(top / "b").write_text(""); os.link(top / "b", top / "a")',
            "it has a second name (a hard link)",
        ),
    ],
)
def test_what_cannot_be_protected_is_an_error(inside: Inside, made: str, why: str) -> None:
    found = inside(f"""
guarded = entries((READ, "a"))
{made}
try:
    put_back(guarded)
except UnprotectableError as error:
    print(error.at.endswith("/a"), error)
""")

    assert len(found) == 1
    assert found[0].startswith(f"True {why}")


def test_a_link_on_the_way_leads_nowhere(inside: Inside) -> None:
    assert inside("""
(top / "sub").mkdir()
guarded = entries((READ, "sub/passwd"))
os.rename(top / "sub", top / "other")
os.symlink("/etc", top / "sub")
print(bare(guarded), guarded.find(guarded.entries[0]))
""") == ["[] None"]


def test_what_is_in_a_directory_that_does_not_exist_is_not_expected(inside: Inside) -> None:
    assert inside("""
guarded = entries((READ, "none/a"), (READ, "b"), (HIDE, "none/secret"))
print([entry.at.removeprefix(str(top)) for entry in guarded.entries])
print(len(guarded.one_for_each_directory()))
""") == ["['/b', '/none/secret']", "2"]


def test_content_that_was_there_before_is_known(inside: Inside) -> None:
    assert inside("""
guarded = entries((READ, "a"))
entry = guarded.entries[0]
for text in ("1", "2", "1", "1" * (1 << 21), "1" * (1 << 21)):
    (top / "a").write_text(text)
    print(guarded.learn_content(entry))
""") == ["False", "False", "True", "False", "False"]


def digest(path: Path) -> bytes | None:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return digest_of(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file, a link and a directory."""
    monkeypatch.chdir("/proc")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("1")
    (tree / "link").symlink_to("file")
    return tree


def test_a_digest_covers_everything_in_a_directory(tree: Path) -> None:
    digests = [digest(tree)]
    (tree / "file").write_text("2")
    digests.append(digest(tree))
    (tree / "sub" / "more").write_text("")
    digests.append(digest(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("other")
    digests.append(digest(tree))

    assert None not in digests
    assert len(set(digests)) == 4


def test_what_would_wait_or_never_end_is_not_read(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    assert digest(tree) is not None

    with (tree / "huge").open("wb") as file:
        file.truncate(1 << 40)

    assert digest(tree) is None


def test_a_directory_with_very_many_files_is_not_read(tree: Path) -> None:
    for number in range(600):
        (tree / str(number)).touch()

    assert digest(tree) is None
