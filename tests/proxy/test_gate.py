"""The gate decides and records in one step, or denies."""

import logging
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import count

import pytest

from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import AuditError
from claude_proxy.events import DecisionMade, Event, Notice, OutcomeSeen, Phase
from claude_proxy.policy.credentials.decision import AvailableSecrets
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.proxy.gate import ClientInfo, Gate, NoSecrets
from claude_proxy.proxy.name_limits import RATE_LIMIT
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import BrokenPolicy, Ledger, gate_of, policy_of

ORIGIN = ClientInfo(7, "127.0.0.1:50000", "tcp")
EXAMPLE = Authority.of("example.com", 443)
EVIL = Authority.of("evil.example", 443)
OPAQUE = Authority.of("opaque.example", 443)
PRIVATE = ip_address("10.0.0.1")
POLICY = policy_of(
    """
    allow:
      - example.com
      - {host: opaque.example, tls: passthrough}
    """
)
GET = Request(Scheme.HTTPS, EXAMPLE, EXAMPLE, "GET", "/path")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def gate(ledger: Ledger) -> Gate:
    return Gate(POLICY, ledger.events.append)


class Disk:
    """Records until it is full."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        if self.full:
            raise AuditError("the disk is full")
        self.events.append(event)


def test_a_decision_is_recorded_before_it_is_obeyed(gate: Gate, ledger: Ledger) -> None:
    passage = gate.request(ORIGIN, GET, "/path?shown")

    assert passage.decision.allowed
    assert ledger.events == [
        DecisionMade(
            id=passage.id,
            connection=7,
            client="127.0.0.1:50000",
            listener="tcp",
            phase=Phase.REQUEST,
            scheme="https",
            target="example.com:443",
            method="GET",
            path="/path?shown",
            allowed=True,
            reason="rule-matched",
            rule="example.com",
            rule_source="allowlist.yaml:3",
        )
    ]


def test_a_tunnel_of_any_protocol_is_recorded_as_such_and_ends_with_its_rule(
    ledger: Ledger,
) -> None:
    target = Authority.of("raw.example", 22)
    gate = gate_of("allow: [{host: raw.example, scheme: tcp, ports: [22]}]", ledger)

    gate.connect(ORIGIN, target)

    assert ledger.decisions[-1].scheme == "tcp"
    assert gate.may_stay_open(target, passthrough=True, raw=True)
    gate.policy = policy_of("allow: [{host: raw.example, ports: [22]}]")
    assert not gate.may_stay_open(target, passthrough=False, raw=True)


def test_a_passthrough_tunnel_is_recorded_as_such(gate: Gate, ledger: Ledger) -> None:
    gate.connect(ORIGIN, EXAMPLE)
    gate.connect(ORIGIN, OPAQUE)

    assert [decision.scheme for decision in ledger.decisions] == ["", "tls"]
    assert [decision.method for decision in ledger.decisions] == ["CONNECT", "CONNECT"]


def test_a_denial_names_no_rule(gate: Gate, ledger: Ledger) -> None:
    passage = gate.connect(ORIGIN, EVIL)

    assert not passage.decision.allowed
    assert (ledger.decisions[0].rule, ledger.decisions[0].rule_source) == (None, None)


def test_without_a_valid_ca_only_what_is_not_intercepted_is_allowed(
    gate: Gate, ledger: Ledger
) -> None:
    gate.can_intercept = lambda: False
    gate.connect(ORIGIN, EXAMPLE)
    gate.connect(ORIGIN, OPAQUE)
    gate.connect(ORIGIN, EVIL)

    assert ledger.reasons == ["ca-unusable", "rule-matched", "no-rule"]
    assert [decision.allowed for decision in ledger.decisions] == [False, True, False]


def test_decision_ids_ascend_although_the_clock_stops_or_goes_back(ledger: Ledger) -> None:
    times: Iterator[int] = iter((5, 5, 3, 9))
    gate = Gate(POLICY, ledger.events.append, clock_ns=lambda: next(times))

    ids = [gate.connect(ORIGIN, EXAMPLE).id for _ in range(4)]

    assert ids == [5, 6, 7, 9]
    assert [decision.time_ns for decision in ledger.decisions] == [5, 5, 3, 9]


# --- ClientHello and addresses: only a denial is a new fact


def test_a_hello_that_agrees_is_not_recorded(gate: Gate, ledger: Ledger) -> None:
    assert gate.hello(ORIGIN, EXAMPLE, "example.com", encrypted=False, tls=Tls.INTERCEPT) is None
    assert ledger.events == []


@pytest.mark.parametrize(
    ("sni", "encrypted", "reason"),
    [
        ("evil.example", False, "sni-mismatch"),
        (None, False, "sni-missing"),
        ("example.com", True, "encrypted-hello"),
    ],
)
def test_a_hello_that_disagrees_is_denied_and_recorded(
    gate: Gate, ledger: Ledger, sni: str | None, *, encrypted: bool, reason: str
) -> None:
    denied = gate.hello(ORIGIN, EXAMPLE, sni, encrypted=encrypted, tls=Tls.PASSTHROUGH)

    assert denied is not None
    assert denied.decision.reason == reason
    assert (ledger.reasons, ledger.decisions[0].phase) == ([reason], Phase.HELLO)


def test_an_allowed_address_is_not_recorded(gate: Gate, ledger: Ledger) -> None:
    assert gate.address(ORIGIN, EXAMPLE, ip_address("93.184.216.34")).allowed
    assert ledger.events == []


def test_an_address_that_is_denied_is_recorded(gate: Gate, ledger: Ledger) -> None:
    decision = gate.address(ORIGIN, EXAMPLE, PRIVATE)

    assert decision.reason is Reason.ADDRESS_NOT_ALLOWED
    assert (ledger.reasons, ledger.decisions[0].phase) == (["address-not-allowed"], Phase.DIAL)


@pytest.mark.parametrize(
    ("address", "owner", "reason"),
    [
        ("93.184.216.34", AddressOwner.OWN_LISTENER, "proxy-loop"),
        ("93.184.216.34", AddressOwner.THIS_MACHINE, "address-not-allowed"),
    ],
)
def test_an_address_of_this_machine_that_is_denied_is_recorded(
    gate: Gate, ledger: Ledger, address: str, owner: AddressOwner, reason: str
) -> None:
    decision = gate.address(ORIGIN, EXAMPLE, ip_address(address), owner)

    assert (decision.allowed, decision.reason.value) == (False, reason)
    assert (ledger.reasons, ledger.decisions[0].phase) == ([reason], Phase.DIAL)


def test_a_dial_is_judged_by_the_policy_of_the_moment(gate: Gate, ledger: Ledger) -> None:
    before = gate.dial(ORIGIN, EXAMPLE)
    gate.policy = Policy()
    after = gate.dial(ORIGIN, EXAMPLE)

    assert (before.allowed, after.allowed) == (True, False)
    assert ledger.reasons == ["no-rule"]


def test_a_refusal_that_needs_no_rule_is_recorded_too(gate: Gate, ledger: Ledger) -> None:
    passage = gate.refuse(
        ORIGIN, Phase.CONNECT, Reason.INVALID_TARGET, "a..b:443", method="CONNECT"
    )

    assert passage.decision.reason is Reason.INVALID_TARGET
    assert (ledger.decisions[0].target, ledger.reasons) == ("a..b:443", ["invalid-target"])


# --- a denial after the first decision

ADDRESS = ip_address("10.0.0.1")


def test_a_later_denial_names_the_attempt_that_it_ends(gate: Gate, ledger: Ledger) -> None:
    client = ClientInfo(7, "127.0.0.1:50000", "tcp", "blue")
    attempt = gate.request(client, GET, "/path?shown")
    gate.address(client, EXAMPLE, ADDRESS)
    gate.end(attempt, "address-not-allowed")

    first, later = ledger.decisions
    assert (later.allowed, later.attempt, later.phase) == (False, first.id, Phase.DIAL)
    assert (later.method, later.scheme, later.path) == ("GET", "https", "/path?shown")
    assert (first.run, later.run) == ("blue", "blue")


def test_an_attempt_that_has_ended_is_not_ended_again(gate: Gate, ledger: Ledger) -> None:
    client = ClientInfo(7, "127.0.0.1:50000", "tcp")
    gate.end(gate.request(client, GET, "/"))

    gate.address(client, EXAMPLE, ADDRESS)

    assert ledger.decisions[1].attempt is None
    assert client.attempts == {}


def test_a_dial_ends_the_attempt_on_its_own_target(gate: Gate, ledger: Ledger) -> None:
    client = ClientInfo(7, "127.0.0.1:50000", "tcp")
    wanted = gate.connect(client, EXAMPLE)
    gate.connect(client, OPAQUE)

    gate.address(client, EXAMPLE, ADDRESS)

    assert ledger.decisions[2].attempt == wanted.id


def test_an_outcome_knows_what_its_decision_was(gate: Gate, ledger: Ledger) -> None:
    gate.end(gate.connect(ORIGIN, EXAMPLE))
    gate.end(gate.connect(ORIGIN, EVIL))

    assert [outcome.allowed for outcome in ledger.outcomes] == [True, False]


def test_an_attempt_has_the_id_under_which_it_was_recorded() -> None:
    gate = Gate(POLICY, lambda _: 4711)

    assert gate.connect(ORIGIN, EXAMPLE).id == 4711


# --- recorded or denied; fail closed

type Ask = Callable[[Gate], Decision]


def hello(gate: Gate) -> Decision:
    denied = gate.hello(ORIGIN, EXAMPLE, "example.com", encrypted=False, tls=Tls.INTERCEPT)
    assert denied is not None
    return denied.decision


@pytest.mark.parametrize(
    "ask",
    [
        lambda gate: gate.connect(ORIGIN, EXAMPLE).decision,
        lambda gate: gate.request(ORIGIN, GET, "/").decision,
        hello,
        lambda gate: gate.dial(ORIGIN, EXAMPLE),
        lambda gate: gate.address(ORIGIN, EXAMPLE, PRIVATE),
    ],
    ids=["connect", "request", "hello", "dial", "address"],
)
def test_a_fault_in_the_policy_denies(ledger: Ledger, ask: Ask) -> None:
    gate = Gate(BrokenPolicy(), ledger.events.append)

    decision = ask(gate)

    assert (decision.allowed, decision.reason) == (False, Reason.INTERNAL_ERROR)
    assert ledger.reasons == ["internal-error"]


def test_a_decision_that_cannot_be_recorded_is_a_denial() -> None:
    gate = Gate(POLICY, Disk(full=True).record)

    decision = gate.connect(ORIGIN, EXAMPLE).decision

    assert (decision.allowed, decision.reason) == (False, Reason.AUDIT_FAILED)


def test_an_unexpected_recording_error_always_denies() -> None:
    def record(event: Event) -> None:
        raise TypeError(f"a bug with {event}")

    gate = Gate(POLICY, record, audit_failure=AuditFailure.ALLOW)

    decision = gate.connect(ORIGIN, EXAMPLE).decision

    assert (decision.allowed, decision.reason) == (False, Reason.INTERNAL_ERROR)


def test_an_owner_may_ask_that_the_unrecorded_be_allowed() -> None:
    gate = Gate(POLICY, Disk(full=True).record, audit_failure=AuditFailure.ALLOW)

    assert gate.connect(ORIGIN, EXAMPLE).decision.allowed
    assert not gate.connect(ORIGIN, EVIL).decision.allowed


@pytest.mark.parametrize(
    ("wanted", "then"),
    [
        (AuditFailure.DENY, "denied"),
        (AuditFailure.ALLOW, "allowed, as configured"),
    ],
)
def test_an_outage_is_reported_once(
    caplog: pytest.LogCaptureFixture, wanted: AuditFailure, then: str
) -> None:
    disk = Disk(full=True)
    gate = Gate(POLICY, disk.record, audit_failure=wanted)

    for full in (True, True, False, True):
        disk.full = full
        gate.connect(ORIGIN, EXAMPLE)

    text = f"the disk is full; until this is fixed everything is {then}"
    assert [(entry.levelno, entry.message) for entry in caplog.records] == [
        (logging.ERROR, text)
    ] * 2


# --- outcomes


def test_an_outcome_is_recorded_once(gate: Gate, ledger: Ledger) -> None:
    passage = gate.request(ORIGIN, GET, "/")
    passage.bytes_up, passage.bytes_down, passage.upstream = 3, 5, "203.0.113.5:443"
    gate.answered(passage, 200)

    gate.end(passage)
    gate.end(passage, "client-closed")

    (outcome,) = ledger.outcomes
    assert (outcome.decision, outcome.status, outcome.error) == (passage.id, 200, None)
    assert (outcome.bytes_up, outcome.bytes_down) == (3, 5)
    assert outcome.upstream == "203.0.113.5:443"
    assert outcome.first_byte_ms is not None
    assert 0 <= outcome.first_byte_ms <= outcome.duration_ms


def test_an_attempt_without_an_answer_has_no_first_byte(gate: Gate, ledger: Ledger) -> None:
    gate.end(gate.connect(ORIGIN, EVIL))

    assert ledger.outcomes[0].first_byte_ms is None
    assert ledger.outcomes[0].status is None


@pytest.mark.parametrize(("word", "recorded"), [(None, "noted"), ("said", "said")])
def test_the_error_given_at_the_end_takes_precedence(
    gate: Gate, ledger: Ledger, word: str | None, recorded: str
) -> None:
    passage = gate.connect(ORIGIN, EXAMPLE)
    passage.error = "noted"

    gate.end(passage, word)

    assert ledger.outcomes[0].error == recorded


def test_an_outcome_that_cannot_be_recorded_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    gate = Gate(POLICY, disk.record)
    passage = gate.connect(ORIGIN, EXAMPLE)
    disk.full = True

    gate.end(passage)

    assert "the disk is full" in caplog.text
    assert not [event for event in disk.events if isinstance(event, OutcomeSeen)]


def test_the_clock_is_only_asked_for_a_number() -> None:
    numbers = count(10)
    disk = Disk()
    gate = Gate(POLICY, disk.record, clock_ns=lambda: next(numbers))

    gate.end(gate.connect(ORIGIN, EXAMPLE))

    assert next(numbers) == 11


def test_first_bytes_that_are_refused_end_the_attempt_that_opened_the_tunnel(
    gate: Gate, ledger: Ledger
) -> None:
    attempt = gate.connect(ORIGIN, EXAMPLE)

    gate.refuse_first_bytes(ORIGIN, attempt, Reason.NOT_TLS, EXAMPLE)
    gate.end(attempt, "client-closed")

    opened, refused = ledger.decisions
    assert (refused.reason, refused.phase) == ("not-tls", Phase.HELLO)
    assert (refused.attempt, refused.method) == (opened.id, "CONNECT")
    assert [outcome.error for outcome in ledger.outcomes] == [None, "not-tls"]


# --- connections that are kept ready


def test_what_would_be_dialled_is_decided_and_not_recorded(gate: Gate, ledger: Ledger) -> None:
    assert gate.would_dial(EXAMPLE)
    assert not gate.would_dial(EVIL)
    assert not gate.would_dial_address(EXAMPLE, PRIVATE, AddressOwner.OTHER).allowed
    assert ledger.events == []


def test_a_fault_in_the_policy_would_dial_nothing(ledger: Ledger) -> None:
    gate = Gate(BrokenPolicy(), ledger.events.append)

    assert not gate.would_dial(EXAMPLE)
    assert not gate.would_dial_address(EXAMPLE, PRIVATE, AddressOwner.OTHER).allowed


def test_terms_are_those_of_one_policy_object(gate: Gate) -> None:
    terms = gate.terms(None)
    assert gate.terms(None).are_those_of(terms)
    gate.policy = policy_of("allow: [example.com]")

    assert not gate.terms(None).are_those_of(terms)


@pytest.mark.parametrize("choice", list(AuditFailure))
def test_a_connection_ahead_that_cannot_be_recorded_is_opened_only_if_so_configured(
    choice: AuditFailure,
) -> None:
    gate = Gate(POLICY, Disk(full=True).record, audit_failure=choice)

    assert gate.note_warm(ORIGIN, "a connection") is (choice is AuditFailure.ALLOW)


def test_a_fault_of_the_record_opens_no_connection_ahead() -> None:
    def record(_: Event) -> int | None:
        raise RuntimeError("a bug")

    assert not Gate(POLICY, record).note_warm(ORIGIN, "a connection")


# --- marks of credentials


class Rotating(NoSecrets):
    """A provider whose secrets a test changes."""

    def __init__(self, values: AvailableSecrets) -> None:
        self.secrets = values


def test_a_mark_tells_credentials_and_their_values_apart_and_nothing_else(ledger: Ledger) -> None:
    values = Rotating({"a": Secret(b"old value"), "b": Secret(b"old value")})
    gate = Gate(POLICY, ledger.events.append, secret_provider=values)
    first = [gate.mark_of(name) for name in ("a", "b", "c", None)]

    values.secrets = {"a": Secret(b"old value"), "b": Secret(b"new value")}
    second = [gate.mark_of(name) for name in ("a", "b", "c", None)]

    assert len({*first, *second}) == 5
    assert first[0] == second[0]
    assert "old value" not in repr(first)


def test_a_mark_is_of_no_use_in_another_process(ledger: Ledger) -> None:
    values = Rotating({"a": Secret(b"old value")})
    gates = [Gate(POLICY, ledger.events.append, secret_provider=values) for _ in range(2)]

    assert len({gate.mark_of("a") for gate in gates}) == 2


# --- lookups

WILD = policy_of("""
allow:
  - example.com
  - "*.wild.example"
