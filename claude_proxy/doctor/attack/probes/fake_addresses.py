"""Fake address probes: what a sandbox with `--transparent on` could do with names and addresses.

Without it there is no address for any name, and no route to the pool; then the same tries show
that.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

from claude_proxy.doctor.attack.probes.outcome import (
    NAMESPACE,
    POLICY,
    PROXY_S,
    Spec,
    Try,
    refused,
    stopped,
    through,
)
from claude_proxy.doctor.attack.probes.proxy_client import trusting_context

_A, _TXT = 1, 16
_RESOLVER = ("127.0.0.1", 53)
_TRIES = 100  # names that are made up
_MOST_NAMES = 64  # that a run may have below one wildcard; see `proxy.name_limits`
_POOL = ("198.18.255.254", "198.19.0.1", "198.19.255.254")  # given to no name
_OTHER_END = "192.0.0.9"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def fake_addresses(spec: Spec) -> Iterator[Try]:
    """Carry data in names below an allowed wildcard, and reach what no name stands for."""
    base: str = spec.get("names") or spec["denied_host"]  # elsewhere nothing has such a wildcard
    yield _many_names(base)
    for size in (24, 41, 60):
        name = f"{_random(size)}.{base}"
        yield _unknown(f"a label of {size} random letters", name)
    yield _unknown("data in a denied name", f"{_random(20)}.{spec['denied_host']}")
    host, port = spec["allowed"]
    yield _text_record(host)
    for address in (*_POOL, _OTHER_END):
        yield _address(address, port)
    yield from _given_address(host, port, spec["denied_host"])


def _many_names(base: str) -> Try:
    what = f"{_TRIES} new names below *.{base}"
    found = sum(bool(address_of(f"{_random(8)}.{base}")) for _ in range(_TRIES))
    if found > _MOST_NAMES:
        return through(what, f"{found} have an address")
    return stopped(what, POLICY if found else NAMESPACE, f"{found} have an address")


def _unknown(what: str, name: str) -> Try:
    found = address_of(name)
    return through(what, f"it has {found}") if found else stopped(what, POLICY, "no such name")


def _text_record(host: str) -> Try:
    what = f"a text record of {host}"
    answer = _asked(host, _TXT)
    if any(answer[6:12]):
        return through(what, f"an answer of {len(answer)} bytes")
    return stopped(what, NAMESPACE, "no record")


def _given_address(host: str, port: int, other: str) -> Iterator[Try]:
    """Use the address of an allowed name for another name, port and protocol."""
    address = address_of(host)
    if not address:
        yield stopped(f"the address of {host}", NAMESPACE, "no such name")
        return
    yield _address(address, port + 1 if port < 65535 else port - 1)  # noqa: PLR2004 - ports
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PROXY_S)
        what = f"UDP to the address of {host}"
        try:
            sock.connect((address, port))
            sock.send(b"?")
            yield through(what, f"an answer of {len(sock.recv(512))} bytes")
        except TimeoutError:
            yield through(what, "a datagram was sent, and there was no answer")
        except OSError as problem:
            yield refused(what, problem)
    yield _other_name(address, port, other)
    yield _plain_bytes(address, port)


def _address(address: str, port: int) -> Try:
    """Connect to an address; only an answer, or silence, is a way through."""
    what = f"{address}:{port}"
    try:
        with socket.create_connection((address, port), PROXY_S) as sock:
            sock.sendall(b"\r\n")
            got = sock.recv(64)
    except TimeoutError:
        return through(what, "connected, and nobody answered")
    except OSError as problem:
        return refused(what, problem)
    return through(what, f"answered {got!r}") if got else stopped(what, POLICY, "closed")


def _other_name(address: str, port: int, other: str) -> Try:
    what = "another name in TLS (SNI) at an address"
    try:
        with (
            socket.create_connection((address, port), PROXY_S) as sock,
            trusting_context().wrap_socket(sock, server_hostname=other),
        ):
            return through(what, "a handshake")
    except TimeoutError:
        return through(what, "not denied in time")
    except (ssl.SSLError, ConnectionError):
        return stopped(what, POLICY, "closed")


def _plain_bytes(address: str, port: int) -> Try:
    what = "no TLS at an address"
    with suppress(ConnectionError), socket.create_connection((address, port), PROXY_S) as sock:
        sock.sendall(b"SSH-2.0-doctor\r\n")
        if got := sock.recv(64):
            return through(what, f"answered {got!r}")
    return stopped(what, POLICY, "closed")


def address_of(name: str) -> str:
    """Return the address that the sandbox's own resolver gives a name; "" if none."""
    answer = _asked(name, _A)
    if int.from_bytes(answer[6:8]) == 0:
        return ""
    return socket.inet_ntoa(answer[-4:])


def _asked(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PROXY_S)
        try:
            sock.connect(_RESOLVER)
            sock.send(query + kind.to_bytes(2) + b"\0\1")
            return sock.recv(512)
        except OSError:
            return bytes(12)


def _random(size: int) -> str:
    return "".join(_LETTERS[byte % 32] for byte in os.urandom(size))
