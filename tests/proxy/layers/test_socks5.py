"""A SOCKS5 request is judged before its name is resolved, and dialled once."""

from collections.abc import Callable
from typing import Any

import pytest

from claude_proxy.config.settings import ClientCredentials, UpstreamProxy
from claude_proxy.errors import AuditError
from claude_proxy.events import Phase
from claude_proxy.policy.decision import denied
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.proxy_protocol import encode
from claude_proxy.wire.socks5 import SocksReply, reply
from tests.proxy.layers.http1_peers import reason_of
from tests.proxy.layers.stage import BrokenPolicy, Ledger, Stage, a_dialer, gate_of, policy_of
from tests.proxy.layers.tls_peers import TlsClient, TlsOrigin, client_context, origin_context
from tests.wire.hellos import real_hello

ALLOWLIST = """
allow:
  - example.com
  - {host: opaque.example, tls: passthrough}
  - {host: plain.example, scheme: http}
  - {host: both.example, ports: [8080]}
  - {host: both.example, ports: [8080], scheme: http}
  - {host: 192.0.2.1}
  - {host: "2001:db8::1"}
deny:
  - host: example.com
    paths: ["/forbidden"]
"""
GREETING, NO_LOGIN = b"\x05\x01\x00", b"\x05\x00"
GRANTED, DENIED = reply(SocksReply.GRANTED), reply(SocksReply.DENIED)
DENIED_ALERT = b"\x15\x03\x03\x00\x02\x02\x31"
PLAIN_GET = b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
CREDENTIALS = ClientCredentials("user", "password")
LOGIN = b"\x01\x04user\x08password"
CORPORATE = UpstreamProxy(Authority.of("proxy.example", 3128))

type PlaySocks = Callable[..., Stage]


@pytest.fixture
def play(ledger: Ledger, authority: CertificateAuthority) -> PlaySocks:
    leaf_contexts = LeafContexts(authority)

    def begin(
        gate: Gate | None = None, upstream_proxy: UpstreamProxy | None = None, **settings: Any
    ) -> Stage:
        return Stage(
            lambda context, session: ProtocolDetection(
                context, session, a_dialer(upstream_proxy=upstream_proxy)
            ),
            gate or gate_of(ALLOWLIST, ledger),
            roots=authority.certificate_path,
            leaf_contexts=leaf_contexts,
            **settings,
        )

    return begin


@pytest.fixture
def stage(play: PlaySocks) -> Stage:
    return play()


@pytest.fixture
def dialling(play: PlaySocks) -> Stage:
    """A client that waits for its reply."""
    stage = play(connects=False)
    stage.says(GREETING + ask("example.com"))
    return stage


def ask(name: str | bytes, port: int = 443, *, command: int = 1) -> bytes:
    data = name.encode() if isinstance(name, str) else name
    return bytes([5, command, 0, 3, len(data)]) + data + port.to_bytes(2)


def ask_address(*octets: int, port: int = 443) -> bytes:
    kind = 1 if len(octets) == 4 else 4
    return bytes([5, 1, 0, kind, *octets]) + port.to_bytes(2)


def tunnel(stage: Stage, name: str = "example.com", port: int = 443) -> Stage:
    assert stage.says(GREETING + ask(name, port)) == NO_LOGIN + GRANTED
    return stage


# --- the request


def test_a_denied_host_is_refused_and_nothing_dialled(stage: Stage, ledger: Ledger) -> None:
    answer = stage.says(GREETING + ask("evil.example"))

    assert answer == NO_LOGIN + DENIED
    assert stage.client.closed
    assert stage.upstreams == []
    [decision] = ledger.decisions
    assert (decision.phase, decision.method) == (Phase.CONNECT, "SOCKS")
    assert (decision.target, decision.reason) == ("evil.example:443", "no-rule")
    assert ledger.last.status == 403


