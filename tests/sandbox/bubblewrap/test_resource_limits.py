"""A sandbox has no more processes and no more memory than its limits, whoever starts it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap
from claude_proxy.sandbox.bubblewrap.resource_limits import MemoryWatch
from claude_proxy.sandbox.plan.model import ResourceLimits
from tests.sandbox.boxes import Box

GIB = 1 << 30
FORKS = """
import os, time
started = 0
try:
    while started < 2000:
        if not os.fork():
            time.sleep(600)
        started += 1
except OSError:
    pass
print(started)
"""


@contextmanager
def running(box: Box, script: str, limits: ResourceLimits) -> Iterator[Bubblewrap]:
    planned = box.plan(box.spec("/usr/bin/python3", "-c", script, limits=limits))
    streams = (subprocess.DEVNULL, subprocess.PIPE, None)
    with Bubblewrap.start(planned, seccomp.program(), streams) as sandbox:
        yield sandbox


def test_processes_are_counted_for_the_sandbox_alone(box: Box) -> None:
    with running(box, FORKS, ResourceLimits(processes=100)) as sandbox:
        if not sandbox.watchdog.limits_processes:
            pytest.skip("this kernel cannot count a sandbox's processes")
        sandbox.release()
        assert sandbox.process.stdout is not None
        started = int(sandbox.process.stdout.readline())

    # Of root's processes the ids are limited, which has an unsharp edge.
    assert 50 < started <= 400


def test_a_process_that_uses_more_than_all_may_is_killed_and_named(box: Box) -> None:
    script = f"kept = bytearray({3 * GIB}); print(len(kept))"
    with running(box, script, ResourceLimits(memory=100 << 20)) as sandbox:
        sandbox.release()
        out, _ = sandbox.process.communicate(timeout=120)
        killed = list(sandbox.watchdog.killed())

    assert out == b""
    assert sandbox.process.returncode == 137
    assert [name for name, _ in killed] == ["python3"]


def test_a_process_that_hides_its_memory_is_killed_as_well(box: Box) -> None:
    script = f"import ctypes; ctypes.CDLL(None).prctl(4, 0); kept = bytearray({3 * GIB}); print(1)"
    with running(box, script, ResourceLimits(memory=100 << 20)) as sandbox:
        sandbox.release()
        out, _ = sandbox.process.communicate(timeout=120)

    assert out == b""


def test_memory_that_is_only_reserved_does_not_count(box: Box) -> None:
    script = f"import mmap; kept = mmap.mmap(-1, {3 * GIB}); kept[0] = 1; print('ran')"
    with running(box, script, ResourceLimits(memory=100 << 20)) as sandbox:
        sandbox.release()
        out, _ = sandbox.process.communicate(timeout=120)

    assert out == b"ran\n"


def test_it_looks_more_often_the_nearer_the_limit_is() -> None:
    assert MemoryWatch(1, 64 * GIB).pause_s == 1.0
    assert MemoryWatch(1, GIB).pause_s < 0.2
    assert MemoryWatch(1, 1).pause_s > 0.01


def test_a_sandbox_that_is_gone_uses_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert MemoryWatch(ended.pid, 1).look() is None
