"""Nothing is collected while much is made that stays, and everything is afterwards."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from claude_proxy.system import collection


class Ring:
    """Something that only a collection can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_a_pause_and_it_is_after_one() -> None:
    with collection.paused():
        assert not gc.isenabled()
        with collection.paused():
            pass
        assert not gc.isenabled()

    assert gc.isenabled()


def test_a_pause_ends_with_what_raises_in_it() -> None:
    with pytest.raises(KeyError), collection.paused():
        raise KeyError

    assert gc.isenabled()


def test_what_exists_is_spared_and_what_is_made_later_is_collected() -> None:
    with collection.paused():
        before = weakref.ref(Ring())
        collection.spare_what_exists()
        assert gc.isenabled()
        after = weakref.ref(Ring())

    gc.collect()

    assert (before() is None, after() is None) == (False, True)
