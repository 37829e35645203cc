"""Credential decisions: which credential a request may carry, and which is injected.

Default-deny, secrets stay outside. A credential is bound to hosts. To these hosts, a request that
authenticates as another account is denied; to every other host, a request with a placeholder is.
Pure: the current values of the sources are an argument.
"""

import hmac
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from typing import NoReturn

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.credentials.binding import (
    ANTHROPIC_KEY_PREFIX,
    OAUTH_TOKEN_PREFIX,
    Binding,
    Form,
    Injection,
    LoginPin,
    bound_by_provider,
    bound_to,
    is_anthropic,
)
from claude_proxy.policy.credentials.detection import (
    COOKIE,
    PATH,
    QUERY,
    Login,
    field_place,
    find_logins,
)
from claude_proxy.policy.credentials.encodings import guarded_forms, raw_of
from claude_proxy.policy.credentials.login_hash import digest_of
from claude_proxy.policy.credentials.placeholders import Placeholders
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.patterns import folded
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import RawField, Request, Scheme


@dataclass(frozen=True, slots=True)
class PinnedLogins:
    """The logins that may pass, as salted hashes."""

    logins: frozenset[tuple[bytes, bytes]]  # salt and digest
    learning: bool = False  # there is none yet; the first login that is used is pinned
    salt: bytes = b""  # for the login that is learned


# The current value or logins of each binding, by name; None: the source is unavailable, so requests
# that need it are denied.
type AvailableSecrets = Mapping[str, Secret | PinnedLogins | None]


@dataclass(frozen=True, slots=True)
class CredentialDecision:
    """The decision about the credentials in one request."""

    reason: Reason | None = None  # why it is denied; None: it is allowed
    drop: frozenset[bytes] = frozenset()  # fields to remove, in lower case
    extra: tuple[RawField, ...] = field(default=(), repr=False)  # fields to add
    guarded: tuple[bytes, ...] = field(default=(), repr=False)  # what the response must not contain
    credential: str | None = None  # the name of the binding that allows it
    # Salt and digest of a login that has to be pinned before the request leaves.
    learned: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CredentialDecision may hold a secret, so it cannot be pickled")


NO_CREDENTIAL = CredentialDecision()  # allowed without a credential
_MISPLACED = CredentialDecision(Reason.PLACEHOLDER_MISPLACED)
_FOREIGN = CredentialDecision(Reason.FOREIGN_CREDENTIAL)
_UNAVAILABLE = CredentialDecision(Reason.CREDENTIAL_UNAVAILABLE)
_MINTING = CredentialDecision(Reason.ENDPOINT_NOT_ALLOWED)
# Endpoints of Anthropic that issue a new credential. With an injected credential, the client could
# read a new one of the owner's account.
_MINTS = ("create_api_key", "api_keys", "oauth/token")


def decide_credential(
    bindings: Sequence[Binding],
    placeholders: Placeholders,
    request: Request,
    secrets: AvailableSecrets,
) -> CredentialDecision:
    """Decide whether the credentials in `request` are allowed, and which are injected.

    `placeholders` are those of all `bindings`; a policy builds them once for all requests.
    """
    bound = bound_to(request.target, bindings)
    if not bound:
        if placeholders.in_head(request, request.fields):
            return _MISPLACED
        provider = bound_by_provider(request.target, bindings)
        return _of_provider(provider, request, secrets) if provider else NO_CREDENTIAL
    in_force = in_force_at(bound, request)
    if not in_force:
        # Over plain HTTP or at another port, no login is expected.
        return _without_logins(bound, request, placeholders)
    if len(in_force) > 1:
        return _UNAVAILABLE
    binding = in_force[0]
    held = secrets.get(binding.name)
    if isinstance(binding.use, LoginPin):
        return _pinned(binding.name, request, placeholders, held)
    return _injected(binding, binding.use, request, placeholders, held)


def in_force_at(bound: list[Binding], request: Request) -> list[Binding]:
    """Return the bindings that apply to the request; it is denied if there are several."""
    here = [binding for binding in bound if request.target.port in binding.ports]
    if request.scheme is Scheme.HTTP:
        here = [each for each in here if isinstance(each.use, Injection) and each.use.plain]
    # A gateway's own binding for its upstream takes precedence over the allowlist's.
    own = [each for each in here if isinstance(each.use, Injection) and each.use.strips]
    return own or here


def _logins_in(request: Request, *also: str) -> list[Login]:
    names = frozenset(field_place(name.encode("latin-1")) for name in also if name)
    return find_logins(raw_of(request.path), raw_of(request.query), request.fields, names)