""")


def test_a_denied_lookup_is_recorded(gate: Gate, ledger: Ledger) -> None:
    found = gate.look_up(ORIGIN, "evil.example")

    assert (found.decision.allowed, found.ports) == (False, ())
    (made,) = ledger.decisions
    assert (made.method, made.target, made.reason) == ("LOOKUP", "evil.example:443", "no-rule")
    assert len(ledger.outcomes) == 1


def test_the_lookup_of_a_name_that_a_rule_spells_out_is_part_of_the_tunnel_that_follows(
    gate: Gate, ledger: Ledger
) -> None:
    assert gate.look_up(ORIGIN, "example.com").ports == (443,)
    assert ledger.events == []


def test_the_first_lookup_of_a_name_below_a_wildcard_is_recorded(ledger: Ledger) -> None:
    gate = Gate(WILD, ledger.events.append)

    for _ in range(3):
        assert gate.look_up(ORIGIN, "a.wild.example").decision.allowed

    (notice,) = ledger.events
    assert isinstance(notice, Notice)
    assert "a.wild.example" in notice.text


def test_too_many_names_below_a_wildcard_are_denied(ledger: Ledger) -> None:
    gate = Gate(WILD, ledger.events.append)

    found = [gate.look_up(ORIGIN, f"n{n}.wild.example") for n in range(RATE_LIMIT + 1)]

    assert [each.decision.allowed for each in found] == [True] * RATE_LIMIT + [False]
    assert ledger.decisions[-1].reason == "name-limit"
    assert gate.look_up(ORIGIN, "n0.wild.example").decision.allowed
    assert gate.look_up(ORIGIN, "example.com").decision.allowed


def test_a_lookup_that_cannot_be_recorded_is_denied() -> None:
    disk = Disk(full=True)
    gate = Gate(WILD, disk.record)

    assert not gate.look_up(ORIGIN, "a.wild.example").decision.allowed
    assert not gate.look_up(ORIGIN, "evil.example").decision.allowed


def test_a_fault_denies_a_lookup(ledger: Ledger) -> None:
    gate = Gate(BrokenPolicy(), ledger.events.append)

    assert not gate.look_up(ORIGIN, "example.com").decision.allowed
    assert ledger.reasons == ["internal-error"]
