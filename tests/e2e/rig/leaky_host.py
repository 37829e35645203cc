"""Gives back the credential that it was sent, in every way that an answer can hold it."""

import base64
import gzip
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import brotli

from .origin import Exchange, Talk

_FILLING = b"there is nothing in this line that anybody would want to hide\n" * 2000
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def leaky_host(exchange: Exchange, talk: Talk) -> None:
    """Answer in the way that the path names."""
    talk.drain(exchange)
    sent = exchange.header("x-api-key") or exchange.header("Authorization") or "nothing"
    value = sent.removeprefix("Bearer ").encode()
    WAYS[urlsplit(exchange.target).path.strip("/")](value, talk)


def _chunked(talk: Talk, pieces: Iterator[bytes], *fields: bytes, trailer: bytes = b"") -> None:
    lines = b"".join(field + b"\r\n" for field in fields)
    talk.send(_OK + lines + b"Transfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        talk.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    talk.send(b"0\r\n" + trailer + b"\r\n")


def _bytes_of(data: bytes) -> Iterator[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


def _whole(talk: Talk, body: bytes, *fields: str) -> None:
    talk.answer("200 OK", body, "Content-Type: text/plain", *fields)


def _around(value: bytes) -> bytes:
    return b"you are " + value + b", aren't you?"


def _until_closed(value: bytes, talk: Talk) -> None:
    talk.send(_OK + b"\r\n" + _around(value))
    talk.over = True


WAYS: dict[str, Callable[[bytes, Talk], None]] = {
    "header": lambda value, talk: _whole(talk, b"see above", f"X-You-Are: {value.decode()}"),
    "phrase": lambda value, talk: talk.answer(f"401 Unknown key {value.decode()}"),
    "body": lambda value, talk: _whole(talk, _around(value)),
    "body-until-closed": _until_closed,
    "one-byte-chunks": lambda value, talk: _chunked(talk, _bytes_of(_around(value))),
    "far-behind": lambda value, talk: _whole(talk, _FILLING + _around(value)),
    "trailer": lambda value, talk: _chunked(
        talk, iter([b"see below"]), trailer=b"X-You-Are: " + value + b"\r\n"
    ),
    "base64": lambda value, talk: _whole(talk, _around(base64.b64encode(value))),
    "percent": lambda value, talk: _whole(talk, _around(quote(value, safe="").encode())),
    "json": lambda value, talk: _whole(talk, _around(value.replace(b"/", b"\\/"))),
    "json-by-numbers": lambda value, talk: _whole(
        talk, _around(value.replace(b"+", b"\\u002B").replace(b"=", b"\\u003D"))
    ),
    "html": lambda value, talk: _whole(
        talk, _around(value.replace(b"+", b"&#43;").replace(b"=", b"&#x3D;"))
    ),
    "hexadecimal": lambda value, talk: _whole(talk, _around(value.hex().encode())),
    "gzip": lambda value, talk: _whole(
        talk, gzip.compress(_FILLING + _around(value)), "Content-Encoding: gzip"
    ),
    "gzip-one-byte-chunks": lambda value, talk: _chunked(
        talk, _bytes_of(gzip.compress(_around(value))), b"Content-Encoding: gzip"
    ),
    "brotli": lambda value, talk: _whole(
        talk, brotli.compress(_around(value)), "Content-Encoding: br"
    ),
}
