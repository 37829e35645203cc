"""An admitted request is judged and recorded first, and may still be refused afterwards."""

from dataclasses import replace

import pytest

from claude_proxy.policy.credentials.binding import Binding, Form, Injection
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import OVERRIDE_HEADERS
from claude_proxy.proxy import gate as gate_module
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.admission import Admission, Denied, admit, label_of, takes_long
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.upstream_errors import TIMED_OUT
from claude_proxy.proxy.upstream_hints import UpstreamHints
from claude_proxy.wire.authority import Authority
from tests.proxy.gateway.calls import SecretProvider
from tests.proxy.layers.stage import ORIGIN, Ledger, policy_of

VALUE = b"sk-ant-api03-REAL-VALUE"
HERE = Location("allowlist.yaml", 1, 1)
API = (HostPattern.parse("api.example.com"),)
KEY = Binding("gateway", API, Injection(EnvironmentSource("KEY"), form=Form.X_API_KEY), HERE)
RESTRICTED = ApiRestrictions(
    API, HERE, mcp_servers=DestinationScope(), sources=DestinationScope(), max_bytes=100
)
RULES = policy_of(
    "allow: [example.com, {host: api.example.com, methods: [POST], paths: [/v1/messages]}]"
)
POLICY = replace(RULES, credentials=(KEY,), restrictions=(RESTRICTED,))


@pytest.fixture
def session(ledger: Ledger) -> Session:
    gate = Gate(POLICY, ledger.events.append, secret_provider=SecretProvider())
    return Session(gate, ORIGIN, 65536)


def a_request(host: str = "example.com") -> Request:
    target = Authority.of(host, 443)
    return Request(Scheme.HTTPS, target, target, "GET", "/a", "q=1", [])


def a_call() -> Request:
    target = Authority.of("api.example.com", 443)
    return Request(Scheme.HTTPS, target, target, "POST", "/v1/messages", "", [])


CALL = a_call()


def admitted(session: Session, request: Request = CALL) -> Admission:
    admission = admit(session, request, f"{request.path}?{request.query}")
    assert isinstance(admission, Admission)
    return admission


def test_a_denied_request_has_no_admission(session: Session, ledger: Ledger) -> None:
    denied = admit(session, a_request("evil.example"), "/a?q=1")

    assert isinstance(denied, Denied)
    assert (denied.refusal.status, denied.refusal.reason) == (403, "no-rule")
    assert denied.refusal.label == "GET https://evil.example/a"
    assert ledger.reasons == ["no-rule"]


@pytest.mark.parametrize(("record_query", "path"), [(False, "/a"), (True, "/a?q=1")])
def test_the_query_is_recorded_only_if_the_owner_asked(
    session: Session, ledger: Ledger, *, record_query: bool, path: str
) -> None:
    session.record_query = record_query

    admitted(session, a_request())

    assert ledger.decisions[0].path == path


def test_of_a_query_only_that_it_begins_a_push_is_recorded(
    session: Session, ledger: Ledger
) -> None:
    push = replace(a_request(), path="/r/info/refs", query="service=git-receive-pack&token=secret")

    admitted(session, push)

    assert ledger.decisions[0].path == "/r/info/refs?service=git-receive-pack"


