"""A process notices that its descriptors are nearly used up, and keeps some for the rest."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.system import descriptors

type Limit = Callable[[int], None]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Return a function that says how many files the process may open."""

    def limit(soft: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))

    return limit


@pytest.mark.parametrize(
    ("soft", "for_upstreams", "for_clients"), [(1024, 960, 992), (600, 536, 568), (64, 56, 60)]
)
def test_the_last_descriptors_are_kept(
    limited: Limit, soft: int, for_upstreams: int, for_clients: int
) -> None:
    limited(soft)
    others = 20

    for most, is_room in (
        (for_upstreams - others, descriptors.is_room_for_upstream),
        (for_clients - others, descriptors.is_room_for_client),
    ):
        assert is_room(most - 1, others)
        assert not is_room(most, others)


def test_without_a_limit_none_is_kept(limited: Limit) -> None:
    limited(resource.RLIM_INFINITY)

    assert descriptors.limit() is None
    assert descriptors.is_room_for_upstream(10**6, 0)
    assert descriptors.is_room_for_client(10**6, 0)


def test_the_lowest_free_number_grows_with_each_file() -> None:
    before = descriptors.lowest_free()
    with Path(os.devnull).open():
        opened = descriptors.lowest_free()

    assert opened > before
    assert descriptors.lowest_free() == before


def test_only_a_full_table_is_exhaustion() -> None:
    assert descriptors.are_exhausted(OSError(errno.EMFILE, "too many"))
    assert descriptors.are_exhausted(OSError(errno.ENFILE, "too many"))
    assert not descriptors.are_exhausted(OSError(errno.ECONNREFUSED, "refused"))
