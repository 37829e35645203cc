"""Laws of credentials: on a bound host no other login is allowed; placeholders never leave."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.policy.credentials.binding import (
    Binding,
    Form,
    Injection,
    LoginPin,
)
from claude_proxy.policy.credentials.decision import (
    NO_CREDENTIAL,
    AvailableSecrets,
    CredentialDecision,
    PinnedLogins,
)
from claude_proxy.policy.credentials.detection import find_logins
from claude_proxy.policy.credentials.login_hash import digest_of
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import RawField, Scheme
from tests.policy.credentials.cases import (
    EVIL,
    GIT_HOLDER,
    GITHUB_HOLDER,
    HOLDER,
    INJECTED,
    KEY,
    OAUTH,
    PINNED,
    SALT,
    SECRETS,
    SOURCE,
    basic,
    binding,
    decided,
    emitted,
    injection,
    learning,
    pinned,
    request,
)

ALLOWED = {
    "nothing": (),
    "a placeholder as a key": ((b"x-api-key", HOLDER.encode()),),
    "a placeholder as a bearer token": ((b"Authorization", b"Bearer " + HOLDER.encode()),),
    "in both, as a key helper sends it": (
        (b"x-api-key", HOLDER.encode()),
        (b"authorization", b"bearer   " + HOLDER.encode()),
    ),
    "under an odd spelling": ((b"X_Api_KEY", HOLDER.encode()),),
    "as the password of Basic": ((b"Authorization", basic(b"x", HOLDER.encode())),),
    "as the user of Basic": ((b"Authorization", basic(HOLDER.encode(), b"")),),
    "cookies of the network before the host": ((b"Cookie", b"__cf_bm=abc; _cfuvid=def"),),
    "a field that is empty": ((b"Authorization", b""),),
    "fields that only sound so": (
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Protocol", b"graphql-transport-ws, v1.example.com"),
        (b"Idempotency-Key", b"11111111-2222-3333-4444-555555555555"),
        (b"X-Claude-Code-Session-Id", b"11111111-2222-3333-4444-555555555555"),
        (b"X-CSRF-Token", b"abc"),
        (b"anthropic-version", b"2023-06-01"),
        (b"X-Stainless-Package-Version", b"0.60.0"),
    ),
    "the proxy's own password": ((b"Proxy-Authorization", basic(b"user", b"password")),),
}


FOREIGN = {
    "another key": ((b"x-api-key", EVIL),),
    "another bearer": ((b"Authorization", b"Bearer " + EVIL),),
    "another bearer in lower case": ((b"authorization", b"bearer  x"),),
    "another key without a scheme": ((b"Authorization", EVIL),),
    "another user by Basic": ((b"Authorization", basic(b"attacker", b"password")),),
    "Basic that is no Base64": ((b"Authorization", b"Basic !!!"),),
    "a signature": ((b"Authorization", b"AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=1"),),
    "an underscore": ((b"X_API_KEY", EVIL),),
    "any case": ((b"X-aPi-kEy", EVIL),),
    "a cookie": ((b"Cookie", b"sessionKey=sk-ant-sid01-x"),),
    "a cookie among harmless ones": ((b"Cookie", b"__cf_bm=abc; a=b"),),
    "an old cookie": ((b"Cookie2", b"$Version=1"),),
    "the field of another cloud": ((b"X-Goog-Api-Key", b"AIza"),),
    "the field of another forge": ((b"PRIVATE-TOKEN", b"glpat"),),
    "the field of another gateway": ((b"Ocp-Apim-Subscription-Key", b"0123"),),
    "the field of one app's master": ((b"X-Parse-Master-Key", b"0123"),),
    "the field of a license": ((b"X-License-Key", b"0123"),),
    "a field with a word too few": ((b"Authentication", b"0123"),),
    "a user whom a proxy has let in": ((b"X-WebAuth-User", b"admin"),),
    "a token in a WebSocket's protocol": ((b"Sec-WebSocket-Protocol", b"bearer, abcdef"),),
    "a key in a WebSocket's protocol": (
        (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-1"),
    ),
    "a long word in a WebSocket's protocol": (
        (b"Sec-WebSocket-Protocol", b"abcdefghijklmnopqrstuvwxyz0123456789"),
    ),
    "a key in a field that nobody knows": ((b"X-Whatever", EVIL),),
    "a bearer in a field that nobody knows": ((b"X-Whatever", b"Bearer abc"),),
    "a forwarded login": ((b"X-Forwarded-Authorization", b"Bearer abc"),),
    "two fields of one name": ((b"x-api-key", HOLDER.encode()), (b"x-api-key", EVIL)),
    "two spellings of one name": (
        (b"x-api-key", HOLDER.encode()),
        (b"x_api_key", HOLDER.encode()),
    ),
    "an empty one before": ((b"x-api-key", b""), (b"x-api-key", HOLDER.encode())),
    "the real key, which no client knows": ((b"x-api-key", KEY),),
}


MISPLACED = {
    "in a field that does not authenticate": ((b"User-Agent", HOLDER.encode()),),
    "in a cookie": ((b"Cookie", b"key=" + HOLDER.encode()),),
    "beside something": ((b"x-api-key", HOLDER.encode() + b"x"),),
    "in another Base64": (
        (b"Authorization", b"Basic " + b64encode(b"x:y" + HOLDER.encode()).rstrip(b"=") + b"="),
    ),
    "in a name": ((HOLDER.encode(), b"1"),),
}


@pytest.mark.parametrize("fields", ALLOWED.values(), ids=ALLOWED)
def test_a_placeholder_or_nothing_has_the_value_put_in(fields: tuple[RawField, ...]) -> None:
    asked = request(*fields)

    decision = decided(INJECTED, asked, SECRETS)

    assert decision.reason is None
    assert decision.credential == "anthropic"
    sent = emitted(asked, decision)
    assert [value for name, value in sent if name.lower() == b"x-api-key"] == [KEY]
    assert not [name for name, _ in sent if name.lower() == b"authorization"]
    assert not any(HOLDER.encode() in value for _, value in sent)


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_another_login_is_denied_where_a_value_is_put_in(fields: tuple[RawField, ...]) -> None:
    assert decided(INJECTED, request(*fields), SECRETS) == CredentialDecision(
        Reason.FOREIGN_CREDENTIAL
    )


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_another_login_is_denied_where_one_is_pinned(fields: tuple[RawField, ...]) -> None:
    asked = request(*((name, value.replace(HOLDER.encode(), EVIL)) for name, value in fields))

    assert decided(PINNED, asked, pinned(OAUTH)) == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_no_login_goes_to_a_bound_host_by_plain_http(fields: tuple[RawField, ...]) -> None:
    asked = request(
        *((name, value.replace(HOLDER.encode(), EVIL)) for name, value in fields),
        scheme=Scheme.HTTP,
    )

    for bindings, secrets in ((INJECTED, SECRETS), (PINNED, pinned(EVIL, KEY))):
        assert decided(bindings, asked, secrets) == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


@pytest.mark.parametrize("fields", MISPLACED.values(), ids=MISPLACED)
def test_a_placeholder_in_the_wrong_place_is_denied(fields: tuple[RawField, ...]) -> None:
    misplaced = CredentialDecision(Reason.PLACEHOLDER_MISPLACED)

    assert decided(INJECTED, request(*fields), SECRETS) == misplaced
    assert decided(INJECTED, request(*fields, host="evil.example"), SECRETS) == misplaced


@pytest.mark.parametrize(
    "fields", [fields for fields in ALLOWED.values() if HOLDER.encode() in repr(fields).encode()]
)
def test_a_placeholder_goes_to_no_other_host_and_not_without_tls(
    fields: tuple[RawField, ...],
) -> None:
    misplaced = CredentialDecision(Reason.PLACEHOLDER_MISPLACED)

    assert decided(INJECTED, request(*fields, host="evil.example"), SECRETS) == misplaced
    assert decided(INJECTED, request(*fields, scheme=Scheme.HTTP), SECRETS) == misplaced
    assert decided(INJECTED, request(*fields, port=8443), SECRETS) == misplaced


@pytest.mark.parametrize(
    "line",
    [
        {"path": f"/v1/{HOLDER}"},
        {"query": f"key={HOLDER}"},
        {"query": f"q={quote(HOLDER, safe='').replace('-', '%2D')}"},
        {"path": f"/v1/{HOLDER.replace('a', '%61')}"},
    ],
)
@pytest.mark.parametrize("host", ["api.anthropic.com", "evil.example"])
def test_a_placeholder_in_path_or_query_is_denied(line: dict[str, str], host: str) -> None:
    decision = decided(INJECTED, request(host=host, **line), SECRETS)  # type: ignore[arg-type]

    assert decision.reason is Reason.PLACEHOLDER_MISPLACED


@pytest.mark.parametrize(
    "query",
    [
        "api_key=x",
        "apiKey=x",
        "a=1&access_token=x",
        "a=1;token=x",
        "key=x",
        "%61pi%5Fkey=x",
        "X-Amz-Signature=x",
        "sig=x",
        f"whatever={EVIL.decode()}",
        f"whatever={quote(EVIL, safe='').replace('-', '%2D')}",
        "auth[token]=x",
        "PHPSESSID=x",
    ],
)
def test_a_login_in_the_query_is_denied(query: str) -> None:
    foreign = CredentialDecision(Reason.FOREIGN_CREDENTIAL)

    assert decided(INJECTED, request(query=query), SECRETS) == foreign
    assert decided(PINNED, request(query=query), pinned(KEY)) == foreign


@pytest.mark.parametrize(
    "query", ["beta=true", "page_token=x", "limit=1000", "service=git-upload-pack", "key="]
)
def test_a_query_without_a_login_passes(query: str) -> None:
    assert decided(INJECTED, request(query=query), SECRETS).reason is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models;api_key=x",
        "/v1/messages;jsessionid=x",
        "/v1;JSESSIONID=x/models",
        "/v1;a=1;token=x",
        "/v1%3Bapi_key=x",
        "/v1/models;api%5Fkey=x",
    ],
)
def test_a_login_among_the_parameters_of_a_path_is_denied(path: str) -> None:
    foreign = CredentialDecision(Reason.FOREIGN_CREDENTIAL)

    assert decided(INJECTED, request(path=path), SECRETS) == foreign
    assert decided(PINNED, request(path=path), pinned(KEY)) == foreign


@pytest.mark.parametrize("path", ["/v1/models;v=2", "/v1/models;", "/v1/a%3Bb", "/v1;page_token=x"])
def test_a_parameter_of_a_path_that_is_no_login_passes(path: str) -> None:
    assert decided(INJECTED, request(path=path), SECRETS).reason is None


def test_a_key_in_the_path_is_denied() -> None:
    asked = request(path=f"/v1/{EVIL.decode()}/x")

    assert decided(INJECTED, asked, SECRETS) == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


def put_in(
    use: Injection, value: bytes, *fields: RawField, host: str = "api.anthropic.com"
) -> dict[bytes, bytes]:
    asked = request(*fields, host=host)
    decision = decided((binding(use, host),), asked, {"anthropic": Secret(value)})
    assert decision.reason is None
    return dict(decision.extra)


@pytest.mark.parametrize(
    ("use", "value", "host", "field"),
    [
        (injection(), KEY, "api.anthropic.com", (b"x-api-key", KEY)),
        (injection(), OAUTH, "api.anthropic.com", (b"Authorization", b"Bearer " + OAUTH)),
        (injection(), b"of-another-kind", "api.anthropic.com", (b"x-api-key", b"of-another-kind")),
        (
            injection(),
            b"of-another-kind",
            "llm.example",
            (b"Authorization", b"Bearer of-another-kind"),
        ),
        (injection(Form.X_API_KEY), OAUTH, "llm.example", (b"x-api-key", OAUTH)),
        (injection(Form.BEARER), KEY, "llm.example", (b"Authorization", b"Bearer " + KEY)),
        (
            injection(Form.BASIC, user="git"),
            KEY,
            "git.example",
            (b"Authorization", basic(b"git", KEY)),
        ),
        (injection(Form.FIELD, name="private-token"), KEY, "git.example", (b"private-token", KEY)),
    ],
)
def test_each_form_puts_the_value_where_it_belongs(
    use: Injection, value: bytes, host: str, field: RawField
) -> None:
    extra = put_in(use, value, host=host)

    assert extra.pop(field[0]) == field[1]
    assert extra.pop(b"Accept-Encoding") == b"identity"
    assert extra.keys() <= {b"anthropic-beta"}


@pytest.mark.parametrize(
    ("sent", "beta"),
    [
        ((), b"oauth-2025-04-20"),
        ((b"a-1",), b"a-1,oauth-2025-04-20"),
        ((b"a-1, b-2", b"c-3"), b"a-1,b-2,c-3,oauth-2025-04-20"),
        ((b"oauth-2025-04-20,a-1",), b"oauth-2025-04-20,a-1"),
    ],
)
def test_an_oauth_token_brings_its_beta(sent: tuple[bytes, ...], beta: bytes) -> None:
    asked = request(*((b"Anthropic-Beta", value) for value in sent))

    decision = decided(INJECTED, asked, {"anthropic": Secret(OAUTH)})

    betas = [value for name, value in emitted(asked, decision) if name.lower() == b"anthropic-beta"]
    assert betas == [beta]


def test_a_console_key_leaves_the_betas_alone() -> None:
    asked = request((b"anthropic-beta", b"a-1"), (b"anthropic-beta", b"b-2"))

    decision = decided(INJECTED, asked, SECRETS)

    assert emitted(asked, decision)[:2] == list(asked.fields)


def test_an_answer_is_asked_for_in_a_form_that_can_be_watched() -> None:
    asked = request(
        (b"Accept-Encoding", b"br"),
        (b"Range", b"bytes=0-3"),
        (b"If-Range", b'"x"'),
        (b"Request_Range", b"bytes=0-3"),
        (b"Accept-Charset", b"utf-16"),
        (b"A-IM", b"gzip"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"Accept", b"*/*"),
    )

    decision = decided(INJECTED, asked, SECRETS)

    sent = emitted(asked, decision)
    assert sent == [(b"Accept", b"*/*"), (b"x-api-key", KEY), (b"Accept-Encoding", b"identity")]


def test_every_form_of_the_value_is_guarded() -> None:
    use = injection(Form.BASIC, user="git")

    decision = decided((binding(use),), request(), SECRETS)

    for form in (KEY, b64encode(b"git:" + KEY), KEY.hex().encode(), KEY.hex().upper().encode()):
        assert form in decision.guarded
    for before in range(5):
        assert any(form in b64encode(b"x" * before + KEY + b"tail") for form in decision.guarded)


@pytest.mark.parametrize("held", [None, PinnedLogins(frozenset())])
def test_an_unavailable_value_denies(held: PinnedLogins | None) -> None:
    unavailable = CredentialDecision(Reason.CREDENTIAL_UNAVAILABLE)

    assert decided(INJECTED, request(), {"anthropic": held}) == unavailable
    assert decided(INJECTED, request(), {}) == unavailable


def test_two_bindings_for_one_host_deny() -> None:
    twice = (*INJECTED, binding(injection(), name="other"))

    decision = decided(twice, request(), {"anthropic": Secret(KEY), "other": Secret(EVIL)})

    assert decision == CredentialDecision(Reason.CREDENTIAL_UNAVAILABLE)


def test_of_two_ports_each_has_its_own() -> None:
    both = (*INJECTED, binding(injection(), name="other", port=8443))

    decision = decided(both, request(port=8443), {"other": Secret(EVIL)})

    assert (decision.credential, dict(decision.extra)[b"x-api-key"]) == ("other", EVIL)


def test_a_port_that_is_not_bound_gets_no_login_at_all() -> None:
    assert decided(INJECTED, request(port=8443), SECRETS) == NO_CREDENTIAL
    denied = decided(INJECTED, request((b"x-api-key", EVIL), port=8443), SECRETS)
    assert denied == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


@pytest.mark.parametrize("name", [b"X-Corp-Key", b"x_corp_key"])
def test_a_field_of_a_bindings_own_is_a_login_by_plain_http_and_at_other_ports(name: bytes) -> None:
    bound = (binding(injection(Form.FIELD, name="x-corp-key")),)

    for asked in (request((name, EVIL), scheme=Scheme.HTTP), request((name, EVIL), port=8443)):
        assert decided(bound, asked, SECRETS) == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


def test_a_host_below_or_beside_is_not_bound() -> None:
    for host in ("x.api.anthropic.com", "anthropic.com", "api.anthropic.com.evil.example"):
        assert decided(INJECTED, request((b"x-api-key", EVIL), host=host), SECRETS) is NO_CREDENTIAL


def test_a_wildcard_binds_what_it_covers() -> None:
    wide = (binding(injection(), "*.anthropic.com"),)

    assert decided(wide, request(), SECRETS).credential == "anthropic"
    assert decided(wide, request(host="anthropic.com"), SECRETS) is NO_CREDENTIAL


def test_a_placeholder_may_begin_as_another_does() -> None:
    bindings = (
        binding(injection(placeholder=GIT_HOLDER), "git.example", "git"),
        binding(injection(placeholder=GITHUB_HOLDER), "github.example", "github"),
    )
    asked = request((b"Authorization", b"token " + GITHUB_HOLDER.encode()), host="github.example")

    decision = decided(bindings, asked, {"github": Secret(KEY), "git": Secret(EVIL)})

    assert decision.credential == "github"


def test_another_ones_placeholder_is_misplaced() -> None:
    bindings = (
        binding(injection(placeholder=GIT_HOLDER), "git.example", "git"),
        binding(injection(placeholder="my own words for it"), "hub.example", "hub"),
    )
    asked = request((b"x-api-key", b"my own words for it"), host="git.example")

    decision = decided(bindings, asked, {"git": Secret(KEY), "hub": Secret(EVIL)})

    assert decision == CredentialDecision(Reason.PLACEHOLDER_MISPLACED)


GATEWAY = (
    Binding(
        "gateway",
        (HostPattern.parse("api.anthropic.com"),),
        Injection(EnvironmentSource("KEY"), strips=True),
        SOURCE,
    ),
)


@pytest.mark.parametrize("fields", [*ALLOWED.values(), *FOREIGN.values()])
def test_a_gateway_takes_out_what_its_clients_authenticate_with(
    fields: tuple[RawField, ...],
) -> None:
    asked = request(*fields)

    decision = decided(GATEWAY, asked, {"gateway": Secret(KEY)})

    assert decision.reason is None
    sent = emitted(asked, decision)
    assert [login.keys for login in find_logins(b"", b"", sent)] == [(KEY,)]


def test_a_gateway_cannot_take_a_login_out_of_the_query() -> None:
    decision = decided(GATEWAY, request(query="api_key=x"), {"gateway": Secret(KEY)})

    assert decision == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


def test_a_gateway_to_this_machine_does_without_tls_and_no_other() -> None:
    patterns = (HostPattern.parse("localhost"),)
    for plain, reason in ((True, None), (False, Reason.FOREIGN_CREDENTIAL)):
        use = Injection(EnvironmentSource("KEY"), strips=True, plain=plain)
        bindings = (Binding("gateway", patterns, use, SOURCE, frozenset({8000})),)
        asked = request((b"x-api-key", EVIL), host="localhost", scheme=Scheme.HTTP, port=8000)

        assert decided(bindings, asked, {"gateway": Secret(KEY)}).reason is reason


def test_a_gateways_binding_has_precedence_over_the_allowlists() -> None:
    decision = decided((*INJECTED, *GATEWAY), request(), {"gateway": Secret(EVIL), **SECRETS})

    assert decision.credential == "gateway"


CLOTHES = {
    "a key": (b"x-api-key", KEY),
    "a bearer": (b"authorization", b"Bearer " + KEY),
    "a bearer, spaced oddly": (b"AUTHORIZATION", b"bEARER \t " + KEY),
    "GitHub's word": (b"Authorization", b"token " + KEY),
    "bare": (b"Authorization", KEY),
    "a password": (b"Authorization", basic(b"x-access-token", KEY)),
    "a password of somebody": (b"Authorization", basic(b"alice@example.com", KEY)),
    "a user": (b"Authorization", basic(KEY, b"")),
    "a user, as GitHub had it": (b"Authorization", basic(KEY, b"x-oauth-basic")),
    "a cookie": (b"Cookie", b"__cf_bm=x; session=" + KEY),
    "an underscore": (b"x_api_key", KEY),
}


@pytest.mark.parametrize("field", CLOTHES.values(), ids=CLOTHES)
def test_a_pinned_login_passes_in_every_form(field: RawField) -> None:
    decision = decided(PINNED, request(field), pinned(KEY))

    assert decision == CredentialDecision(credential="anthropic")


@pytest.mark.parametrize("field", CLOTHES.values(), ids=CLOTHES)
def test_what_is_learned_from_one_field_passes_in_every_other(field: RawField) -> None:
    decision = decided(PINNED, request(field), learning())

    assert decision.learned == (SALT, digest_of(SALT, KEY))
    assert decision.credential == "anthropic"


def test_a_pinned_login_passes_in_the_query() -> None:
    asked = request(query=f"api_key={quote(KEY, safe='')}")

    assert decided(PINNED, asked, pinned(KEY)).credential == "anthropic"


@pytest.mark.parametrize(
    "fields",
    [
        ((b"x-api-key", KEY), (b"authorization", b"Bearer " + EVIL)),
        ((b"x-api-key", KEY), (b"cookie", b"session=other")),
        ((b"x-api-key", KEY), (b"x-api-key", KEY)),
        ((b"authorization", basic(EVIL, KEY)),),
        ((b"authorization", basic(b"0123456789abcdef0123456789abcdef01234567", KEY)),),
        ((b"authorization", b"Bearer " + KEY + b", Bearer " + EVIL),),
        ((b"authorization", b"Basic " + b64encode(b"x:" + KEY).rstrip(b"=") + b"A"),),
        ((b"cookie", b"a=" + KEY + b"; b=other"),),
    ],
)
def test_a_pinned_login_brings_no_other_with_it(fields: tuple[RawField, ...]) -> None:
    assert decided(PINNED, request(*fields), pinned(KEY)) == CredentialDecision(
        Reason.FOREIGN_CREDENTIAL
    )
    assert decided(PINNED, request(*fields), learning()).reason in {
        Reason.FOREIGN_CREDENTIAL,
        None,
    }


def test_two_logins_at_once_are_not_learned() -> None:
    asked = request((b"x-api-key", KEY), (b"authorization", b"Bearer " + EVIL))

    assert decided(PINNED, asked, learning()) == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


def test_one_login_in_two_fields_is_learned_as_one() -> None:
    asked = request((b"x-api-key", KEY), (b"authorization", basic(b"alice", KEY)))

    assert decided(PINNED, asked, learning()).learned == (SALT, digest_of(SALT, KEY))


def test_a_request_without_a_login_passes_and_pins_nothing() -> None:
    for secrets in (learning(), pinned(KEY), {"anthropic": None}):
        assert decided(PINNED, request((b"Accept", b"*/*")), secrets) is NO_CREDENTIAL


def test_a_pin_that_cannot_be_read_denies_every_login() -> None:
    for secrets in ({"anthropic": None}, {}, SECRETS):
        decision = decided(PINNED, request((b"x-api-key", KEY)), secrets)

        assert decision == CredentialDecision(Reason.CREDENTIAL_UNAVAILABLE)


def test_a_placeholder_is_not_learned() -> None:
    bindings = (*PINNED, binding(injection(), "llm.example", "llm"))

    decision = decided(bindings, request((b"x-api-key", HOLDER.encode())), learning())

    assert decision == CredentialDecision(Reason.PLACEHOLDER_MISPLACED)


def test_a_pin_puts_nothing_in_and_takes_nothing_out() -> None:
    decision = decided(PINNED, request((b"x-api-key", KEY)), pinned(KEY))

    assert (decision.drop, decision.extra, decision.guarded) == (frozenset(), (), ())


NAMES = st.sampled_from(
    sorted(
        {name for fields in (*FOREIGN.values(), *ALLOWED.values()) for name, _ in fields}
        | {b"User-Agent", b"Accept", b"Referer"}
    )
)


TOKENS = st.sampled_from([KEY, EVIL, OAUTH, HOLDER.encode(), GIT_HOLDER.encode(), b"x", b""])


def _dressed(tokens: Iterable[bytes]) -> st.SearchStrategy[bytes]:
    one, other = tokens
    return st.sampled_from(
        [
            one,
            b"Bearer " + one,
            b"bearer  " + one,
            b"token\t" + one,
            basic(one, other),
            b"a=" + one + b"; b=" + other,
            one + b", " + other,
            b"Basic " + one,
        ]
    )


VALUES = st.tuples(TOKENS, TOKENS).flatmap(_dressed)


HEADS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


QUERIES = st.lists(
    st.tuples(st.sampled_from(["api_key", "q", "token", "beta"]), TOKENS.map(bytes.decode)),
    max_size=2,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


BOTH = (
    binding(injection()),
    binding(injection(placeholder=GIT_HOLDER), "git.example", "git"),
    binding(LoginPin(learn=True), "pinned.example", "pinned"),
)


def _everything(fields: Iterable[RawField], query: str) -> bytes:
    """Return a head as bytes, and what is in the Base64 of it."""
    head = b"\n".join(name + b": " + value for name, value in fields) + b"\n" + query.encode()
    decoded = []
    for _, value in fields:
        for word in value.split():
            try:
                decoded.append(b64decode(word, validate=True))
            except ValueError:
                continue
    return b"\n".join([head, *decoded])


@given(HEADS, QUERIES)
@example([(b"Authorization", basic(HOLDER.encode(), EVIL))], "")
def test_on_a_bound_host_no_login_but_the_bound_one_is_ever_sent(
    fields: list[RawField], query: str
) -> None:
    value = b"sk-ant-api03-the-one-that-is-put-in"
    asked = request(*fields, query=query)

    decision = decided(BOTH, asked, {"anthropic": Secret(value), "git": Secret(OAUTH)})

    if decision.reason is None:
        sent = emitted(asked, decision)
        assert [login.keys for login in find_logins(b"", query.encode(), sent)] == [(value,)]
        assert EVIL not in _everything(sent, query)
        assert KEY not in _everything(sent, query)


@given(HEADS, QUERIES)
def test_only_the_pinned_login_is_ever_sent(fields: list[RawField], query: str) -> None:
    asked = request(*fields, query=query, host="pinned.example")
    held = PinnedLogins(frozenset({(SALT, digest_of(SALT, KEY))}))

    decision = decided(BOTH, asked, {"pinned": held})

    if decision.reason is None:
        sent = _everything(emitted(asked, decision), query)
        assert EVIL not in sent
        assert OAUTH not in sent


@given(
    HEADS,
    QUERIES,
    st.sampled_from(["api.anthropic.com", "git.example", "pinned.example", "evil.example"]),
    st.sampled_from(list(Scheme)),
)
def test_a_placeholder_never_leaves(
    fields: list[RawField], query: str, host: str, scheme: Scheme
) -> None:
    asked = request(*fields, query=query, host=host, scheme=scheme)
    secrets: AvailableSecrets = {
        "anthropic": Secret(KEY),
        "git": Secret(OAUTH),
        "pinned": PinnedLogins(frozenset(), learning=True, salt=SALT),
    }

    decision = decided(BOTH, asked, secrets)

    if decision.reason is None:
        sent = _everything(emitted(asked, decision), query)
        assert HOLDER.encode() not in sent
        assert GIT_HOLDER.encode() not in sent


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary()), max_size=4), st.text(), st.text())
def test_whatever_is_sent_is_decided(fields: list[RawField], path: str, query: str) -> None:
    for host in ("api.anthropic.com", "pinned.example", "evil.example"):
        asked = request(*fields, host=host, path=path, query=query)

        assert isinstance(decided(BOTH, asked, {}), CredentialDecision)


def test_after_each_reload_the_placeholders_are_those_of_the_new_policy() -> None:
    for number in range(20):
        holder = f"{HOLDER}-{number}"
        bindings = (binding(injection(placeholder=holder)),)

        decision = decided(bindings, request((b"x-api-key", holder.encode())), SECRETS)

        assert decision.credential == "anthropic"


def test_a_field_of_the_owners_own_takes_a_placeholder_and_no_other_login() -> None:
    bindings = (binding(injection(Form.FIELD, name="x_tenant")),)

    decision = decided(bindings, request((b"X-Tenant", HOLDER.encode())), SECRETS)
    denied = decided(bindings, request((b"x_tenant", b"somebody")), SECRETS)

    assert emitted(request((b"X-Tenant", HOLDER.encode())), decision)[0] == (b"x_tenant", KEY)
    assert denied == CredentialDecision(Reason.FOREIGN_CREDENTIAL)


@pytest.mark.parametrize(
    "path",
    [
        "/api/oauth/claude_cli/create_api_key",
        "/API/oauth/claude_cli/create%5Fapi_key",
        "/v1/oauth/token",
        "/v1/organizations/api_keys",
    ],
)
def test_a_value_that_is_put_in_makes_no_login_that_the_client_could_read(path: str) -> None:
    decision = decided(INJECTED, request(path=path), SECRETS)

    assert (decision.reason, decision.extra) == (Reason.ENDPOINT_NOT_ALLOWED, ())


def test_a_client_with_a_login_of_its_own_may_make_another() -> None:
    own, path = (b"Authorization", b"Bearer own"), "/api/oauth/claude_cli/create_api_key"

    assert decided(PINNED, request(own, path=path), pinned(b"own")).reason is None


# --- hosts that take the accounts of an API that has a binding

SAME_ACCOUNTS = (
    *("claude.ai", "claude.com", "platform.claude.com", "console.anthropic.com"),
    "mcp-proxy.anthropic.com",
)


@pytest.mark.parametrize("host", SAME_ACCOUNTS)
@pytest.mark.parametrize(
    "fields", [fields for fields in FOREIGN.values() if HOLDER not in str(fields)]
)
@pytest.mark.parametrize("bindings", [INJECTED, PINNED], ids=["injected", "pinned"])
def test_where_the_api_is_bound_no_other_account_is_used_at_its_providers_hosts(
    bindings: tuple[Binding, ...], fields: tuple[RawField, ...], host: str
) -> None:
    secrets = SECRETS if bindings is INJECTED else pinned(OAUTH)

    for scheme in Scheme:
        asked = request(*fields, host=host, scheme=scheme, path="/v1/mcp/a")
        assert decided(bindings, asked, secrets).reason is Reason.FOREIGN_CREDENTIAL


@pytest.mark.parametrize("host", SAME_ACCOUNTS)
def test_a_login_that_is_pinned_at_the_api_is_the_same_account_at_its_providers_hosts(
    host: str,
) -> None:
    own = request((b"Authorization", b"Bearer " + OAUTH), host=host)
    both = request((b"Authorization", b"Bearer " + OAUTH), (b"x-api-key", EVIL), host=host)
    twice = request(*[(b"Authorization", b"Bearer " + OAUTH)] * 2, host=host)

    assert decided(PINNED, own, pinned(OAUTH)) is NO_CREDENTIAL
    for other in (both, twice):
        assert decided(PINNED, other, pinned(OAUTH)).reason is Reason.FOREIGN_CREDENTIAL
    for none in (learning(), {}, {"anthropic": None}):
        assert decided(PINNED, own, none).reason is Reason.FOREIGN_CREDENTIAL


@pytest.mark.parametrize("host", SAME_ACCOUNTS)
def test_signing_in_needs_no_login_at_the_providers_hosts(host: str) -> None:
    asked = request((b"Content-Type", b"application/json"), host=host, path="/v1/oauth/token")

    assert decided(INJECTED, asked, SECRETS) is NO_CREDENTIAL


def test_a_placeholder_at_the_providers_hosts_is_misplaced() -> None:
    asked = request((b"x-api-key", HOLDER.encode()), host="mcp-proxy.anthropic.com")

    assert decided(INJECTED, asked, SECRETS).reason is Reason.PLACEHOLDER_MISPLACED


def test_where_only_another_host_is_bound_the_providers_hosts_take_any_account() -> None:
    asked = request((b"x-api-key", EVIL), host="mcp-proxy.anthropic.com")

    assert decided((binding(injection(), "github.com"),), asked, SECRETS) is NO_CREDENTIAL