def test_an_allowed_host_is_dialled_before_the_reply(play: PlaySocks, ledger: Ledger) -> None:
    stage = play(connects=False)

    before = stage.says(GREETING + ask("example.com"))
    held, waiting = stage.client.held, stage.session.waiting
    after = stage.reached()

    assert (before, after) == (NO_LOGIN, GRANTED)
    assert (held, stage.client.held) == (True, False)
    assert (waiting, stage.session.waiting) == (Waiting.UPSTREAM, Waiting.HANDSHAKE)
    assert [peer.address for peer in stage.upstreams] == [("example.com", 443)]
    assert stage.session.target == Authority.of("example.com", 443)
    assert ledger.outcomes == []


@pytest.mark.parametrize("name", ["EXAMPLE.com", "example.com."])
def test_another_spelling_is_the_same_host(stage: Stage, name: str) -> None:
    assert stage.says(GREETING + ask(name)) == NO_LOGIN + GRANTED
    assert stage.upstream.address == ("example.com", 443)


UNREADABLE = {
    "empty": b"",
    "a NUL": b"example.com\x00.evil.example",
    "a NUL at the end": b"example.com\x00",
    "CR and LF": b"example.com\r\nevil.example",
    "LF": b"example.com\n",
    "percent": b"example%2ecom",
    "a space": b"example.com ",
    "too long": b"a." * 126 + b"com",
    "a long label": b"a" * 64 + b".com",
    "not ASCII": "exämple.com".encode(),
    "full-width": "ｅxample.com".encode(),
    "two dots": b"example.com..",
    "brackets": b"[example.com]",
    "an address in brackets": b"[2001:db8::1]",
    "a zone id": b"fe80::1%eth0",
    "a port": b"example.com:443",
    "a user": b"me@example.com",
    "a path": b"example.com/",
    "octal": b"0300.0.2.1",
    "short": b"192.0.513",
    "one number": b"3221225985",
    "hexadecimal": b"0xc0000201",
    "mapped, dotted": b"::ffff:192.0.2.1",
    "not canonical": b"2001:DB8::1",
}


@pytest.mark.parametrize("name", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_name_with_more_than_one_meaning_is_denied(
    stage: Stage, ledger: Ledger, name: bytes
) -> None:
    answer = stage.says(GREETING + ask(name))

    assert answer == NO_LOGIN + DENIED
    assert stage.upstreams == []
    assert ledger.reasons == ["invalid-target"]
    assert ledger.decisions[0].target == f"{name.decode('latin-1')}:443"


def test_port_0_is_denied(stage: Stage, ledger: Ledger) -> None:
    assert stage.says(GREETING + ask("example.com", 0)) == NO_LOGIN + DENIED
    assert ledger.reasons == ["invalid-target"]


@pytest.mark.parametrize(
    ("request_bytes", "target"),
    [
        (ask_address(192, 0, 2, 1), "192.0.2.1:443"),
        (ask("192.0.2.1"), "192.0.2.1:443"),
        (ask_address(*bytes.fromhex("20010db8000000000000000000000001")), "[2001:db8::1]:443"),
        (ask("2001:db8::1"), "[2001:db8::1]:443"),
    ],
)
def test_a_literal_address_is_the_same_in_either_form(
    stage: Stage, ledger: Ledger, request_bytes: bytes, target: str
) -> None:
    assert stage.says(GREETING + request_bytes) == NO_LOGIN + GRANTED
    assert ledger.decisions[0].target == target


@pytest.mark.parametrize(
    "request_bytes",
    [
        ask_address(127, 0, 0, 1),
        ask_address(169, 254, 169, 254, port=80),
        ask_address(192, 0, 2, 2),
        ask_address(*bytes(10), 255, 255, 192, 0, 2, 1),
        ask_address(*bytes(15), 1),
        ask("127.0.0.1"),
        ask("localhost"),
    ],
)
def test_an_address_that_no_rule_names_is_denied(
    stage: Stage, ledger: Ledger, request_bytes: bytes
) -> None:
    assert stage.says(GREETING + request_bytes) == NO_LOGIN + DENIED
    assert ledger.reasons == ["no-rule"]
    assert stage.upstreams == []


@pytest.mark.parametrize(
    ("command", "method"), [(2, "BIND"), (3, "UDP"), (0, "SOCKS"), (9, "SOCKS")]
)
def test_only_connect_is_done(stage: Stage, ledger: Ledger, command: int, method: str) -> None:
    answer = stage.says(GREETING + ask("example.com", command=command))

    assert answer == NO_LOGIN + reply(SocksReply.COMMAND_NOT_SUPPORTED)
    assert stage.client.closed
    [decision] = ledger.decisions
    assert (decision.reason, decision.method) == ("method-refused", method)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x05\x01\x00\x02", reply(SocksReply.ADDRESS_NOT_SUPPORTED)),
        (b"\x05\x01\x01\x03", reply(SocksReply.FAILED)),
        (b"\x04\x01\x01\xbb", reply(SocksReply.FAILED)),
        (real_hello("example.com"), reply(SocksReply.FAILED)),
        (b"GET / HTTP/1.1\r\n\r\n", reply(SocksReply.FAILED)),
        (b"\x05\x01\x02", reply(SocksReply.FAILED)),  # another greeting
    ],
)
def test_what_is_no_request_is_a_bad_one(
    stage: Stage, ledger: Ledger, said: bytes, answer: bytes
) -> None:
    assert stage.says(GREETING + said) == NO_LOGIN + answer
    assert stage.client.closed
    assert ledger.reasons == ["bad-request"]


