"""Memory is returned to the system after many connections have closed, and not all the time."""

import platform

import pytest

from claude_proxy.system.malloc_trim import MemoryTrimmer, keep_buffers, trim


@pytest.mark.parametrize(
    ("seen", "acts"),
    [
        ([0, 0, 0], ""),
        ([0, 1, 2, 1, 1], ""),  # not worth it
        ([0, 2000, 2000, 1500, 1500], ""),  # most are still there
        ([0, 2000, 400], ""),  # the next look will do
        ([0, 2000, 400, 400, 400], "collect trim"),
        ([0, 2000, 400, 2000, 2000], ""),
        ([0, 2000, 400, 400, 100, 100], "collect trim collect trim"),  # it had left a crowd
        ([0, 10, 0, 0, 0], "trim"),  # nobody is there to wait
        ([0, 10, 0, 10, 0, 10], ""),
        ([0, 2000, 100, 100, 0, 0], "collect trim trim"),
    ],
)
def test_memory_is_trimmed_when_most_of_many_connections_have_closed(
    seen: list[int], acts: str
) -> None:
    acted: list[str] = []
    crowd = MemoryTrimmer(lambda: acted.append("collect"), lambda: acted.append("trim"))

    for connections in seen:
        crowd.look(connections)

    assert " ".join(acted) == acts


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_memory_for_the_next_read_is_kept() -> None:
    assert keep_buffers()


def test_trimming_works_wherever_this_runs() -> None:
    trim()
