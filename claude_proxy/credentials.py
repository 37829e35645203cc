"""Decides which credential a request may carry, and puts the real one in a placeholder's place.

Laws kept: default-deny (1), secrets stay outside (9). A credential is bound to hosts. On such a host
nothing passes that authenticates as somebody else; a placeholder passes nowhere else. Pure: what the
sources hold at the moment is handed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from claude_proxy.patterns import HostPattern
from claude_proxy.reason import Reason
from claude_proxy.request import Request
from claude_proxy.secret import Secret
from claude_proxy.source import Source

HTTPS_PORT = 443


# --- where values come from


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """A variable of the proxy's own environment."""

    name: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of the owner's alone; with `keys`, a value inside its JSON."""

    path: Path
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandSource:
    """What a command prints; asked again every `refresh_s` seconds, and after a 401."""

    argv: tuple[str, ...]
    refresh_s: float = 300.0


@dataclass(frozen=True, slots=True)
class KeyringSource:
    """An entry of the system's keyring."""

    service: str
    user: str


@dataclass(frozen=True, slots=True)
class SystemdSource:
    """A credential that the service manager hands over (systemd.exec(5), LoadCredential=)."""

    name: str


@dataclass(frozen=True, slots=True)
class DotenvSource:
    """A variable of a .env file, which is read for it alone."""

    path: Path
    name: str


type SecretSource = (
    EnvironmentSource
    | FileSource
    | CommandSource
    | KeyringSource
    | SystemdSource
    | DotenvSource
)


# --- what becomes of them


class Form(StrEnum):
    """How a value is put into a request."""

    AUTO = "auto"  # x-api-key for a console key of Anthropic's, bearer for an OAuth token
    X_API_KEY = "x-api-key"
    BEARER = "bearer"  # RFC 6750
    BASIC = "basic"  # RFC 7617, with `user`
    FIELD = "field"  # the bare value in the field `name`


@dataclass(frozen=True, slots=True)
class Injection:
    """The client sends a placeholder or nothing; the real value is put in."""

    source: SecretSource
    form: Form = Form.AUTO
    name: str = ""  # of the field, for Form.FIELD, in lower case
    user: str = ""  # for Form.BASIC
    placeholder: str = ""  # what the client may send in its place; "" none
    variables: tuple[str, ...] = ()  # what a sandbox finds the placeholder in
    # Of the gateway alone: what the client authenticates with is for the gateway, so it is taken out
    # and not a reason to deny.
    strips: bool = False
    plain: bool = False  # of a gateway whose upstream is this machine: without TLS


@dataclass(frozen=True, slots=True)
class Pin:
    """The client keeps its own login, and no other passes."""

    learn: bool = False  # the first that is used
    digests: tuple[str, ...] = ()  # given ones, "sha256:SALT:DIGEST" in hex
    source: SecretSource | None = None  # a given one by its value


@dataclass(frozen=True, slots=True)
class Binding:
    """One entry of `credentials`: which hosts it is for, and what becomes of it there."""

    name: str
    patterns: tuple[HostPattern, ...]
    use: Injection | Pin
    source: Source
    ports: frozenset[int] = frozenset({HTTPS_PORT})


@dataclass(frozen=True, slots=True)
class Pinned:
    """The logins that may pass, none of them known: salted hashes."""

    logins: frozenset[tuple[bytes, bytes]]  # salt and digest
    learning: bool = False  # there is none yet, and the first will be it
    salt: bytes = b""  # for the one that is learned


# What is known now of each binding, by name; None: its source gives nothing, so nothing passes.
type Holdings = Mapping[str, Secret | Pinned | None]


@dataclass(frozen=True, slots=True)
class Custody:
    """What the credentials say about one request."""

    reason: Reason | None = None  # why it is denied; None: it may go
    drop: frozenset[bytes] = frozenset()  # fields that do not go upstream, in lower case
    extra: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)  # fields that are put in
    guarded: tuple[bytes, ...] = field(default=(), repr=False)  # what the answer must not hold
    credential: str | None = None  # the binding that it passes by
    learned: tuple[bytes, bytes] | None = field(
        default=None, repr=False
    )  # salt, digest; to be pinned


FREE = Custody()  # of a request that no binding has a word about


def custody_of(bindings: Sequence[Binding], request: Request, holdings: Holdings) -> Custody:
    """Decide about the credentials in `request`, and which are put in."""
    raise NotImplementedError