def test_nothing_is_heard_after_a_denial(stage: Stage, ledger: Ledger) -> None:
    stage.says(GREETING + ask("evil.example") + GREETING + ask("example.com"))

    assert stage.says(GREETING + ask("example.com")) == b""
    assert stage.upstreams == []
    assert len(ledger.decisions) == 1


def test_a_fault_in_the_policy_denies(play: PlaySocks, ledger: Ledger) -> None:
    stage = play(Gate(BrokenPolicy(), ledger.events.append))

    assert stage.says(GREETING + ask("example.com")) == NO_LOGIN + DENIED
    assert ledger.reasons == ["internal-error"]


def test_what_cannot_be_recorded_is_denied(play: PlaySocks) -> None:
    def full_disk(_: object) -> None:
        raise AuditError("the disk is full")

    stage = play(Gate(policy_of(ALLOWLIST), full_disk))

    assert stage.says(GREETING + ask("example.com")) == NO_LOGIN + DENIED
    assert stage.upstreams == []


def test_a_relay_may_announce_a_client_of_socks(play: PlaySocks, ledger: Ledger) -> None:
    play(local=True).says(encode("blue", "git", "") + GREETING + ask("evil.example"))

    assert ledger.decisions[0].client == "127.0.0.1:50000, claims run blue: git"


# --- the reply


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (DialError(Failure.REFUSED, "no"), SocksReply.REFUSED, "connect-refused"),
        (DialError(Failure.UNRESOLVED, "no"), SocksReply.UNREACHABLE, "dns-failed"),
        (DialError(Failure.UNREACHABLE, "no"), SocksReply.UNREACHABLE, "connect-unreachable"),
        (DialError(Failure.TIMEOUT, "no"), SocksReply.UNREACHABLE, "connect-timeout"),
        (DialError(Failure.PROXY, "no"), SocksReply.FAILED, "upstream-proxy-failed"),
        (
            DialError(Failure.DENIED, "no", denied(Reason.ADDRESS_NOT_ALLOWED)),
            SocksReply.DENIED,
            "address-not-allowed",
        ),
        (
            DialError(Failure.DENIED, "no", denied(Reason.PROXY_LOOP)),
            SocksReply.DENIED,
            "proxy-loop",
        ),
    ],
)
def test_the_reply_says_what_came_of_the_dial(
    dialling: Stage, ledger: Ledger, error: DialError, code: SocksReply, word: str
) -> None:
    answer = dialling.reached(error)

    assert answer == reply(code)
    assert dialling.client.closed
    assert (ledger.last.error, ledger.last.status) == (
        word,
        403 if code is SocksReply.DENIED else 502,
    )


@pytest.mark.parametrize("leave", [Stage.client_goes, Stage.client_half_closes])
def test_a_client_that_leaves_before_the_reply_ends_the_dial(
    dialling: Stage, ledger: Ledger, leave: Callable[[Stage], object]
) -> None:
    leave(dialling)

    assert dialling.upstream.closed
    assert dialling.client.closed
    assert ledger.last.error == "client-closed"


