"""An answer has ports, or means that there are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire import lookup_answer


@pytest.mark.parametrize("ports", [(), (443,), (80, 443, 65535)])
def test_an_answer_is_read_as_it_was_written(ports: tuple[int, ...]) -> None:
    assert lookup_answer.decode(lookup_answer.encode(ports)) == ports


def test_the_most_ports_fit_a_line() -> None:
    assert len(lookup_answer.encode((65535,) * 64)) <= lookup_answer.LIMIT


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"allowed 443",
        b"allowed \n",
        b"allowed 0\n",
        b"allowed 65536\n",
        b"allowed 4\xc2\xb2\n",
        b"allowed -1\n",
        b"allowed 443,\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_is_not_an_answer_allows_nothing(line: bytes) -> None:
    assert lookup_answer.decode(line) == ()


@given(st.binary())
def test_any_bytes_are_read_without_an_error(line: bytes) -> None:
    assert isinstance(lookup_answer.decode(line), tuple)
