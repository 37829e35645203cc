"""Where something runs short, who uses most of it is shed first, and what nobody would miss."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import pytest

from claude_proxy.proxy import shares
from claude_proxy.proxy.shares import (
    CONNECTIONS,
    MEMORY,
    SOCKETS,
    Resource,
    Share,
    Shares,
    Standing,
)

MIB = 1024 * 1024
PROBLEM = "it is full"


@dataclass(eq=False)
class Held:
    """A connection that is what a test says."""

    shares: Shares
    share: Share
    kind: Standing = Standing.BUSY
    since: float = 0.0
    sockets: int = 1
    waiting_bytes: int = 0
    was_shed: bool = False

    def work(self) -> bool:
        return False

    def balance(self) -> None:
        pass

    def standing(self, _: float) -> tuple[Standing, float]:
        return self.kind, self.since

    def shed(self) -> None:
        self.was_shed = True
        self.shares.leave(self.share, self)


class House:
    """The connections of some clients."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.told: list[str] = []
        self.shares.report = self.told.append

    def has(self, client: Hashable, count: int = 1, **facts: object) -> list[Held]:
        share = self.shares.of(client)
        made = [Held(self.shares, share, **facts) for _ in range(count)]  # type: ignore[arg-type]
        for connection in made:
            self.shares.join(share, connection)
        return made

    def wants(
        self,
        client: Hashable,
        resource: Resource = CONNECTIONS,
        wanting: Held | None = None,
        more: int = 1,
    ) -> bool:
        share = self.shares.of(client)
        return self.shares.make_room(resource, share, PROBLEM, wanting=wanting, more=more)


def played(play: Callable[[House], None]) -> House:
    house = House()

    async def run() -> None:
        play(house)

    asyncio.run(run())
    return house


def shed(connections: list[Held]) -> int:
    return sum(connection.was_shed for connection in connections)


def test_connections_of_one_client_have_one_share() -> None:
    house = House()
    first, second = house.has("a", 2)

    assert first.share is second.share is house.shares.of("a")
    assert house.shares.of("a") is not house.shares.of("b")


def test_a_share_is_forgotten_with_its_last_connection() -> None:
    house = House()
    first, second = house.has("a", 2)
    share = first.share
    house.shares.leave(share, first)
    assert house.shares.of("a") is share
    house.shares.leave(share, second)

    assert house.shares.of("a") is not share


def test_the_client_with_most_connections_makes_room_for_another() -> None:
    def play(house: House) -> None:
        greedy, modest = house.has("greedy", 10), house.has("modest", 3)

        assert house.wants("newcomer")
        assert (shed(greedy), shed(modest)) == (1, 0)

    played(play)


def test_a_client_is_not_shed_for_one_that_would_have_more() -> None:
    def play(house: House) -> None:
        first, second = house.has("first", 5), house.has("second", 5)

        assert not house.wants("first")
        assert (shed(first), shed(second)) == (0, 0)

    played(play)


def test_a_client_gives_up_for_itself_only_what_it_does_not_need() -> None:
    def play(house: House) -> None:
        busy, idle = house.has("only", 10), house.has("only", kind=Standing.IDLE)

        assert house.wants("only")
        assert (shed(busy), shed(idle)) == (0, 1)
        assert not house.wants("only")
        assert shed(busy) == 0

    played(play)


def test_of_the_greediest_client_the_connection_with_least_to_lose_is_shed() -> None:
    def play(house: House) -> None:
        kinds = {kind: house.has("greedy", 3, kind=kind, since=5.0) for kind in Standing}
        (oldest,) = house.has("greedy", kind=Standing.IDLE, since=1.0)

        for _ in range(4):
            house.has("newcomer")
            assert house.wants("newcomer")
        assert oldest.was_shed
        assert shed(kinds[Standing.IDLE]) == 3
        assert shed(kinds[Standing.SLOW]) == 0
        house.wants("newcomer")
        assert shed(kinds[Standing.SLOW]) == 1

    played(play)


def test_nobody_would_miss_a_twentieth_at_a_time() -> None:
    def play(house: House) -> None:
        idle = house.has("only", 100, kind=Standing.IDLE)

        assert house.wants("only")
        assert shed(idle) == 5

    played(play)


def test_a_search_that_found_nothing_is_not_repeated_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "_PAUSE_S", 60.0)

    def play(house: House) -> None:
        house.has("only", 3)
        assert not house.wants("only")
        idle = house.has("only", 3, kind=Standing.IDLE)

        assert not house.wants("only")
        assert shed(idle) == 0

    played(play)


def test_the_connection_with_most_sockets_is_shed_even_for_another_of_its_client() -> None:
    def play(house: House) -> None:
        hogs = house.has("only", 6, sockets=90)
        (hog,) = house.has("only", sockets=110, since=9.0, kind=Standing.BUSY)
        (newcomer,) = house.has("only", sockets=2)

        assert house.wants("only", SOCKETS, newcomer, more=0)
        assert (shed(hogs), hog.was_shed, newcomer.was_shed) == (0, True, False)

    played(play)


def test_a_connection_is_never_shed_for_itself() -> None:
    def play(house: House) -> None:
        (hog,) = house.has("only", sockets=90)

        assert not house.wants("only", SOCKETS, hog, more=0)
        assert not hog.was_shed

    played(play)


def test_the_largest_body_makes_room_for_a_smaller_one() -> None:
    def play(house: House) -> None:
        large = house.has("greedy", 15, waiting_bytes=32 * MIB)
        (small,) = house.has("modest", waiting_bytes=MIB)

        assert house.wants("modest", MEMORY, small, more=MIB)
        assert shed(large) == 1
        (larger,) = house.has("modest", waiting_bytes=500 * MIB)
        assert not house.wants("modest", MEMORY, larger, more=32 * MIB)

    played(play)


def test_bytes_that_wait_in_all_are_bounded() -> None:
    def play(house: House) -> None:
        greedy = house.has("greedy", 4, waiting_bytes=10)
        (modest,) = house.has("modest", waiting_bytes=20)
        house.shares.relieve_memory(limit=60)
        assert shed(greedy) == 0
        house.shares.relieve_memory(limit=59)
        assert (shed(greedy), modest.was_shed) == (1, False)
        house.shares.relieve_memory(limit=40)
        assert (shed(greedy), modest.was_shed) == (2, False)

    played(play)


def test_what_ran_short_is_reported_once_with_who_was_shed() -> None:
    def play(house: House) -> None:
        house.has("10.0.0.1", 10)
        house.has((1000, 77), 9, kind=Standing.IDLE)
        house.wants("newcomer")
        house.wants("newcomer")

    (line,) = played(play).told

    assert line == f"{PROBLEM}; 1 connection was closed, of 10.0.0.1, which had 10"


def test_a_process_is_named_by_its_number_and_user() -> None:
    shares = Shares()

    assert str(shares.of((1000, 77))) == "process 77 of user 1000"
    assert str(shares.of((1000, 0))) == "process ? of user 1000"


def test_that_nothing_could_be_shed_is_reported_too() -> None:
    def play(house: House) -> None:
        house.has("only", 3)
        house.wants("only")

    assert played(play).told == [f"{PROBLEM}; nothing could be closed, so more is refused"]
