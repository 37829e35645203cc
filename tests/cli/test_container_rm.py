"""`container rm` removes what is named, and nothing unasked."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import store
from tests.cli.container_life import GONE, Life, seen

# Holds the name `web` in the directory `$1` until its standard input ends.
HOLDER = """\
import pathlib, sys
from claude_proxy.sandbox.container import name_lock
with name_lock.held(pathlib.Path(sys.argv[1]), "web"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(statedir: Path) -> Iterator[None]:
    words = [sys.executable, "-c", HOLDER, str(statedir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(tmp_path, monkeypatch)


def test_a_container_is_removed_with_its_record(life: Life) -> None:
    life.know(GONE)

    assert life("rm", "web") == 0
    assert store.names(life.statedir) == []


def test_one_that_runs_stays_without_force(life: Life) -> None:
    life.know(seen())

    assert life("rm", "--all") == 1
    assert store.names(life.statedir) == ["web"]


def test_what_is_not_named_is_not_removed(life: Life) -> None:
    life.know(GONE)

    assert life("rm") == 2
    assert life("rm", "--all", "web") == 2
    assert store.names(life.statedir) == ["web"]


def test_of_a_container_without_a_record_only_its_directory_is_removed_and_that_is_said(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    store.make_directory(store.directory_of(life.statedir, "web"))

    assert life("rm", "--all") == 1
    assert 'there is no container "web"' in capsys.readouterr().err
    assert life("rm", "--all", "--force") == 0
    assert capsys.readouterr().err.startswith("removed what was kept of web,")
    assert store.names(life.statedir) == []


def test_a_directory_whose_container_is_being_made_stays(life: Life) -> None:
    store.make_directory(store.directory_of(life.statedir, "web"))

    with another_process_holds(life.statedir):
        assert life("rm", "--force", "web") == 1
    assert store.names(life.statedir) == ["web"]
