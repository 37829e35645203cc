"""DNS queries: the name that is asked for, and the answers of a listener that resolves nothing.

Sans-io (RFC 1035). Law kept: silence before allow. That there is no such name is NXDOMAIN, which C
libraries report at once as an unknown name; after REFUSED or SERVFAIL they ask again and call the
failure a temporary one.
"""

NAME_LIMIT = 255  # octets, section 2.3.4
MESSAGE_LIMIT = 512  # octets over UDP, section 2.3.4

_HEAD = 12
_LABEL_LIMIT = 63
_QUERY_MASK = 0xF800  # QR and OPCODE: a standard query has none of these bits
_RECURSION_DESIRED = 0x0100
_NO_SUCH_NAME = 0x8083  # QR, RA, RCODE 3
_FORMAT_ERROR = 0x8081  # QR, RA, RCODE 1
_FAILURE = 0x8082  # QR, RA, RCODE 2
_FOUND = 0x8080  # QR, RA
_A, _ANY, _INTERNET = 1, 255, 1
_NAME_OF_QUESTION = 0xC000 | _HEAD  # a pointer, section 4.1.4
_TTL_S = 60


class NameQuery:
    """One question: a name in lower case without its final dot, and the type of record."""

    # Not a dataclass: the relay starts without importing dataclasses.
    __slots__ = ("end", "kind", "name")

    def __init__(self, name: str, kind: int, end: int) -> None:
        self.name = name
        self.kind = kind  # QTYPE
        self.end = end  # where the question ends in the message


def parse(message: bytes) -> NameQuery:
    """Return the only question of a standard query; ValueError for any other message."""
    if len(message) < _HEAD:
        raise ValueError("shorter than a header")
    flags = int.from_bytes(message[2:4])
    if flags & _QUERY_MASK or int.from_bytes(message[4:6]) != 1:
        raise ValueError("not a standard query with one question")
    labels: list[str] = []
    at = _HEAD
    while size := _octet(message, at):
        if size > _LABEL_LIMIT or at + 1 + size + 1 - _HEAD > NAME_LIMIT:
            raise ValueError("a compressed or overlong name")
        label = message[at + 1 : at + 1 + size]
        if len(label) < size:
            raise ValueError("a label that is cut short")
        labels.append(_shown(label))
        at += 1 + size
    end = at + 1 + 4  # the root's label, QTYPE, QCLASS
    if len(message) < end:
        raise ValueError("a question that is cut short")
    return NameQuery(".".join(labels), int.from_bytes(message[at + 1 : at + 3]), end)


def answer(message: bytes) -> bytes:
    """Return the answer that no such name exists, or that the message is no query.

    Empty for what must not be answered: an answer, or less than a header.
    """
    if len(message) < _HEAD or message[2] & 0x80:
        return b""
    try:
        query = parse(message)
    except ValueError:
        return message[:2] + _FORMAT_ERROR.to_bytes(2) + bytes(8)
    return _reply(message, query, _NO_SUCH_NAME)


def failure(message: bytes, query: NameQuery) -> bytes:
    """Return the answer that nothing is known now, so that a client asks again."""
    return _reply(message, query, _FAILURE)


def address_answer(message: bytes, query: NameQuery, address: bytes) -> bytes:
    """Return the answer that a name has one IPv4 address, and no record of any other type.

    A client that asks for IPv6 addresses as well then takes this one.
    """
    if (
        query.kind not in (_A, _ANY)
        or int.from_bytes(message[query.end - 2 : query.end]) != _INTERNET
    ):
        return _reply(message, query, _FOUND)
    head = (_NAME_OF_QUESTION, _A, _INTERNET)
    record = b"".join(number.to_bytes(2) for number in head) + _TTL_S.to_bytes(4)
    return _reply(message, query, _FOUND, record + len(address).to_bytes(2) + address)


def _reply(message: bytes, query: NameQuery, flags: int, record: bytes = b"") -> bytes:
    flags |= int.from_bytes(message[2:4]) & _RECURSION_DESIRED
    counts = b"\0\1" + (b"\0\1" if record else b"\0\0") + bytes(4)
    return message[:2] + flags.to_bytes(2) + counts + message[_HEAD : query.end] + record


def _octet(message: bytes, at: int) -> int:
    if at >= len(message):
        raise ValueError("a name without an end")
    return message[at]


def _shown(label: bytes) -> str:
    """Return a label as zone files write it: what is no host name as its decimal (section 5.1)."""
    plain = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(chr(c) if c in plain else f"\\{c:03}" for c in label.lower())
