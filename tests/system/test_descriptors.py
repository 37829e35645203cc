"""A process notices that its descriptors are nearly used up, and keeps some for the rest."""

import errno
import resource
from collections.abc import Callable

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
    ("soft", "last_for_upstreams", "last_for_clients"),
    [(1024, 959, 991), (600, 535, 567), (64, 55, 59)],
)
def test_the_last_descriptors_are_kept(
    limited: Limit, soft: int, last_for_upstreams: int, last_for_clients: int
) -> None:
    limited(soft)

    for last, for_client in ((last_for_upstreams, False), (last_for_clients, True)):
        assert not descriptors.is_last_but_kept(last, for_client=for_client)
        assert descriptors.is_last_but_kept(last + 1, for_client=for_client)


def test_without_a_limit_none_is_kept(limited: Limit) -> None:
    limited(resource.RLIM_INFINITY)

    assert descriptors.limit() is None
    assert not descriptors.is_last_but_kept(10**6)


def test_only_a_full_table_is_exhaustion() -> None:
    assert descriptors.are_exhausted(OSError(errno.EMFILE, "too many"))
    assert descriptors.are_exhausted(OSError(errno.ENFILE, "too many"))
    assert not descriptors.are_exhausted(OSError(errno.ECONNREFUSED, "refused"))
