"""The proxy is asked about each name once at a time; without its answer nothing is allowed."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_proxy.sandbox.relay.bridge import Loop
from claude_proxy.sandbox.relay.name_questions import NameQuestions
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.wire import lookup_answer, proxy_protocol

type Ports = tuple[int, ...] | None


class Rig:
    """A fake proxy, and a loop that takes a turn when it is told to."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.loop = Loop()
        stack.callback(self.loop.close)
        self.path = str(directory / "proxy.sock")
        self.listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.listener.bind(self.path)
        self.listener.listen(1024)
        self.listener.settimeout(60)
        self._stack = stack
        self.time = 0.0
        self.loop.now = lambda: self.time
        target = RelayTarget("the proxy", socket.AF_UNIX, self.path)
        self.questions = NameQuestions(self.loop, target, b"")
        stack.callback(self.questions.close)
        self.found: list[Ports] = []

    def ask(self, name: str) -> None:
        self.questions.ask(name, self.found.append)

    def turns(self, count: int = 4) -> None:
        for _ in range(count):
            self.loop.step(0.01)

    def accepted(self) -> socket.socket:
        self.turns()
        peer = self._stack.enter_context(self.listener.accept()[0])
        peer.settimeout(60)
        return peer


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack, tmp_path)


def test_the_question_names_what_was_looked_up(rig: Rig) -> None:
    rig.ask("a.example")

    head = proxy_protocol.read(bytearray(rig.accepted().recv(1024)))

    assert head is not None
    assert head.asked == "a.example"


@pytest.mark.parametrize("ports", [(443, 5432), ()])
def test_the_answer_is_passed_on(rig: Rig, ports: tuple[int, ...]) -> None:
    rig.ask("a.example")
    peer = rig.accepted()

    answer = lookup_answer.encode(ports)
    peer.sendall(answer[:4])
    rig.turns()
    assert rig.found == []
    peer.sendall(answer[4:])
    rig.turns()

    assert rig.found == [ports]


def test_who_asks_for_the_same_name_meanwhile_gets_the_same_answer(rig: Rig) -> None:
    rig.ask("a.example")
    rig.ask("a.example")
    rig.accepted().sendall(lookup_answer.encode((443,)))
    rig.turns()

    assert rig.found == [(443,), (443,)]
    rig.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        rig.listener.accept()


def test_a_proxy_that_hangs_up_has_given_no_answer(rig: Rig) -> None:
    rig.ask("a.example")
    rig.accepted().shutdown(socket.SHUT_WR)
    rig.turns()

    assert rig.found == [None]


def test_an_answer_that_is_cut_short_allows_nothing(rig: Rig) -> None:
    rig.ask("a.example")
    peer = rig.accepted()
    peer.sendall(b"allowed 44")
    peer.shutdown(socket.SHUT_WR)
    rig.turns()

    assert rig.found == [()]


def test_a_proxy_that_is_not_there_yet_is_asked_again(rig: Rig) -> None:
    Path(rig.path).rename(f"{rig.path}.away")
    rig.ask("a.example")
    assert rig.found == []

    Path(f"{rig.path}.away").rename(rig.path)
    rig.time += 1
    rig.turns()
    rig.accepted().sendall(lookup_answer.encode((443,)))
    rig.turns()

    assert rig.found == [(443,)]


def test_a_proxy_that_never_answers_is_waited_for_only_so_long(rig: Rig) -> None:
    rig.ask("a.example")
    rig.accepted()
    rig.time += 60
    rig.turns()

    assert rig.found == [None]


def test_what_is_too_much_at_once_is_asked_about_later(rig: Rig) -> None:
    for number in range(100):
        rig.ask(f"{number}.example")

    for number in range(100):
        rig.accepted().sendall(lookup_answer.encode((443 + number,)))
        rig.turns()

    assert sorted(ports for found in rig.found for ports in found or ()) == [*range(443, 543)]


def test_a_flood_of_names_has_an_end(rig: Rig) -> None:
    for number in range(1000):
        rig.ask(f"{number}.example")

    assert len(rig.found) == 1000 - 64 - 512
    assert set(rig.found) == {None}