def _without_logins(
    bound: Iterable[Binding], request: Request, placeholders: Placeholders
) -> CredentialDecision:
    if placeholders.in_head(request, request.fields):
        return _MISPLACED
    # The fields that the host's bindings name count as logins there.
    names = [each.use.name for each in bound if isinstance(each.use, Injection)]
    return _FOREIGN if _logins_in(request, *names) else NO_CREDENTIAL


def _of_provider(
    bound: Iterable[Binding], request: Request, secrets: AvailableSecrets
) -> CredentialDecision:
    """Decide about a host without a binding, which takes the accounts of an API that has one."""
    logins = _logins_in(request)
    if not logins:
        return NO_CREDENTIAL
    # The client's own login, which is pinned at the API, is the same account here.
    held = (secrets.get(binding.name) for binding in bound)
    pinned = [pair for each in held if isinstance(each, PinnedLogins) for pair in each.logins]
    known = all(_is_among(login, pinned) for login in logins)
    return NO_CREDENTIAL if known and not _repeats(logins, request.fields) else _FOREIGN


def _repeats(logins: list[Login], fields: Sequence[RawField]) -> bool:
    """Return whether a login field is repeated: servers differ in which one counts."""
    places = {login.place for login in logins} - {COOKIE, QUERY, PATH}
    there = [place for name, _ in fields if (place := field_place(name)) in places]
    return len(there) != len(set(there))


# --- the client's own login


def _pinned(
    name: str, request: Request, placeholders: Placeholders, held: Secret | PinnedLogins | None
) -> CredentialDecision:
    if placeholders.in_head(request, request.fields):
        return _MISPLACED
    logins = _logins_in(request)
    if not logins:
        return NO_CREDENTIAL
    if not isinstance(held, PinnedLogins):
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


# --- the injected value


def _injected(
    binding: Binding,
    use: Injection,
    request: Request,
    placeholders: Placeholders,
    held: Secret | PinnedLogins | None,
) -> CredentialDecision:
    logins = _logins_in(request, use.name)
    gone = {login.place for login in logins} - {QUERY, PATH}
    denied = _why_denied(use, request, placeholders, logins, gone)
    if denied is not None:
        return denied
    if not isinstance(held, Secret):
        return _UNAVAILABLE
    if is_anthropic(binding.patterns) and any(mint in folded(request.path) for mint in _MINTS):
        return _MINTING
    value = held.reveal()
    name, sent = _field_of(binding, use, value)
    extra = [(name, sent), (b"Accept-Encoding", b"identity")]
    drop = _WATCHED_IN_FULL | _LOGIN_FIELDS | gone | {field_place(name)}
    if sent == b"Bearer " + value and value.startswith(OAUTH_TOKEN_PREFIX):
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


def _why_denied(
    use: Injection,
    request: Request,
    placeholders: Placeholders,
    logins: list[Login],
    gone: Collection[bytes],
) -> CredentialDecision | None:
    """Return the denial of a request because of its logins or placeholders; None without one."""
    staying = [field for field in request.fields if field_place(field[0]) not in gone]
    if placeholders.in_head(request, staying):
        return _MISPLACED
    if any(login.place in {QUERY, PATH} for login in logins):
        return _FOREIGN
    if use.strips:
        return None
    # A wrong placeholder has its own reason: it is a mistake in the configuration.
    for login in logins:
        if not use.placeholder or raw_of(use.placeholder) not in login.parts:
            return _MISPLACED if placeholders.within(login.raw) else _FOREIGN
    return _FOREIGN if _repeats(logins, request.fields) else None


_BETA = b"anthropic-beta"
_OAUTH_BETA = b"oauth-2025-04-20"
_LOGIN_FIELDS = frozenset({b"authorization", b"x-api-key"})
# Fields that ask for a response in an encoding, or in parts, in which the value would not be found.
_WATCHED_IN_FULL = frozenset(
    {
        b"a-im",  # RFC 3229
        b"accept-charset",  # UTF-16 is not scanned
        b"accept-encoding",
        b"if-range",
        b"range",
        b"request-range",  # Apache httpd treats it as Range
        b"sec-websocket-extensions",
    }
)


def _field_of(binding: Binding, use: Injection, value: bytes) -> RawField:
    """Return the field that authenticates with `value`."""
    form = use.form
    if form is Form.AUTO:
        console = value.startswith(ANTHROPIC_KEY_PREFIX) or is_anthropic(binding.patterns)
        oauth = value.startswith(OAUTH_TOKEN_PREFIX)
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


def _with_oauth(fields: Sequence[RawField]) -> bytes:
    """Return the client's anthropic-beta values and the one that an OAuth token needs."""
    # Without the spelling with an underscore, which no restriction has judged.
    sent = [value for name, value in fields if name.lower() == _BETA]
    listed = [item for value in sent for part in value.split(b",") if (item := part.strip())]
    return b",".join([*listed, *([] if _OAUTH_BETA in listed else [_OAUTH_BETA])])
