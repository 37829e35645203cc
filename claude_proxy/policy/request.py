"""Request: the facts of one HTTP request that a decision can be about.

Secrets stay outside: fields and query carry credentials, so no repr shows them. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from claude_proxy.wire.authority import Authority

type RawField = tuple[bytes, bytes]  # a header field's name and value, as sent


class Scheme(StrEnum):
    """Whether requests travel inside TLS."""

    HTTPS = "https"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Request:
    """The facts of one HTTP request that a rule can be about."""

    scheme: Scheme
    target: Authority  # where the bytes would go
    host: Authority  # what the Host header or :authority claims
    method: str
    path: str  # origin-form as sent, without the query; "*" for OPTIONS *
    query: str = field(default="", repr=False)  # as sent, without the "?"
    fields: Sequence[RawField] = field(default=(), repr=False, compare=False)
