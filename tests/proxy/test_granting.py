"""Laws of the gate about grants: whose they are, what is a use, and what goes on by one."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.control import present
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.control.grants_in_force import GrantsInForce, RunFacts
from claude_proxy.errors import AuditError
from claude_proxy.events import DecisionMade, Event
from claude_proxy.policy.grants import SECOND_NS, End, GrantedRun
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.proxy.gate import Attempt, ClientInfo, Gate
from claude_proxy.wire.authority import Authority
from tests.policy.cases import rule
from tests.proxy.layers.stage import Ledger

HOUR_NS = 3600 * SECOND_NS
HOST = Authority.of("new.test", 443)
BUILD = RunFacts(GrantedRun("build", "build.1"), "/code")


def client(number: int = 1, run: str | None = None) -> ClientInfo:
    return ClientInfo(number, "127.0.0.1:5000", "tcp", run)


def get(path: str = "/", target: Authority = HOST) -> Request:
    return Request(Scheme.HTTPS, target, target, "GET", path)


class Granted:
    """A gate with grants."""

    def __init__(self, statedir: Path) -> None:
        store = GrantStore.open(statedir, make=True)
        assert store is not None
        self.store = store
        self.ledger = Ledger()
        self.gate = Gate(Policy((rule("listed.test"),)), self.ledger.events.append)
        self.known = GrantsInForce(statedir, {"build": BUILD}.get)
        self.gate.grants = self.known

    def grant(self, one: Rule | None = None, **changes: Any) -> int:
        given: dict[str, Any] = {"lasts_ns": HOUR_NS} | changes
        made = self.store.make(Draft((one or rule("new.test"),), "alice", **given), present.now())
        self.known.look()
        return made.number

    def asks(self, who: ClientInfo, request: Request | None = None) -> Attempt:
        return self.gate.request(who, request or get(), "/")

    def ends(self, number: int, why: End = End.REVOKED) -> None:
        self.store.end(number, why, present.now())
        self.known.look()


@pytest.fixture
def granted(tmp_path: Path) -> Iterator[Granted]:
    found = Granted(tmp_path)
    with found.store:
        yield found
        found.known.close()


def test_what_a_grant_allows_is_recorded_with_its_number(granted: Granted) -> None:
    number = granted.grant()

    attempt = granted.asks(client())

    assert attempt.decision.allowed
    assert attempt.event is not None
    assert attempt.event.rule_source == f"grant {number}"


def test_a_grant_of_a_run_allows_nothing_to_others(granted: Granted) -> None:
    granted.grant(run=BUILD.run)

    assert granted.asks(client(1, "build")).decision.allowed
    for other in (client(2), client(3, "other")):
        assert granted.gate.connect(other, HOST).decision.reason is Reason.NO_RULE
        assert granted.asks(other).decision.reason is Reason.NO_RULE
        assert not granted.gate.look_up(other, "new.test").decision.allowed
        assert not granted.gate.would_dial(HOST, other)
    assert granted.gate.look_up(client(1, "build"), "new.test").decision.allowed


def test_a_tunnel_that_is_intercepted_is_no_use_and_each_request_is(granted: Granted) -> None:
    granted.grant(uses=2)
    who = client()

    assert granted.gate.connect(who, HOST).decision.allowed
    results = [granted.asks(who).decision.reason for _ in range(3)]

    assert results == [Reason.RULE_MATCHED, Reason.RULE_MATCHED, Reason.NO_RULE]


@pytest.mark.parametrize(
    "one",
    [
        rule("new.test", tls=Tls.PASSTHROUGH),
        rule("new.test", scheme=RawScheme.TCP, ports=[5432]),
    ],
    ids=str,
)
def test_a_tunnel_that_nobody_looks_into_is_a_use(granted: Granted, one: Rule) -> None:
    granted.grant(one, uses=1)
    port = next(iter(one.ports or ()))
    target = Authority.of("new.test", port)

    first, second = client(1), client(2)

    attempt = granted.gate.connect(first, target)
    assert attempt.decision.allowed
    assert not granted.gate.connect(second, target).decision.allowed
    assert granted.gate.dial(first, target).allowed
    stays = granted.gate.may_stay_open(
        target, passthrough=True, raw=attempt.decision.raw, client_info=first
    )
    assert stays
    assert not granted.gate.dial(second, target).allowed


def test_what_the_list_allows_is_no_use(granted: Granted) -> None:
    granted.grant(rule(".test"), uses=1)
    listed = Authority.of("listed.test", 443)

    for _ in range(3):
        attempt = granted.asks(client(), get(target=listed))
        assert attempt.grant is None
    assert granted.asks(client()).took_use


def test_the_request_that_took_the_last_use_goes_on(granted: Granted) -> None:
    granted.grant(rule("new.test", addresses=["10.0.0.1/32"]), uses=1)
    who, gate = client(), granted.gate
    attempt = granted.asks(who)
    granted.known.look()

    assert gate.dial(who, HOST).allowed
    assert gate.address(who, HOST, ip_address("10.0.0.1"), AddressOwner.OTHER).allowed
    assert gate.leave(who, attempt, get()).allowed
    assert gate.content(who, attempt, get(), b"").allowed
    assert gate.lost_target(who) is None

    gate.end(attempt)
    assert not gate.dial(who, HOST).allowed
    assert not granted.asks(who).decision.allowed


def test_a_second_stream_does_not_go_on_by_the_use_of_another(granted: Granted) -> None:
    granted.grant(uses=1)
    who = client()

    assert granted.asks(who).decision.allowed
    assert granted.asks(who).decision.reason is Reason.NO_RULE


def test_a_request_goes_on_by_another_grant_where_one_is_used_up(granted: Granted) -> None:
    first, second = granted.grant(uses=1), granted.grant(uses=1)
    granted.store.take_use(first, present.now())  # by another proxy, which nobody told this one of

    attempt = granted.asks(client())

    assert attempt.grant == second
    assert attempt.took_use


@pytest.mark.parametrize("uses", [None, 1])
def test_what_is_going_on_ends_with_a_revoked_grant(granted: Granted, uses: int | None) -> None:
    number = granted.grant(uses=uses)
    who = client()
    attempt = granted.asks(who)

    granted.ends(number)

    assert granted.gate.lost_target(who) == "new.test:443"
    assert not granted.gate.dial(who, HOST).allowed
    assert not granted.gate.content(who, attempt, get(), b"").allowed


def test_connections_kept_ready_are_closed_with_the_grant(granted: Granted) -> None:
    number, who = granted.grant(), client()
    before = granted.gate.terms(None, who)
    assert granted.gate.terms(None, who).are_those_of(before)

    granted.ends(number)

    assert not granted.gate.terms(None, who).are_those_of(before)
    assert granted.gate.terms(None, who).are_those_of(granted.gate.terms(None))


def test_a_use_that_cannot_be_recorded_leaves_nothing(granted: Granted) -> None:
    def record(event: Event) -> int | None:
        if isinstance(event, DecisionMade):
            raise AuditError("the disk is full")
        return None

    granted.grant(uses=1)
    granted.gate._record = record

    assert granted.asks(client()).decision.reason is Reason.AUDIT_FAILED
    assert not granted.asks(client()).decision.allowed
