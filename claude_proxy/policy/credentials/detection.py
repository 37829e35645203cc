"""Login detection: everything in the head of a request that may identify an account.

Agreement, secrets stay outside. A login counts wherever it appears: a field in another spelling,
Basic, a cookie, the query, a path parameter. What may be a login is treated as one, as a server may
accept more than this module knows. Pure.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.request import RawField

QUERY = b"?"
PATH = b"/"
COOKIE = b"cookie"
_SUBPROTOCOL = b"sec-websocket-protocol"
# Only for this hop: never sent upstream (wire/http1/emit.py; RFC 9113 section 8.2.2).
_HOP_BY_HOP = frozenset({b"proxy-authorization", b"proxy-authenticate"})


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """One place where a request authenticates; the repr does not show the value."""

    place: bytes  # the field's normalised name, or QUERY or PATH
    raw: bytes  # the whole value
    # To compare with pins: one match is enough. A pin learns the first one.
    keys: tuple[bytes, ...]
    parts: tuple[bytes, ...] = ()  # the parts that a placeholder may replace

    def __repr__(self) -> str:
        return f"Login({self.place!r})"


# The ends of names of fields and parameters, compared without separators, so that "X_API-Key",
# "apiKey" and "x-api-key" are the same.
_authenticates = lazy_pattern(
    rb"""(?:
      (?:api|app|application|auth|access|account|admin|client|consumer|developer|functions|insert
        |integration|license|management|master|private|sas|service|shared|session|subscription) key
    | secret (?:key)? | password | passwd | passphrase | token | jwt | bearer | auth
    | authentication | authorization
    | credentials? | signature | assertion | cookie | dpop
    ) \Z""",
    re.VERBOSE,
).search
_FIELDS = frozenset(
    {
        b"clientcert",
        b"xclientcert",
        b"xsslclientcert",
        b"xforwardedclientcert",
        b"xamznoidcdata",
        b"xamznoidcidentity",
        b"xauthemail",
        b"xhoneycombteam",
        b"xjfrogartapi",
        b"xwsse",
        b"remoteuser",
        b"xremoteuser",
        b"xforwardeduser",
        b"xforwardedemail",
        b"xauthrequestuser",
        b"xauthrequestemail",
        b"xwebauthuser",
        b"xmsclientprincipal",
    }
)
_PARAMETERS = frozenset(
    {b"key", b"pass", b"pwd", b"sig", b"hmac", b"sid", b"ticket", b"jsessionid", b"phpsessid"}
)
# Names that end in "token" but do not identify an account.
_is_innocent = lazy_pattern(
    rb"(?:csrf|xsrf|csrfmiddleware|antiforgery|page|paging|next|continuation|sync|cursor|max)token\Z"
).search
# Set by content delivery networks; they identify a client, not an account.
_INNOCENT_COOKIES = frozenset(
    {b"__cf_bm", b"__cflb", b"__cfruid", b"_cfuvid", b"cf_clearance", b"awsalb", b"awsalbcors"}
)
# Keys that are recognised by their shape, wherever they appear.
_find_known_shape = lazy_pattern(
    rb"sk-ant-(?:api|oat|ort|sid|admin)|gh[opusr]_[A-Za-z0-9]{20}|github_pat_|glpat-"
).search
_is_like_authorization = lazy_pattern(rb"(?i)(?:bearer|basic)[ \t]+\S").match
# A subprotocol's name, like "graphql-ws" or "v1.example.com". A key is longer, or its name says so.
_is_plain_protocol = lazy_pattern(
    rb"(?!.*(?i:auth|bearer|token|key|jwt))[A-Za-z0-9._/+-]{1,24}"
).fullmatch
_scheme_of = lazy_pattern(rb"(?i)(bearer|token|basic)[ \t]+(\S.*)", re.DOTALL).fullmatch
# A user of Basic that is a plain name. Some servers accept a key there and ignore the password.
_is_mere_name = lazy_pattern(
    rb"[A-Za-z0-9._+-]{0,16}|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,64}"
).fullmatch
_NO_PASSWORDS = frozenset({b"", b"x-oauth-basic", b"x"})


@lru_cache(maxsize=2048)  # clients keep sending the same names
def field_place(name: bytes) -> bytes:
    """Return a field's name normalised as many servers do: "X_API_KEY" becomes "x-api-key"."""
    return name.lower().replace(b"_", b"-")


