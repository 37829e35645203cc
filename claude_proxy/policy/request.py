"""Request: the parts of an HTTP request head that a decision depends on.

Secrets stay outside: fields and query may hold credentials, so the repr does not show them. Pure.
"""

from collections.abc import Sequence
from dataclasses import field
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.wire.authority import Authority

type RawField = tuple[bytes, bytes]  # a header field's name and value, as sent


class Scheme(StrEnum):
    """Whether requests are sent inside TLS."""

    HTTPS = "https"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as rules and restrictions see it."""

    scheme: Scheme
    target: Authority  # where it would be sent
    host: Authority  # what the Host header or :authority claims
    method: str
    path: str  # origin-form as sent, without the query; "*" for OPTIONS *
    query: str = field(default="", repr=False)  # as sent, without the "?"
    fields: Sequence[RawField] = field(default=(), repr=False, compare=False)