def test_a_dial_without_end_is_given_up(dialling: Stage, ledger: Ledger) -> None:
    assert dialling.expires() == reply(SocksReply.UNREACHABLE)
    assert dialling.upstream.closed
    assert dialling.client.closed
    assert ledger.last.error == "connect-timeout"


def test_a_rule_that_goes_during_the_dial_takes_it_along(dialling: Stage, ledger: Ledger) -> None:
    assert dialling.is_withdrawn() == DENIED
    assert dialling.upstream.closed
    assert ledger.last.error == "rule-withdrawn"


def test_what_comes_before_the_reply_waits_for_it(play: PlaySocks, ledger: Ledger) -> None:
    stage = play(connects=False)

    before = stage.says(GREETING + ask("example.com") + real_hello("evil.example")[:50])
    before += stage.says(real_hello("evil.example")[50:])
    after = stage.reached()

    assert (before, after) == (NO_LOGIN, GRANTED + DENIED_ALERT)
    assert ledger.reasons == ["rule-matched", "sni-mismatch"]


@pytest.mark.parametrize("spoils", [Stage.answers, Stage.upstream_ends])
def test_an_upstream_that_speaks_or_leaves_before_the_reply_is_not_used(
    dialling: Stage, spoils: Callable[..., bytes]
) -> None:
    first = dialling.upstream
    spoils(dialling, *([b"SSH-2.0-x\r\n"] if spoils is Stage.answers else []))

    assert dialling.reached() == GRANTED
    assert first.closed
    assert dialling.session.preconnected is None


# --- inside


def test_every_byte_may_come_alone(stage: Stage) -> None:
    sent = GREETING + ask("plain.example", 80) + PLAIN_GET

    answer = b"".join(stage.says(bytes([byte])) for byte in sent)

    assert answer == NO_LOGIN + GRANTED
    assert stage.upstream.take() == PLAIN_GET


def test_everything_may_come_at_once(stage: Stage) -> None:
    answer = stage.says(GREETING + ask("plain.example", 80) + PLAIN_GET)

    assert answer == NO_LOGIN + GRANTED
    assert stage.upstream.take() == PLAIN_GET
    assert len(stage.upstreams) == 1


