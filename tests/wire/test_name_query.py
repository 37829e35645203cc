"""A DNS query is read, and answered that there is no such name; nothing else is answered so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire import name_query

A, AAAA = 1, 28


def query(name: str, kind: int = A, *, flags: int = 0x0100, more: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    head = b"\x12\x34" + flags.to_bytes(2) + b"\0\1" + bytes(6)
    return head + labels + b"\0" + kind.to_bytes(2) + b"\0\1" + more


def test_a_query_names_what_it_asks_for() -> None:
    found = name_query.parse(query("WWW.Example.COM", AAAA))

    assert (found.name, found.kind) == ("www.example.com", AAAA)


def test_the_answer_is_that_there_is_no_such_name() -> None:
    # With an OPT record after the question, as most resolvers send it.
    answer = name_query.answer(query("www.example", more=b"\0\0\x29" + bytes(8)))

    assert answer[:2] == b"\x12\x34"
    assert int.from_bytes(answer[2:4]) == 0x8183  # QR, RD, RA, RCODE 3
    assert answer[4:12] == b"\0\1" + bytes(6)
    assert answer[12:] == query("www.example")[12:]


def test_a_label_that_is_no_host_name_is_escaped() -> None:
    message = query("x").replace(b"\1x", b"\3a.\n")

    assert name_query.parse(message).name == "a\\046\\010"


def test_the_longest_name_is_read() -> None:
    name = ".".join(["x" * 63] * 3 + ["x" * 61])  # 255 octets with all lengths

    assert name_query.parse(query(name)).name == name


UNREADABLE = {
    "no question": query("a")[:4] + bytes(8),
    "two questions": query("a")[:4] + b"\0\2" + query("a")[6:],
    "a notification": query("a", flags=0x2400),
    "a name without an end": query("example")[:15],
    "a label cut short": query("")[:12] + b"\x3fabc",
    "a compressed name": query("")[:12] + b"\xc0\x0c\0\1\0\1",
    "a name of 256 octets": query(".".join(["x" * 63] * 3 + ["x" * 62])),
    "a question cut short": query("a")[:-3],
}


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_query_for_one_name_is_a_format_error(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        name_query.parse(message)

    assert name_query.answer(message) == b"\x12\x34\x80\x81" + bytes(8)


@pytest.mark.parametrize("message", [b"", bytes(11), query("a", flags=0x8180)])
def test_an_answer_or_less_than_a_header_is_not_answered(message: bytes) -> None:
    assert name_query.answer(message) == b""


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_briefly_or_not_at_all(message: bytes) -> None:
    answer = name_query.answer(message)

    assert len(answer) <= max(len(message), 12)
    assert not answer or answer[2] & 0x80


ADDRESS = bytes((198, 18, 0, 1))


def test_an_address_is_one_record_about_the_name_of_the_question() -> None:
    message = query("www.example", more=b"\0\0\x29" + bytes(8))
    answer = name_query.address_answer(message, name_query.parse(message), ADDRESS)

    assert int.from_bytes(answer[2:4]) == 0x8180  # QR, RD, RA, no error
    assert answer[4:12] == b"\0\1\0\1" + bytes(4)
    question = query("www.example")[12:]
    assert answer[12 : 12 + len(question)] == question
    record = answer[12 + len(question) :]
    assert record[:6] == b"\xc0\x0c\0\1\0\1"
    assert record[10:] == b"\0\4" + ADDRESS


@pytest.mark.parametrize("kind", [AAAA, 5, 16, 33, 65])
def test_a_name_with_an_address_has_no_other_records(kind: int) -> None:
    message = query("www.example", kind)
    answer = name_query.address_answer(message, name_query.parse(message), ADDRESS)

    assert int.from_bytes(answer[2:4]) & 0xF == 0
    assert answer[4:] == b"\0\1" + bytes(6) + message[12:]


def test_another_class_than_the_internets_has_no_address() -> None:
    message = query("www.example")[:-2] + b"\0\3"

    assert name_query.address_answer(message, name_query.parse(message), ADDRESS)[6:8] == b"\0\0"


def test_a_failure_is_not_that_there_is_no_such_name() -> None:
    message = query("www.example")

    assert name_query.failure(message, name_query.parse(message))[3] & 0xF == 2
