"""Fixtures of the sandbox tests: a home, a project, and a real sandbox around them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import seccomp_notify
from tests.conftest import FindProgram
from tests.sandbox.boxes import Box, a_box
from tests.sandbox.supervised import SupervisedBox


@pytest.fixture
def box(tmp_path: Path, program: FindProgram) -> Box:
    """A box in which commands run under the real bwrap."""
    program("bwrap")
    return a_box(tmp_path)


def _supervised(box: Box, program: FindProgram, *, private: bool) -> Iterator[SupervisedBox]:
    if not seccomp_notify.is_supported(program("bwrap"), private=private):
        pytest.skip("this kernel cannot report calls")
    # A path that leaves room for a socket's name.
    with tempfile.TemporaryDirectory(prefix="sockets-") as name:
        yield SupervisedBox(box, Path(name), private=private)


@pytest.fixture
def paired(box: Box, program: FindProgram) -> Iterator[SupervisedBox]:
    """A box for which datagram pairs are made."""
    yield from _supervised(box, program, private=False)


@pytest.fixture
def supervised(box: Box, program: FindProgram) -> Iterator[SupervisedBox]:
    """A box that has Unix sockets of its own."""
    yield from _supervised(box, program, private=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project."""
    directory = tmp_path / "project"
    directory.mkdir()
    return directory