def test_the_open_connection_is_used_once_and_then_dialled_again(stage: Stage) -> None:
    tunnel(stage, "plain.example", 80)
    stage.says(PLAIN_GET)
    first = stage.upstream
    stage.answers(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    stage.says(PLAIN_GET)

    assert first.take() == PLAIN_GET
    assert first.closed
    assert stage.upstream is not first
    assert stage.upstream.take() == PLAIN_GET


def test_plain_http_stays_in_the_tunnel_and_is_judged(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage, "plain.example", 80)

    answer = stage.says(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")

    assert reason_of(answer) == "host-mismatch"
    assert stage.upstream.take() == b""
    assert ledger.reasons == ["rule-matched", "host-mismatch"]


def test_tls_is_intercepted_over_the_open_connection(
    stage: Stage, ledger: Ledger, authority: CertificateAuthority
) -> None:
    tunnel(stage)
    client = TlsClient(stage, client_context(authority), "example.com")
    client.pump()

    denied = client.says(b"GET /forbidden HTTP/1.1\r\nHost: example.com\r\n\r\n")
    client.says(b"GET /ok HTTP/1.1\r\nHost: example.com\r\n\r\n")
    origin = TlsOrigin(stage, origin_context(authority, "example.com"))

    assert reason_of(denied) == "deny-rule"
    assert origin.gets() == b"GET /ok HTTP/1.1\r\nHost: example.com\r\n\r\n"
    assert len(stage.upstreams) == 1
    assert ledger.reasons == ["rule-matched", "deny-rule", "rule-matched"]


@pytest.mark.parametrize(
    ("host", "sent", "reason"),
    [
        ("example.com", real_hello("evil.example"), "sni-mismatch"),
        ("example.com", real_hello(None), "sni-missing"),
        ("opaque.example", real_hello("example.com"), "sni-mismatch"),
        ("example.com", b"SSH-2.0-x\r\n", "not-tls"),
        ("opaque.example", b"GET / HTTP/1.1\r\n", "not-tls"),
        ("example.com", b"\x05\x01\x00", "not-tls"),
        ("opaque.example", encode("red", "x", ""), "not-tls"),
        ("opaque.example", b"CONNECT evil.example:443 HTTP/1.1\r\n", "not-tls"),
    ],
)
def test_what_disagrees_or_is_no_tls_goes_nowhere(
    stage: Stage, ledger: Ledger, host: str, sent: bytes, reason: str
) -> None:
    tunnel(stage, host)

    stage.says(sent)

    assert stage.client.closed
    assert stage.upstream.take() == b""
    assert ledger.reasons == ["rule-matched", reason]
    assert [outcome.error for outcome in ledger.outcomes] == [None, reason]


def test_tls_is_refused_where_only_plain_http_is_allowed(stage: Stage) -> None:
    tunnel(stage, "plain.example", 80)

    assert stage.says(real_hello("plain.example")) == DENIED_ALERT


def test_a_passed_through_hello_goes_over_the_open_connection(stage: Stage, ledger: Ledger) -> None:
    sent = real_hello("opaque.example")
    tunnel(stage, "opaque.example")

    stage.says(sent)
    back = stage.answers(b"\x15hello")
    stage.upstream_ends()

    assert (stage.upstream.take(), back) == (sent, b"\x15hello")
    assert len(stage.upstreams) == 1
    assert stage.client.closed
    assert ledger.last.upstream == "203.0.113.5:443"
    assert ledger.decisions[0].scheme == "tls"


def test_a_silent_tunnel_is_closed_in_time(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage)

    stage.expires()

    assert stage.client.closed
    assert ledger.last.error == "handshake-timeout"


# --- through another proxy


@pytest.mark.parametrize(
    ("name", "port", "tunnelled"),
    [("example.com", 443, True), ("plain.example", 80, False), ("both.example", 8080, True)],
)
def test_another_proxy_is_asked_for_a_tunnel_where_tls_may_be_spoken(
    play: PlaySocks, name: str, port: int, *, tunnelled: bool
) -> None:
    stage = tunnel(play(upstream_proxy=CORPORATE), name, port)
    server = stage.upstream.connection

    assert isinstance(server, UpstreamServer)
    assert server.tunnel is tunnelled


@pytest.mark.parametrize(
    ("name", "port", "sent"),
    [("plain.example", 80, "http://plain.example/"), ("both.example", 8080, "/")],
)
def test_plain_http_suits_the_connection_that_it_goes_over(
    play: PlaySocks, name: str, port: int, sent: str
) -> None:
    stage = tunnel(play(upstream_proxy=CORPORATE), name, port)
    host = name if port == 80 else f"{name}:{port}"
    message = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    expected = f"GET {sent} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    stage.says(message)
    first = stage.upstream
    stage.answers(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    stage.says(message)

    assert stage.upstream is not first
    assert (first.take(), stage.upstream.take()) == (expected, expected)


# --- credentials


@pytest.fixture
def guarded(play: PlaySocks) -> Stage:
    return play(credentials=CREDENTIALS)


@pytest.mark.parametrize("methods", [b"\x02", b"\x00\x02", b"\x02\x00", b"\x01\x80\x02\xff"])
def test_valid_credentials_are_accepted(guarded: Stage, methods: bytes) -> None:
    greeting = bytes([5, len(methods)]) + methods

    assert guarded.says(greeting) == b"\x05\x02"
    assert guarded.says(LOGIN) == b"\x01\x00"
    assert guarded.says(ask("example.com")) == GRANTED


@pytest.mark.parametrize("methods", [b"", b"\x00", b"\x01", b"\x00\x01\x80", b"\xff"])
def test_a_client_that_shows_no_credentials_is_refused(
    guarded: Stage, ledger: Ledger, methods: bytes
) -> None:
    answer = guarded.says(bytes([5, len(methods)]) + methods + ask("example.com"))

    assert answer == b"\x05\xff"
    assert guarded.client.closed
    assert guarded.upstreams == []
    [decision] = ledger.decisions
    assert (decision.phase, decision.reason) == (Phase.CLIENT, "client-not-authenticated")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (b"user", b"passwor"),
        (b"user", b"password\x00"),
        (b"user", b""),
        (b"", b"password"),
        (b"", b""),
        (b"User", b"password"),
        (b"user:password", b""),
        (b"u" * 255, b"\xff" * 255),
        (b"password", b"user"),
    ],
)
def test_wrong_credentials_are_refused_and_the_connection_closed(
    guarded: Stage, ledger: Ledger, user: bytes, password: bytes
) -> None:
    login = bytes([1, len(user)]) + user + bytes([len(password)]) + password

    answer = guarded.says(b"\x05\x01\x02" + login + ask("example.com"))

    assert answer == b"\x05\x02\x01\x01"
    assert guarded.client.closed
    assert guarded.upstreams == []
    assert ledger.reasons == ["client-not-authenticated"]
    assert "passwor" not in repr(ledger.events)
    assert guarded.says(LOGIN + ask("example.com")) == b""


@pytest.mark.parametrize("said", [ask("example.com"), GREETING, b"\x00" * 9])
def test_a_login_cannot_be_left_out(guarded: Stage, ledger: Ledger, said: bytes) -> None:
    assert guarded.says(b"\x05\x02\x00\x02" + said) == b"\x05\x02\x01\x01"
    assert guarded.client.closed
    assert ledger.reasons == ["bad-request"]


def test_a_login_may_come_byte_by_byte(guarded: Stage) -> None:
    sent = b"\x05\x01\x02" + LOGIN + ask("example.com")

    answer = b"".join(guarded.says(bytes([byte])) for byte in sent)

    assert answer == b"\x05\x02\x01\x00" + GRANTED


def test_requests_in_the_tunnel_of_a_known_client_show_no_more_credentials(
    guarded: Stage,
) -> None:
    guarded.says(b"\x05\x01\x02" + LOGIN + ask("plain.example", 80) + PLAIN_GET)

    assert guarded.upstream.take() == PLAIN_GET


def test_without_required_credentials_no_login_is_requested(stage: Stage) -> None:
    assert stage.says(b"\x05\x02\x02\x00") == NO_LOGIN


@pytest.mark.parametrize("login", [LOGIN, b"\x01\x00\x00", b"\x01\x01\xff\x01\x00"])
def test_without_required_credentials_any_login_is_accepted(stage: Stage, login: bytes) -> None:
    assert stage.says(b"\x05\x01\x02" + login + ask("example.com")) == b"\x05\x02\x01\x00" + GRANTED


@pytest.mark.parametrize("methods", [b"", b"\x01", b"\x03\x80"])
def test_a_client_of_other_methods_alone_is_refused(stage: Stage, methods: bytes) -> None:
    assert stage.says(bytes([5, len(methods)]) + methods) == b"\x05\xff"
    assert stage.client.closed


# --- ends


@pytest.mark.parametrize(
    "said", [b"\x05", b"\x05\xff\x00", GREETING, GREETING + ask("example.com")[:-1]]
)
def test_a_handshake_that_does_not_come_in_time_is_closed(
    stage: Stage, ledger: Ledger, said: bytes
) -> None:
    stage.says(said)
    waiting = stage.session.waiting

    assert stage.expires() == b""
    assert stage.client.closed
    assert waiting is Waiting.HEAD
    assert ledger.events == []


def test_a_slow_handshake_gains_no_time_by_its_steps(stage: Stage) -> None:
    turn = stage.session.wait_id

    for byte in GREETING + ask("example.com")[:-1]:
        stage.says(bytes([byte]))

    assert stage.session.wait_id == turn


@pytest.mark.parametrize("leave", [Stage.client_goes, Stage.client_half_closes])
@pytest.mark.parametrize("said", [b"\x05", GREETING, GREETING + ask("example.com")[:-1]])
def test_a_client_may_leave_in_the_middle(
    stage: Stage, ledger: Ledger, leave: Callable[[Stage], object], said: bytes
) -> None:
    stage.says(said)

    leave(stage)

    assert stage.client.closed
    assert ledger.events == []
