"""The laws of chained inspectors: each sees what the one before passes on, and nothing is lost."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.inspection.base import InspectorChain, ResponseCutOff


class Keeper:
    """An inspector that keeps some bytes back until the end, and ends at one that it looks for."""

    def __init__(self, keeps: int = 0, forbidden: bytes = b"\xff") -> None:
        self.heads: list[int] = []
        self._keeps = keeps
        self._forbidden = forbidden
        self._kept = b""

    def head(self, status: int, fields: Sequence[RawField]) -> None:
        self.heads.append(status + len(fields))

    def feed(self, data: bytes) -> bytes:
        if self._forbidden in data:
            raise ResponseCutOff("forbidden")
        self._kept += data
        cut = max(0, len(self._kept) - self._keeps)
        out, self._kept = self._kept[:cut], self._kept[cut:]
        return out

    def finish(self) -> bytes:
        out, self._kept = self._kept, b""
        return out


@given(
    st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\xff", b""))),
    st.lists(st.integers(0, 5), max_size=4),
)
def test_content_comes_through_whole_and_in_order(pieces: list[bytes], keeps: list[int]) -> None:
    chain = InspectorChain([Keeper(count) for count in keeps])

    out = b"".join(chain.feed(piece) for piece in pieces) + chain.finish()

    assert out == b"".join(pieces)


def test_every_inspector_sees_the_head() -> None:
    inspectors = [Keeper(), Keeper()]

    InspectorChain(inspectors).head(200, [(b"a", b"b")])

    assert [each.heads for each in inspectors] == [[201], [201]]


@pytest.mark.parametrize("place", [0, 1])
def test_any_inspector_may_end_the_response(place: int) -> None:
    inspectors = [Keeper(3), Keeper(3)]
    inspectors[place] = Keeper(0, b"!")
    chain = InspectorChain(inspectors)

    with pytest.raises(ResponseCutOff) as caught:
        b"".join([chain.feed(b"fine"), chain.feed(b"no!"), chain.finish()])

    assert caught.value.word == "forbidden"