def find_logins(
    path: bytes, query: bytes, fields: Sequence[RawField], also: frozenset[bytes] = frozenset()
) -> list[Login]:
    """Return every login in a head; fields in `also` (normalised names) count as logins too."""
    found = list(_of_query(query)) if query else []
    if b";" in path or b"%3" in path:
        found.extend(_of_matrix(path))
    if _has_known_shape(path):
        found.append(Login(PATH, path, (path,)))
    # Most requests have no such key, and one search over all values is faster than one per value.
    shaped = _has_known_shape(b"\n".join([value for _, value in fields]))
    for name, value in fields:
        place = _place_of(name)
        if place is None and also and field_place(name) in also:
            place = field_place(name)
        if place is not None:
            found.extend(_of_field(place, value))
        elif value[:1] in b"bB" or shaped:
            place = field_place(name)
            if place not in _HOP_BY_HOP and _is_login_itself(value):
                found.append(Login(place, value, (value,)))
    return found


@lru_cache(maxsize=2048)
def _place_of(name: bytes) -> bytes | None:
    """Return the normalised name of a field that authenticates, None for any other field."""
    place = field_place(name)
    if place == _SUBPROTOCOL or (
        place not in _HOP_BY_HOP and _authenticates_by_name(place, _FIELDS)
    ):
        return place
    return None


@lru_cache(maxsize=512)
def _is_parameter(name: bytes) -> bool:
    return _authenticates_by_name(name.lower(), _PARAMETERS)


def _is_login_itself(value: bytes) -> bool:
    return _is_like_authorization(value) is not None or _has_known_shape(value)


def _has_known_shape(value: bytes) -> bool:
    # Most values have none of these, and plain searches show that faster than the expression.
    if b"sk-ant-" in value or b"gh" in value or b"glpat-" in value:
        return _find_known_shape(value) is not None
    return False


def _authenticates_by_name(name: bytes, known: frozenset[bytes]) -> bool:
    # Without the number at the end of "x-hub-signature-256" or "cookie2".
    bare = re.sub(rb"[^a-z0-9]+", b"", name).rstrip(b"0123456789")
    return bare in known or (_authenticates(bare) is not None and _is_innocent(bare) is None)


def _of_field(place: bytes, value: bytes) -> Iterator[Login]:
    if place == COOKIE:
        yield from _of_cookies(value)
    elif place == _SUBPROTOCOL:
        for item in value.split(b","):
            protocol = item.strip(b" \t")
            if protocol and _is_plain_protocol(protocol) is None:
                yield Login(place, value, (protocol,))
    elif text := value.strip(b" \t"):
        yield read_value(place, text)


def read_value(place: bytes, value: bytes) -> Login:
    """Parse the value of a field that authenticates: a scheme and its login, or a bare value."""
    scheme = _scheme_of(value)
    if scheme is None:
        return Login(place, value, (value,), (value,))
    rest = scheme[2]
    if scheme[1].lower() != b"basic":
        return Login(place, value, (rest,), (rest,))
    pair = _decoded(rest)
    if pair is None:
        return Login(place, value, (value,))
    user, _, password = pair.partition(b":")
    if password in _NO_PASSWORDS:
        keys: tuple[bytes, ...] = (user or pair,)
    elif _is_mere_name(user) and not _has_known_shape(user):
        keys = (password, pair)
    else:
        keys = (pair,)
    return Login(place, value, keys, (user, password))


def _decoded(text: bytes) -> bytes | None:
    """Return the decoded user:password; None if it is not canonical Base64."""
    try:
        pair = b64decode(text, validate=True)
    except ValueError:
        return None
    return pair if b64encode(pair) == text and b":" in pair else None


def _of_cookies(value: bytes) -> Iterator[Login]:
    for item in value.split(b";"):
        name, _, text = item.strip(b" \t").partition(b"=")
        if (name or text) and name.lower() not in _INNOCENT_COOKIES:
            yield Login(COOKIE, value, (text or name,))


def _of_query(query: bytes) -> Iterator[Login]:
    # Some servers also split at semicolons.
    for pair in re.split(rb"[&;]", query):
        name, _, text = pair.partition(b"=")
        value = unquote_to_bytes(text)
        if _has_known_shape(value) or (value and _is_parameter(unquote_to_bytes(name))):
            yield Login(QUERY, pair, (value,))


def _of_matrix(path: bytes) -> Iterator[Login]:
    # RFC 3986 section 3.3: a segment may have parameters, and Java servers accept logins there.
    for parameters in re.findall(rb";([^/]*)", re.sub(rb"(?i:%3b)", b";", path)):
        for login in _of_query(parameters):
            yield Login(PATH, login.raw, login.keys)
