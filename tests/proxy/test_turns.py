"""A client that has used its turn waits until everybody else was served; alone it never waits."""

import asyncio
from collections.abc import Callable

from claude_proxy.proxy.turns import (
    SLICE_S,
    TURN_S,
    WAITING_LIMIT,
    WHOLE_READ,
    ClientTurns,
    Turns,
)


class Clock:
    """A clock that stands still until work moves it on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Job:
    """Work of equal steps, each of a slice's half; notes each step in a log of all."""

    def __init__(self, name: str, steps: int, log: list[str], turns: Turns, clock: Clock) -> None:
        self.name = name
        self.left = steps
        self.balanced = 0
        self._log = log
        self._turns = turns
        self._clock = clock

    def work(self) -> bool:
        while self.left:
            self.left -= 1
            self._log.append(self.name)
            self._clock.now += SLICE_S / 2
            if self._turns.is_over():
                break
        return self.left > 0

    def balance(self) -> None:
        self.balanced += 1


class Rig:
    """Clients with work, on a loop."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.log: list[str] = []

    def client(self, **jobs: int) -> ClientTurns:
        made = [Job(name, steps, self.log, self.turns, self.clock) for name, steps in jobs.items()]
        client = ClientTurns(self.turns, made)
        for job in made:
            client.wait(job)
        return client


def played(play: Callable[[Rig], object], turns: int = 200) -> Rig:
    """Run `play` on a loop, which then turns some times."""
    rig = Rig()

    async def run() -> None:
        play(rig)
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(run())
    return rig


def test_work_that_waits_is_done_in_order() -> None:
    rig = played(lambda rig: [rig.client(a=1), rig.client(b=1), rig.client(c=1)])

    assert rig.log == ["a", "b", "c"]


def test_a_client_with_little_to_do_is_served_within_one_turn_of_a_flood() -> None:
    rig = played(lambda rig: [rig.client(flood=100), rig.client(little=1)])

    assert rig.log.count("flood") == 100
    assert rig.log.index("little") <= TURN_S / (SLICE_S / 2)


def test_many_connections_of_a_client_have_one_turn_between_them() -> None:
    def play(rig: Rig) -> None:
        rig.client(**{f"flood{number}": 10 for number in range(50)})
        rig.client(little=1)

    rig = played(play, turns=1000)

    assert len(rig.log) == 501
    assert rig.log.index("little") <= TURN_S / (SLICE_S / 2)


def test_a_connection_with_little_to_do_goes_before_a_flood_of_the_same_client() -> None:
    def play(rig: Rig) -> None:
        flood = Job("flood", 100, rig.log, rig.turns, rig.clock)
        little = Job("little", 1, rig.log, rig.turns, rig.clock)
        client = ClientTurns(rig.turns, (flood, little))
        client.wait(flood, interrupted=True)
        client.wait(little)

    assert played(play).log.index("little") <= 2


def test_no_connection_waits_for_all_that_came_later_or_are_smaller() -> None:
    def play(rig: Rig) -> None:
        jobs = {name: Job(name, 2, rig.log, rig.turns, rig.clock) for name in "abcdef"}
        client = ClientTurns(rig.turns, jobs.values())
        for name, size in {"a": 900, "b": 800, "c": 2, "d": 1}.items():
            client.wait(jobs[name], size=size)
        for name in "ef":
            client.wait(jobs[name], interrupted=True)

    assert "".join(played(play).log[::2]) == "daecbf"


def test_the_loop_hears_of_others_between_two_turns() -> None:
    def play(rig: Rig) -> None:
        rig.client(flood=100)

        def hear() -> None:
            rig.log.append("heard")

        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(hear)))

    assert played(play).log.index("heard") <= 3 * TURN_S / (SLICE_S / 2)


def test_what_waits_is_put_off_while_clients_are_accepted_but_not_for_ever() -> None:
    iterations: list[int] = []

    def play(rig: Rig) -> None:
        rig.client(waiting=1)
        loop = asyncio.get_running_loop()

        def accept() -> None:
            if not rig.log:
                iterations.append(1)
                rig.turns.accepted()
                loop.call_soon(accept)

        accept()

    rig = played(play)

    assert rig.log == ["waiting"]
    assert 30 < len(iterations) < 36


def test_a_client_that_used_its_turn_at_once_is_due_until_its_next() -> None:
    seen: list[bool] = []

    def play(rig: Rig) -> None:
        client = rig.client()
        client.begin()
        rig.clock.now += TURN_S
        client.end()
        seen.append(client.is_due)
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(client.is_due))

    played(play)

    assert seen == [True, False]


def test_a_client_that_uses_little_is_not_due() -> None:
    def play(rig: Rig) -> None:
        client = rig.client()
        client.begin()
        rig.clock.now += TURN_S / 4
        client.end()
        assert not client.is_due

    played(play)


def test_work_that_fails_does_not_stop_the_turns_of_others() -> None:
    class Broken(Job):
        def work(self) -> bool:
            raise RuntimeError("a bug")

    def play(rig: Rig) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: rig.log.append("fault"))
        broken = Broken("broken", 1, rig.log, rig.turns, rig.clock)
        ClientTurns(rig.turns, (broken,)).wait(broken)
        rig.client(other=1)

    assert played(play).log == ["fault", "other"]


def test_reads_are_split_for_a_while_once_two_have_been_much_work() -> None:
    rig, work = Rig(), Clock()
    client = ClientTurns(Turns(rig.clock, work), ())
    read = bytes(200_000)

    def takes(seconds: float, *, waits: float = 0.0) -> None:
        client.begin()
        rig.clock.now += seconds + waits
        work.now += seconds
        client.weigh(len(read))

    takes(SLICE_S)
    takes(50 * SLICE_S)
    assert client.piece == WHOLE_READ
    takes(SLICE_S, waits=1.0)
    assert client.piece == WHOLE_READ
    takes(50 * SLICE_S)
    assert client.size_of_piece() == 4096
    rig.clock.now += 3600

    assert client.size_of_piece() == WHOLE_READ


def test_work_is_no_longer_measured_a_while_after_a_read_that_took_long() -> None:
    asked = Clock()

    def work_clock() -> float:
        asked.now += 1
        return 0.0

    clock = Clock()
    client = ClientTurns(Turns(clock, work_clock), ())
    client.begin()
    clock.now += 50 * SLICE_S
    client.weigh(200_000)
    before = asked.now

    client.begin()
    while_suspect = asked.now
    clock.now += 3600
    client.begin()

    assert before < while_suspect == asked.now


def test_no_connection_is_read_while_too_much_of_its_client_waits() -> None:
    rig = Rig()
    jobs = [Job("a", 1, rig.log, rig.turns, rig.clock), Job("b", 1, rig.log, rig.turns, rig.clock)]
    client = ClientTurns(rig.turns, jobs)

    seen: list[bool] = []
    for size in (WAITING_LIMIT, 1, -1, -WAITING_LIMIT // 2):
        client.count_waiting(size)
        seen.append(client.is_full)

    assert seen == [False, True, True, False]
    assert [job.balanced for job in jobs] == [2, 2]
