"""A running proxy follows the store of grants: it closes, records and tells what has ended."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from claude_proxy.control import present
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.events import Notice, Phase
from claude_proxy.policy.grants import SECOND_NS, End, GrantKind, Moment, everything
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.connection import Services
from claude_proxy.proxy.gate import Gate
from claude_proxy.server.gates import Gates
from claude_proxy.server.grant_watch import GrantWatch
from claude_proxy.server.prepared import Prepared
from tests.policy.cases import rule

HOUR_NS = 3600 * SECOND_NS


class Tunnel:
    """A connection that is closed when its rule is gone."""

    def __init__(self, *, is_lost: bool) -> None:
        self.is_lost = is_lost
        self.asked = 0
        self.attempts: dict[int, Any] = {}
        self.session = SimpleNamespace(
            client_info=SimpleNamespace(run=None, attempts=self.attempts)
        )

    def uses(self, grant: int, phase: Phase, *, took_use: bool = True) -> None:
        event = SimpleNamespace(phase=phase)
        attempt = SimpleNamespace(grant=grant, took_use=took_use, event=event)
        self.attempts[len(self.attempts)] = attempt

    def withdraw(self) -> bool:
        self.asked += 1
        return self.is_lost


@dataclass
class House:
    """A proxy as far as a watch knows it."""

    statedir: Path

    def __post_init__(self) -> None:
        self.notices: list[Notice] = []
        self.lines: list[str] = []
        self.tunnels = [Tunnel(is_lost=True), Tunnel(is_lost=False)]
        self.swept = 0
        self.gate = Gate(Policy(), lambda _: None)
        settings = SimpleNamespace(statedir=self.statedir, runs=self.statedir / "runs", listen=())
        prepared = SimpleNamespace(
            settings=settings,
            slot=SimpleNamespace(speaks=True),
            store=SimpleNamespace(record=self.notices.append),
            report=self.lines.extend,
        )
        services = SimpleNamespace(
            connections=self.tunnels, warm=SimpleNamespace(sweep=self._sweep), asking=None
        )
        self.watch = GrantWatch(
            cast("Prepared", prepared),
            cast("Services", services),
            cast("Gates", SimpleNamespace(proxy=self.gate)),
        )

    def _sweep(self) -> None:
        self.swept += 1

    def store(self) -> GrantStore:
        found = GrantStore.open(self.statedir, make=True)
        assert found is not None
        return found

    def makes(self, **changes: Any) -> int:
        given: dict[str, Any] = {"lasts_ns": HOUR_NS} | changes
        with self.store() as store:
            return store.make(Draft((rule("a.test"),), "alice", **given), present.now()).number

    def ends(self, number: int, why: End = End.REVOKED) -> None:
        with self.store() as store:
            store.end(number, why, present.now(), "bob")

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.watch.close()


def in_loop[T](act: Callable[[], T]) -> T:
    async def run() -> T:
        return act()

    return asyncio.run(run())


def test_without_a_store_the_gate_knows_no_grants(house: House) -> None:
    in_loop(house.watch.look)

    assert house.gate.grants is None
    assert house.watch.status() == []
    assert in_loop(house.watch.refresh) == 0


def test_a_new_store_is_noticed_and_its_grants_are_recorded_once(house: House) -> None:
    in_loop(house.watch.look)
    number = house.makes()

    in_loop(house.watch.look)
    in_loop(house.watch.look)

    assert house.gate.grants is not None
    assert [each["number"] for each in house.watch.status()] == [number]
    assert house.kinds() == ["grant-made"]


def test_what_only_a_revoked_grant_allowed_is_closed(house: House) -> None:
    number = house.makes()
    in_loop(house.watch.look)

    house.ends(number)

    assert in_loop(house.watch.refresh) == 1
    assert house.swept == 1
    assert house.kinds() == ["grant-made", "grant-revoked"]
    assert "by bob" in house.notices[-1].text
    assert house.watch.status() == []


def test_tunnels_of_a_grant_that_is_used_up_are_closed_a_little_later(house: House) -> None:
    number = house.makes(uses=1)
    in_loop(house.watch.look)
    assert house.gate.grants is not None
    assert house.gate.grants.take(number)

    assert in_loop(house.watch.refresh) == 0
    asked = [tunnel.asked for tunnel in house.tunnels]
    house.watch._idle_at = 0.0
    in_loop(house.watch.look)

    assert asked == [0, 0]
    assert [tunnel.asked for tunnel in house.tunnels] == [1, 1]
    assert house.kinds() == ["grant-made", "grant-ended"]


def test_what_took_the_last_use_is_closed_as_soon_as_it_is_revoked(house: House) -> None:
    number = house.makes(uses=1)
    in_loop(house.watch.look)
    assert house.gate.grants is not None
    assert house.gate.grants.take(number)
    in_loop(house.watch.look)

    house.ends(number)

    assert in_loop(house.watch.refresh) == 1


def test_what_took_the_last_use_is_closed_at_the_first_look_after_its_time(house: House) -> None:
    number = house.makes(uses=1)
    in_loop(house.watch.look)
    assert house.gate.grants is not None
    assert house.gate.grants.take(number)
    in_loop(house.watch.look)
    asked = [tunnel.asked for tunnel in house.tunnels]

    assert house.watch._known is not None
    house.watch._known._clock = hours_later
    in_loop(house.watch.look)

    assert [tunnel.asked for tunnel in house.tunnels] == [1 + count for count in asked]


def hours_later() -> Moment:
    now = present.now()
    return replace(now, wall_ns=now.wall_ns + 2 * HOUR_NS, boot_ns=now.boot_ns + 2 * HOUR_NS)


def test_a_used_up_grant_is_told_of_as_long_as_something_is_open_by_it(house: House) -> None:
    number = house.makes(uses=1)
    assert house.watch.used_up() == []
    in_loop(house.watch.look)
    assert house.gate.grants is not None
    first, second = house.tunnels
    first.uses(number, Phase.CONNECT)
    assert house.watch.used_up() == []
    assert house.gate.grants.take(number)
    first.uses(number, Phase.REQUEST)
    second.uses(number, Phase.CONNECT, took_use=False)
    second.uses(99, Phase.CONNECT)

    (told,) = house.watch.used_up()

    assert (told["number"], told["uses_left"]) == (number, 0)
    assert (told["open_tunnels"], told["open_requests"]) == (1, 1)
    first.attempts.clear()
    assert house.watch.used_up() == []


def test_an_open_time_is_told_at_its_begin_and_its_end(house: House) -> None:
    with house.store() as store:
        draft = Draft((everything(),), "alice", kind=GrantKind.OPEN, lasts_ns=HOUR_NS)
        store.make(draft, present.now())
    in_loop(house.watch.look)
    in_loop(house.watch.look)
    house.ends(1, End.CLOSED)
    in_loop(house.watch.look)

    assert [line.partition(" ")[0] for line in house.lines] == ["OPEN", "CLOSED"]