def test_an_error_has_a_hint_for_the_client_and_one_for_the_owner(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.hints = UpstreamHints("HTTPS_PROXY")
    error = DialError(Failure.UNRESOLVED, "the name example.com cannot be resolved")

    refusal = admitted(session, a_request()).fail(error)

    assert refusal.reason == "dns-failed"
    assert "--upstream-proxy" in refusal.explanation
    (warning,) = caplog.records
    assert warning.getMessage().startswith("the name example.com cannot be resolved; HTTPS_PROXY")


def test_an_address_of_this_machine_is_not_advised(session: Session) -> None:
    session.owns = lambda address: str(address) == "10.9.8.7"

    own, other = (admit(session, a_request(host), "/a") for host in ("10.9.8.7", "10.9.8.8"))

    assert isinstance(own, Denied)
    assert isinstance(other, Denied)
    assert own.refusal.command is None
    assert "without the proxy" in own.refusal.explanation
    assert other.refusal.command == "claude-proxy allow 10.9.8.8"


def test_a_denial_names_the_policy_in_force(session: Session) -> None:
    session.list_options = ("--policy", "acme")

    denied = admit(session, a_request("evil.example"), "/a")

    assert isinstance(denied, Denied)
    assert denied.refusal.command == "claude-proxy allow evil.example --policy acme"


def test_an_admission_brings_the_credential_and_shows_it_to_nobody(
    session: Session, ledger: Ledger
) -> None:
    provider = SecretProvider({"gateway": Secret(VALUE)})
    session.gate = Gate(POLICY, ledger.events.append, secret_provider=provider)
    admission = admitted(session)

    assert VALUE in dict(admission.extra).values()
    assert VALUE.decode() not in repr(admission)
    assert admission.inspector is not None


@pytest.mark.parametrize(("request_", "limited"), [(a_request(), False), (CALL, True)])
def test_override_fields_are_dropped_where_a_rule_limits_requests(
    session: Session, request_: Request, *, limited: bool
) -> None:
    assert (admitted(session, request_).drop >= OVERRIDE_HEADERS) is limited


def test_only_a_body_that_is_judged_has_a_limit(session: Session) -> None:
    assert admitted(session, a_request()).body_limit is None
    assert admitted(session).body_limit == 100


def test_a_body_past_its_limit_is_refused_before_and_while_it_comes(session: Session) -> None:
    admission = admitted(session)

    assert admission.check_length(100) is None
    assert admission.hold(60, held=40) is None
    for refusal in (admission.check_length(101), admission.hold(61, held=40)):
        assert refusal is not None
        assert refusal.status == 413


def test_without_a_limit_nothing_is_held(session: Session) -> None:
    admission = admitted(session, a_request())

    assert admission.check_length(10**12) is None
    assert admission.hold(1, held=0) is not None


def test_a_body_waits_only_while_there_is_room(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_HELD_LIMIT", 50)

    refusal = admitted(session).hold(51, held=0)

    assert refusal is not None
    assert (refusal.status, refusal.retry) == (503, True)


def test_a_body_that_cannot_be_read_does_not_leave(session: Session, ledger: Ledger) -> None:
    refusal = admitted(session).judge_body(b'{"model":"a","model":"b"}')

    assert refusal is not None
    assert (refusal.status, refusal.reason) == (403, "body-unreadable")
    assert ledger.reasons[-1] == "body-unreadable"


def test_a_policy_that_changed_during_the_dial_is_asked_again(session: Session) -> None:
    admission = admitted(session)
    assert admission.recheck() is None

    session.gate.policy = Policy(POLICY.allow)

    refusal = admission.recheck()
    assert refusal is not None
    assert refusal.reason == "credential-unavailable"


@pytest.mark.parametrize(("request_", "taken"), [(a_request(), True), (CALL, False)])
def test_no_trailer_follows_where_it_could_be_a_credential(
    session: Session, request_: Request, *, taken: bool
) -> None:
    assert admitted(session, request_).takes_trailers is taken


def test_an_upstreams_error_is_noted_for_the_audit_log(session: Session) -> None:
    admission = admitted(session)

    refusal = admission.fail(TIMED_OUT)

    assert (refusal.status, admission.attempt.error) == (504, "upstream-timeout")


@pytest.mark.parametrize(
    ("scheme", "port", "path", "label"),
    [
        (Scheme.HTTPS, 443, "/a", "GET https://example.com/a"),
        (Scheme.HTTPS, 8443, "/", "GET https://example.com:8443/"),
        (Scheme.HTTP, 80, "*", "GET http://example.com"),
        (Scheme.HTTP, 443, "/", "GET http://example.com:443/"),
    ],
)
def test_a_label_is_the_url_without_its_query(
    scheme: Scheme, port: int, path: str, label: str
) -> None:
    target = Authority.of("example.com", port)

    assert label_of(Request(scheme, target, target, "GET", path, "q=1", [])) == label


# --- judged ahead

SHORT = b'{"model":"a"}'


def test_what_was_judged_ahead_is_the_decision_about_that_body_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = admitted(session)
    admission.judge_ahead(SHORT)
    asked: list[bytes] = []
    judge = Policy.decide_content

    def count(policy: Policy, request: Request, body: bytes) -> Decision:
        asked.append(body)
        return judge(policy, request, body)

    monkeypatch.setattr(Policy, "decide_content", count)
    first = admission.judge_body(SHORT)
    other = admission.judge_body(bytes(bytearray(SHORT)))

    assert len(asked) == 1
    assert first == other


def test_what_was_judged_by_another_policy_is_judged_again(session: Session) -> None:
    admission = admitted(session)
    admission.judge_ahead(SHORT)
    session.gate.policy = Policy()
    refusal = admission.judge_body(SHORT)

    assert refusal is not None
    assert refusal.status == 403


@pytest.mark.parametrize(
    ("body", "takes"),
    [
        (b'{"model":"a"}', False),
        (b'{"text":"%s"}' % (b"x" * 200_000), False),
        (b'{"text":"%s"}' % (b"x" * 300_000), True),
        (b"[" * 600, True),
        (b"{" + b'"a":1,' * 200 + b"}", True),
    ],
)
def test_only_a_body_of_many_parts_takes_long(body: bytes, *, takes: bool) -> None:
    assert takes_long(body) is takes
