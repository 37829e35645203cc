"""A copy of the host's Python runs our programs where there is nothing else, and only then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import lent_python
from claude_proxy.sandbox.container.lent_python import DIRECTORY, INSIDE, LentPython, lend
from tests.conftest import FindProgram

WAIT_S = 60


@pytest.fixture(scope="module")
def statedir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def lent(statedir: Path) -> LentPython:
    return lend(statedir)


def in_an_empty_root(
    bwrap: str, lent: LentPython, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    view = ["--ro-bind", str(lent.directory), str(INSIDE), "--proc", "/proc", "--dev", "/dev"]
    words = [bwrap, "--unshare-all", "--clearenv", *view, "--", *lent.words(program, *arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT_S)


def test_it_runs_where_there_is_nothing_else(lent: LentPython, program: FindProgram) -> None:
    relay = ("--listen", "127.0.0.1:3128", "--to", "unix:/run/x.sock", "--")
    words = lent.words("container_init", *relay, "/no/such")

    ran = in_an_empty_root(program("bwrap"), lent, "container_init", *relay, *words)

    # The relay started itself again as its CMD, which says what it could not start.
    assert ran.returncode == 2, ran.stderr
    assert "cannot listen on 127.0.0.1:3128" in ran.stderr


def test_the_holder_of_a_namespace_runs_there_too(lent: LentPython, program: FindProgram) -> None:
    ran = in_an_empty_root(program("bwrap"), lent, "namespace_holder", "/no/such.sock")

    assert ran.stderr.splitlines()[-1] == "FileNotFoundError: [Errno 2] No such file or directory"


def test_nothing_but_what_is_needed_is_in_it(lent: LentPython) -> None:
    names = {path.name for path in lent.directory.rglob("*.py")}

    assert {"relay.py", "container_init.py", "namespace_holder.py", "socket.py"} <= names
    assert not names & {"runner.py", "vault.py", "ssl.py", "subprocess.py", "ctypes.py"}
    assert not any("site-packages" in path.parts for path in lent.directory.rglob("*"))


def test_whoever_the_containers_user_is_may_read_it(lent: LentPython) -> None:
    paths = [lent.directory, *lent.directory.rglob("*")]

    assert [path for path in paths if path.stat().st_mode & 0o004 == 0] == []
    assert [path for path in paths if path.stat().st_mode & 0o022] == []


def test_every_module_is_compiled(lent: LentPython) -> None:
    sources = [*lent.directory.rglob("*.py")]
    compiled = [*lent.directory.rglob("*.pyc")]

    assert len(compiled) == len(sources)


def test_it_is_made_once(statedir: Path, lent: LentPython) -> None:
    before = lent.directory.stat().st_mtime_ns

    assert lend(statedir) == lent
    assert lent.directory.stat().st_mtime_ns == before
    made = [path for path in (statedir / DIRECTORY).iterdir() if path.is_dir()]
    assert made == [lent.directory]


def test_old_copies_are_removed_unless_a_container_shows_them_or_they_are_new(
    tmp_path: Path, program: FindProgram
) -> None:
    store = tmp_path / DIRECTORY
    for name in ("old", "shown", "new", ".new-killed"):
        (store / name).mkdir(parents=True)
        (store / name / "file").touch()
    (store / ".current.1").touch()
    for path in store.iterdir():
        if path.name != "new":
            os.utime(path, (0, 0))
    view = ["--ro-bind", "/", "/", "--ro-bind", str(store / "shown"), "/mnt"]
    words = [program("bwrap"), *view, "--", "sh", "-c", "echo ready; read line"]
    showing = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with showing:
        assert showing.stdout is not None
        showing.stdout.readline()

        lent = lend(tmp_path)

        showing.communicate(b"end\n")
    left = {path.name for path in store.iterdir()}
    assert left == {"shown", "new", lent.directory.name, "current.json"}


def test_one_that_is_gone_is_made_again(tmp_path: Path) -> None:
    first = lend(tmp_path)
    (first.directory / "manifest.json").unlink()
    first.directory.rename(tmp_path / "elsewhere")

    assert lend(tmp_path) == first
    assert (first.directory / "manifest.json").is_file()


def test_another_system_cannot_lend_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(ClaudeProxyError, match="which is of another system") as raised:
        lend(tmp_path)

    assert raised.value.fix


def test_a_static_python_needs_no_loader(tmp_path: Path) -> None:
    words = LentPython(tmp_path, "3.13", has_loader=False).words("container_init", "--", "x")

    assert words[0] == f"{lent_python.INSIDE}/bin/python3.13"
    assert words[-2:] == ("--", "x")
