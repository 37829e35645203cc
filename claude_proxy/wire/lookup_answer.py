"""Answer of the proxy to a relay that asks whether a host name may have an address; sans-io.

One line: the ports at which a tunnel to the name is allowed, or that there is none. Law kept: fail
closed. Whatever is not exactly the first means the second. Imports nothing, as the relay uses it.
"""

LIMIT = 1024  # bytes of a line

_ALLOWED = "allowed "
_DENIED = b"denied\n"
_PORT_LIMIT = 65535


def encode(ports: tuple[int, ...]) -> bytes:
    """Return the answer for a name; without ports it is denied."""
    if not ports:
        return _DENIED
    return f"{_ALLOWED}{','.join(map(str, ports))}\n".encode("ascii")


def decode(line: bytes) -> tuple[int, ...]:
    """Return the ports of an answer; none if the name is denied, or the answer is not complete."""
    text = line.decode("ascii", "replace")
    if not text.startswith(_ALLOWED) or not text.endswith("\n"):
        return ()
    words = text[len(_ALLOWED) : -1].split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) <= 5 for word in words):  # noqa: PLR2004
        return ()
    ports = tuple(map(int, words))
    return ports if all(0 < port <= _PORT_LIMIT for port in ports) else ()
