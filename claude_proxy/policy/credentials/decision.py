"""Decides which credential a request may carry, and puts the real one in a placeholder's place.

Laws kept: default-deny (1), secrets stay outside (9). A credential is bound to hosts. On such a
host nothing passes that authenticates as somebody else; a placeholder passes nowhere else. Pure:
what the sources hold at the moment is handed in.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from claude_proxy.policy.credentials.detection import (
    COOKIE,
    PATH,
    QUERY,
    Field,
    Login,
    digest_of,
    field_place,
    find_logins,
)
from claude_proxy.policy.credentials.placeholders import STEM, Placeholders, guarded_forms, raw_of
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.location import Source
from claude_proxy.policy.patterns import HostPattern, folded
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

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
    EnvironmentSource | FileSource | CommandSource | KeyringSource | SystemdSource | DotenvSource
)


def name_of(source: SecretSource) -> str:
    """Return what a source is called in messages; nothing in it is secret."""
    match source:
        case EnvironmentSource(name):
            return f"environment variable {name}"
        case DotenvSource(path, name):
            return f"{name} in {path}"
        case FileSource(path, keys):
            return f"file {path}" + (f", key {'.'.join(keys)}" if keys else "")
        case CommandSource(argv):
            # Not its arguments: they may hold what should not be in them.
            return f"command {argv[0]}"
        case KeyringSource(service, user):
            return f"keyring entry {service} of {user}"
        case SystemdSource(name):
            return f"systemd credential {name}"


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
    # Of the gateway alone: what the client authenticates with is for the gateway, so it is taken
    # out and not a reason to deny.
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
    source: Source = field(compare=False)  # a line added above it changes nothing
    ports: frozenset[int] = frozenset({HTTPS_PORT})


@dataclass(frozen=True, slots=True)
class Pinned:
    """The logins that may pass, none of them known: salted hashes."""

    logins: frozenset[tuple[bytes, bytes]]  # salt and digest
    learning: bool = False  # there is none yet, and the first will be it
    salt: bytes = b""  # for the one that is learned


# What is known now of each binding, by name; None: its source gives nothing, so nothing passes.
type AvailableSecrets = Mapping[str, Secret | Pinned | None]


@dataclass(frozen=True, slots=True)
class CredentialDecision:
    """What the credentials say about one request."""

    reason: Reason | None = None  # why it is denied; None: it may go
    drop: frozenset[bytes] = frozenset()  # fields that do not go upstream, in lower case
    extra: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)  # fields that are put in
    guarded: tuple[bytes, ...] = field(default=(), repr=False)  # what the answer must not hold
    credential: str | None = None  # the binding that it passes by
    learned: tuple[bytes, bytes] | None = field(
        default=None, repr=False
    )  # salt, digest; to be pinned

    def __reduce__(self) -> NoReturn:
        raise TypeError("what holds a secret is not pickled")


NO_CREDENTIAL = CredentialDecision()  # of a request that no binding has a word about
_MISPLACED = CredentialDecision(Reason.PLACEHOLDER_MISPLACED)
_FOREIGN = CredentialDecision(Reason.FOREIGN_CREDENTIAL)
_UNAVAILABLE = CredentialDecision(Reason.CREDENTIAL_UNAVAILABLE)
_MINTING = CredentialDecision(Reason.ENDPOINT_NOT_ALLOWED)
# Where Anthropic makes a login out of another one. With one that is put in, the client would be
# given a login of the owner's that it can read.
_MINTS = ("create_api_key", "api_keys", "oauth/token")


def custody_of(
    bindings: Sequence[Binding], request: Request, holdings: AvailableSecrets
) -> CredentialDecision:
    """Decide about the credentials in `request`, and which are put in."""
    placeholders = _placeholders_of(bindings)
    bound = [binding for binding in bindings if _covers(binding, request.target)]
    if not bound:
        return _MISPLACED if placeholders.in_head(request, request.fields) else NO_CREDENTIAL
    binding = _in_force(bound, request)
    if binding is None:
        # By plain HTTP or at another port there is nobody whom a login could be meant for.
        return _without_logins(bound, request, placeholders)
    if binding is _AMBIGUOUS:
        return _UNAVAILABLE
    held = holdings.get(binding.name)
    if isinstance(binding.use, Pin):
        return _pinned(binding.name, request, placeholders, held)
    return _injected(binding, binding.use, request, placeholders, held)


def _covers(binding: Binding, target: Authority) -> bool:
    # Not any(...): a generator would cost more than the matches.
    for pattern in binding.patterns:  # noqa: SIM110
        if pattern.covers(target):
            return True
    return False


def _in_force(bound: list[Binding], request: Request) -> Binding | None:
    """Return the binding that speaks about the request; None: only that nothing may pass."""
    here = [binding for binding in bound if request.target.port in binding.ports]
    if request.scheme is Scheme.HTTP:
        here = [each for each in here if isinstance(each.use, Injection) and each.use.plain]
    # A gateway's own binding, of its own upstream, stands before those of the allowlist.
    own = [each for each in here if isinstance(each.use, Injection) and each.use.strips]
    here = own or here
    if not here:
        return None
    return here[0] if len(here) == 1 else _AMBIGUOUS


_AMBIGUOUS = Binding("", (), Pin(), Source("", 0, 0))


def _logins_in(request: Request, *also: str) -> list[Login]:
    names = frozenset(field_place(name.encode("latin-1")) for name in also if name)
    return find_logins(raw_of(request.path), raw_of(request.query), request.fields, names)


def _without_logins(
    bound: Iterable[Binding], request: Request, placeholders: Placeholders
) -> CredentialDecision:
    if placeholders.in_head(request, request.fields):
        return _MISPLACED
    # The fields that such a host's bindings name authenticate there too.
    names = [each.use.name for each in bound if isinstance(each.use, Injection)]
    return _FOREIGN if _logins_in(request, *names) else NO_CREDENTIAL


def _repeats(logins: list[Login], fields: Sequence[Field]) -> bool:
    """Tell whether a field that authenticates is there twice: which one counts, who knows."""
    places = {login.place for login in logins} - {COOKIE, QUERY, PATH}
    there = [place for name, _ in fields if (place := field_place(name)) in places]
    return len(there) != len(set(there))


# --- the client's own login


def _pinned(
    name: str, request: Request, placeholders: Placeholders, held: Secret | Pinned | None
) -> CredentialDecision:
    if placeholders.in_head(request, request.fields):
        return _MISPLACED
    logins = _logins_in(request)
    if not logins:
        return NO_CREDENTIAL
    if not isinstance(held, Pinned):
        return _UNAVAILABLE
    if not _repeats(logins, request.fields):
        if all(_is_among(login, held.logins) for login in logins):
            return CredentialDecision(credential=name)
        common = [key for key in logins[0].keys if all(key in login.keys for login in logins)]
        if held.learning and held.salt and common:
            learned = (held.salt, digest_of(held.salt, common[0]))
            return CredentialDecision(credential=name, learned=learned)
    return _FOREIGN


def _is_among(login: Login, known: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        hmac.compare_digest(digest_of(salt, key), digest)
        for salt, digest in known
        for key in login.keys
    )


# --- the value that is put in


def _injected(
    binding: Binding,
    use: Injection,
    request: Request,
    placeholders: Placeholders,
    held: Secret | Pinned | None,
) -> CredentialDecision:
    logins = _logins_in(request, use.name)
    gone = {login.place for login in logins} - {QUERY, PATH}
    denied = _another(use, request, placeholders, logins, gone)
    if denied is not None:
        return denied
    if not isinstance(held, Secret):
        return _UNAVAILABLE
    if _is_anthropic(binding.patterns) and any(mint in folded(request.path) for mint in _MINTS):
        return _MINTING
    value = held.reveal()
    name, sent = _field_of(binding, use, value)
    extra = [(name, sent), (b"Accept-Encoding", b"identity")]
    drop = _WATCHED_IN_FULL | _STANDING_FIELDS | gone | {field_place(name)}
    if sent == b"Bearer " + value and value.startswith(_OAUTH_TOKEN):
        extra.append((b"anthropic-beta", _with_oauth(request.fields)))
        drop |= {_BETA}
    # HTTP/2's fields are compared by the name as sent, so every spelling is named.
    drop |= {each.lower() for each, _ in request.fields if field_place(each) in drop}
    return CredentialDecision(
        drop=frozenset(drop),
        extra=tuple(extra),
        guarded=guarded_forms(value, sent),
        credential=binding.name,
    )


def _another(
    use: Injection,
    request: Request,
    placeholders: Placeholders,
    logins: list[Login],
    gone: Collection[bytes],
) -> CredentialDecision | None:
    """Return why a request is denied for what it authenticates with; None: it is not."""
    staying = [field for field in request.fields if field_place(field[0]) not in gone]
    if placeholders.in_head(request, staying):
        return _MISPLACED
    if any(login.place in {QUERY, PATH} for login in logins):
        return _FOREIGN
    if use.strips:
        return None
    # Where it has its own name for a placeholder, that is said first: it is a mistake to fix.
    for login in logins:
        if not use.placeholder or raw_of(use.placeholder) not in login.parts:
            return _MISPLACED if placeholders.within(login.raw) else _FOREIGN
    return _FOREIGN if _repeats(logins, request.fields) else None


_BETA = b"anthropic-beta"
_OAUTH_BETA = b"oauth-2025-04-20"
_OAUTH_TOKEN = b"sk-ant-oat"
_ANTHROPIC_KEY = b"sk-ant-"
_STANDING_FIELDS = frozenset({b"authorization", b"x-api-key"})
# What would let an answer come in a form, or in pieces, in which the value cannot be seen.
_WATCHED_IN_FULL = frozenset(
    {
        b"a-im",  # RFC 3229
        b"accept-charset",  # UTF-16 is not looked into
        b"accept-encoding",
        b"if-range",
        b"range",
        b"request-range",  # what Apache's httpd takes in the place of Range
        b"sec-websocket-extensions",
    }
)


def _field_of(binding: Binding, use: Injection, value: bytes) -> Field:
    """Return the field that authenticates with `value`."""
    form = use.form
    if form is Form.AUTO:
        console = value.startswith(_ANTHROPIC_KEY) or _is_anthropic(binding.patterns)
        oauth = value.startswith(_OAUTH_TOKEN)
        form = Form.X_API_KEY if console and not oauth else Form.BEARER
    match form:
        case Form.X_API_KEY:
            return b"x-api-key", value
        case Form.BASIC:
            return b"Authorization", b"Basic " + b64encode(use.user.encode() + b":" + value)
        case Form.FIELD:
            return use.name.encode("ascii"), value
        case _:
            return b"Authorization", b"Bearer " + value


def _with_oauth(fields: Sequence[Field]) -> bytes:
    """Return what the client lists in anthropic-beta, and what an OAuth token needs besides."""
    # Not the spelling with an underscore, which nobody has judged.
    sent = [value for name, value in fields if name.lower() == _BETA]
    listed = [item for value in sent for part in value.split(b",") if (item := part.strip())]
    return b",".join([*listed, *([] if _OAUTH_BETA in listed else [_OAUTH_BETA])])


def _is_anthropic(patterns: Iterable[HostPattern]) -> bool:
    hosts = (pattern.host for pattern in patterns)
    return any(f".{host}".endswith((".anthropic.com", ".claude.com")) for host in hosts)


# --- placeholders


_KEPT = 8
_kept: dict[int, tuple[Sequence[Binding], Placeholders]] = {}


def _placeholders_of(bindings: Sequence[Binding]) -> Placeholders:
    """Return what is looked for, made once for each policy that is in force."""
    known = _kept.get(id(bindings))
    if known is None or known[0] is not bindings:
        texts = {
            binding.use.placeholder for binding in bindings if isinstance(binding.use, Injection)
        }
        if len(_kept) >= _KEPT:
            _kept.clear()
        # The bindings are kept, so that no others can come to have the same id.
        known = _kept[id(bindings)] = (bindings, Placeholders(texts))
    return known[1]


class ValueKind(StrEnum):
    """What a value is, as far as its beginning tells."""

    CONSOLE_KEY = "console-key"
    OAUTH_TOKEN = "oauth-token"  # noqa: S105 - the name of a kind
    OTHER = "other"


def kind_of_value(secret: Secret) -> ValueKind:
    """Tell what sort of value it is."""
    value = secret.reveal()
    if value.startswith(_OAUTH_TOKEN):
        return ValueKind.OAUTH_TOKEN
    return ValueKind.CONSOLE_KEY if value.startswith(_ANTHROPIC_KEY) else ValueKind.OTHER


def default_placeholder(name: str, patterns: Sequence[HostPattern], form: Form = Form.AUTO) -> str:
    """Return what a client sends in the place of the value, where its owner has not said it."""
    # Clients of Anthropic's look at how a key begins.
    alike = form in {Form.AUTO, Form.X_API_KEY, Form.BEARER} and _is_anthropic(patterns)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return f"{'sk-ant-' if alike else ''}{STEM}{plain}"


def placeholder_variables(binding: Binding, value_kind: ValueKind) -> tuple[str, ...]:
    """Return the variables in which a sandboxed client finds the placeholder."""
    use = binding.use
    if isinstance(use, Pin):
        return ()
    if use.variables or not use.placeholder or not _is_anthropic(binding.patterns):
        return use.variables
    # Claude Code speaks as an OAuth client only with this one; with a token of the other name it
    # asks nothing, where it would ask its user to approve an API key.
    oauth = value_kind is ValueKind.OAUTH_TOKEN
    return ("CLAUDE_CODE_OAUTH_TOKEN",) if oauth else ("ANTHROPIC_AUTH_TOKEN",)
