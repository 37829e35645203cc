"""Laws of the ClientHello: read completely or not at all, and in one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.client_hello import (
    ClientHello,
    HelloReader,
    HelloUnreadableError,
    is_retry_request,
    skip_change_cipher_spec,
    starts_like_tls,
)
from tests.wire.hellos import (
    ALPN,
    CHANGE_CIPHER_SPEC,
    ENCRYPTED,
    SERVER_NAME,
    alpn,
    extensions_of,
    hello,
    message,
    real_hello,
    records,
    retry_request,
    server_hello,
    sized,
    sni,
)

EXAMPLE = hello(sni(b"example.com"), alpn(b"h2", b"http/1.1"))
READ = ClientHello("example.com", (b"h2", b"http/1.1"), encrypted=False)


def read(data: bytes) -> ClientHello | None:
    return HelloReader().feed(data)


def read_in_pieces(data: bytes, size: int) -> ClientHello | None:
    reader = HelloReader()
    found = None
    for at in range(0, len(data), size):
        assert found is None, "a hello was complete before its last byte"
        found = reader.feed(data[at : at + size])
    assert bytes(reader.raw) == data
    return found


# --- what a hello says


def test_a_hello_has_a_server_name_and_protocols() -> None:
    assert read(records(EXAMPLE)) == READ


def test_a_real_hello_is_read() -> None:
    assert read(real_hello("example.com", "h2", "http/1.1")) == READ


def test_a_real_hello_without_a_name_is_read() -> None:
    assert read(real_hello(None)) == ClientHello(None, (), encrypted=False)


def test_a_hello_without_extensions_names_nobody() -> None:
    assert read(records(message(b""))) == ClientHello(None, (), encrypted=False)


def test_a_name_stays_as_it_was_sent() -> None:
    found = read(records(hello(sni(b"EXAMPLE.com."))))

    assert found is not None
    assert found.sni == "EXAMPLE.com."


def test_an_encrypted_inner_hello_is_noticed() -> None:
    found = read(records(hello(sni(b"outer.example"), (ENCRYPTED, b"\x00"))))

    assert found is not None
    assert found.encrypted


# --- however it is cut


@pytest.mark.parametrize("record_size", [1, 2, 5, 40, 1 << 14])
@pytest.mark.parametrize("segment_size", [1, 3, 1460])
def test_no_cut_hides_the_name(record_size: int, segment_size: int) -> None:
    assert read_in_pieces(records(EXAMPLE, record_size), segment_size) == READ


def test_there_is_no_result_before_the_last_byte() -> None:
    reader = HelloReader()
    data = records(EXAMPLE)

    assert all(reader.feed(bytes([byte])) is None for byte in data[:-1])
    assert reader.feed(data[-1:]) == READ


def test_bytes_in_a_later_record_are_kept_for_the_next_layer() -> None:
    reader = HelloReader()
    data = records(EXAMPLE) + b"\x17\x03\x03early data"

    assert reader.feed(data) == READ
    assert bytes(reader.raw) == data


# --- what is not one hello

CUT_SHORT = sized(b"\x00\x00\x00\x09x")  # an extension that says it has more than there is


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(records(message(b"", kind=2)), id="not a ClientHello"),
        pytest.param(b"\x17\x03\x03\x00\x01x", id="application data"),
        pytest.param(b"\x16\x02\x00\x00\x01\x01", id="SSL 2"),
        pytest.param(b"\x16\x03\x01\x00\x00", id="an empty record"),
        pytest.param(b"\x16\x03\x01\x40\x01", id="an overlong record"),
        pytest.param(records(EXAMPLE, 40)[:45] + b"\x17\x03\x03\x00\x01x", id="changes its mind"),
        pytest.param(records(EXAMPLE + b"x"), id="trailing bytes"),
        pytest.param(records(EXAMPLE + EXAMPLE), id="two hellos in a record"),
        pytest.param(records(b"\x01\x00\x80\x01"), id="too long"),
        pytest.param(records(hello(sni(b"a.example"), sni(b"b.example"))), id="two extensions"),
        pytest.param(records(hello((99, b""), (99, b""))), id="any extension twice"),
        pytest.param(records(hello(sni(b"a.example", b"b.example"))), id="two names"),
        pytest.param(records(hello(sni(b""))), id="an empty name"),
        pytest.param(records(hello(sni())), id="no name in the extension"),
        pytest.param(records(hello(sni(b"a.example", kind=1))), id="a name of another kind"),
        pytest.param(records(hello(sni(b"\xc3\xa9.example"))), id="a name that is not ASCII"),
        pytest.param(records(hello((SERVER_NAME, b""))), id="an empty name extension"),
        pytest.param(records(hello((SERVER_NAME, b"\x00\x03\x00\x00\x09"))), id="a short name"),
        pytest.param(records(hello((ALPN, b"\x00\x09\x02h2"))), id="a protocol list too short"),
        pytest.param(records(hello((ALPN, b"\x00\x03\x09h2"))), id="a protocol cut short"),
        pytest.param(records(hello((ALPN, b"\x00\x01\x00"))), id="an empty protocol"),
        pytest.param(records(hello((ALPN, b""))), id="an empty protocol extension"),
        pytest.param(records(message(CUT_SHORT)), id="an extension cut short"),
        pytest.param(records(message(extensions_of() + b"x")), id="bytes after the extensions"),
        pytest.param(records(message(b"\x00")), id="half a size"),
        pytest.param(records(message(b"\x00\x05")), id="extensions cut short"),
        pytest.param(records(b"\x01" + sized(b"\x03\x03", 3)), id="cut after the version"),
    ],
)
def test_anything_but_one_valid_hello_is_unreadable(data: bytes) -> None:
    with pytest.raises(HelloUnreadableError):
        read(data)


@given(data=st.binary(max_size=200), framed=st.booleans())
def test_any_bytes_are_read_or_refused_as_a_hello(data: bytes, *, framed: bool) -> None:
    reader = HelloReader()
    try:
        reader.feed(records(b"\x01" + sized(data, 3)) if framed else data)
    except HelloUnreadableError:
        assert reader.raw


@given(st.data())
def test_a_hello_with_a_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    changed = bytearray(records(EXAMPLE))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(changed))
    except HelloUnreadableError:
        return

    assert found is None or isinstance(found, ClientHello)


# --- the first bytes


@pytest.mark.parametrize(
    ("data", "is_tls"),
    [
        (b"", None),
        (b"\x16", None),
        (b"\x16\x03", True),
        (b"\x16\x03\x01\x02\x00", True),
        (b"\x16\x02", False),
        (b"G", False),
        (b"SSH-2.0", False),
        (b"\x80\x2e\x01", False),
    ],
)
def test_tls_is_recognised_by_its_first_two_bytes(data: bytes, *, is_tls: bool | None) -> None:
    assert starts_like_tls(data) is is_tls


@pytest.mark.parametrize(
    ("data", "skipped"),
    [
        (b"", None),
        (b"\x16\x03", 0),
        (CHANGE_CIPHER_SPEC[:3], None),
        (CHANGE_CIPHER_SPEC, 6),
        (CHANGE_CIPHER_SPEC + b"\x16", 6),
        (b"\x14\x03\x03\x00\x20\x01", 0),
        (b"\x14\x03\x03\x00\x01\x02", 0),
        (b"\x14\x02", 0),
    ],
)
def test_only_the_one_record_of_compatibility_is_skipped(data: bytes, skipped: int | None) -> None:
    """Another record of its type could hide a second hello from us and not from the server."""
    assert skip_change_cipher_spec(data) == skipped


@pytest.mark.parametrize(
    ("data", "asks"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x28", False),
        (b"", False),
        (retry_request()[:10], None),
        (retry_request()[:42], None),
        (retry_request()[:43], True),
        (retry_request(), True),
        (server_hello(), False),
    ],
)
def test_a_request_for_a_second_hello_is_known_by_its_random(
    data: bytes, *, asks: bool | None
) -> None:
    assert is_retry_request(data) is asks
