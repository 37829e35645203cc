"""Launcher and keeper talk in JSON, and either may be gone."""

import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.container.keeper_link import (
    KeeperChannel,
    KeeperEndedError,
    LauncherLink,
    ask,
    line_from,
    order_socket,
)

type Ends = tuple[KeeperChannel, LauncherLink]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, link = KeeperChannel(1, ours), LauncherLink(theirs)
    yield channel, link
    channel.close()
    link.drop()


def test_what_the_keeper_says_is_printed_until_the_event_comes(ends: Ends) -> None:
    channel, link = ends
    said: list[str] = []
    link.say("note: one")
    link.tell("started", pid=7)

    found = channel.wait_for("started", said.append)

    assert (found["pid"], said) == (7, ["note: one"])


def test_an_error_of_the_keeper_is_the_launchers_error(ends: Ends) -> None:
    channel, link = ends
    link.fail(ConfigError("no", where="there", fix="this"))

    with pytest.raises(ConfigError, match="no") as caught:
        channel.wait_for("started", print)

    assert (caught.value.where, caught.value.fix) == ("there", "this")


def test_a_failure_is_told_to_the_keeper_whose_end_is_waited_for(ends: Ends) -> None:
    channel, link = ends
    said: list[str] = []
    link.fail(ConfigError("the start was given up"))
    link.say("warning: one")
    link.tell("ended")

    channel.fail(127, said.append)

    assert link.hear() == {"order": "failed", "code": 127}
    assert said == ["warning: one"]


def test_a_failure_is_told_to_nobody_if_the_keeper_has_ended(ends: Ends) -> None:
    channel, link = ends
    link.drop()

    channel.fail(1, print)


def test_a_keeper_is_left_when_it_has_said_all_that_it_had_to_say(ends: Ends) -> None:
    channel, link = ends
    said: list[str] = []
    link.say("note: one")
    leaving = threading.Thread(target=channel.leave, args=(said.append,))
    leaving.start()

    assert link.hear() == {"order": "leave"}
    link.say("note: two")
    link.drop()
    leaving.join()

    assert said == ["note: one", "note: two"]


def test_a_keeper_that_is_gone_is_an_error_and_hears_nothing(ends: Ends) -> None:
    channel, link = ends
    link.drop()

    channel.send("exit", code=1)

    with pytest.raises(KeeperEndedError):
        channel.wait_for("started", print)


def test_a_launcher_that_is_gone_says_nothing_more(ends: Ends) -> None:
    channel, link = ends
    channel.send("exit", code=3)
    channel.close()

    assert link.hear() == {"order": "exit", "code": 3}
    assert link.hear() is None
    assert link.descriptors == []
    link.say("to nobody")


def test_orders_reach_the_keeper_of_a_container_however_long_its_path(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    store.make_directory(directory)

    with order_socket(directory) as listening:
        assert stat.S_IMODE((directory / store.KEEPER_SOCKET).stat().st_mode) == 0o600

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.sendall(line_from(client).replace(b"order", b"heard"))

        thread = threading.Thread(target=answer)
        thread.start()
        found = ask(directory, "status")
        thread.join()

    assert found == {"heard": "status"}


def test_without_a_keeper_there_is_no_answer(tmp_path: Path) -> None:
    assert ask(tmp_path / "nowhere", "status") is None
    assert ask(tmp_path, "status") is None


def test_a_socket_that_was_left_is_replaced(tmp_path: Path) -> None:
    order_socket(tmp_path).close()

    order_socket(tmp_path).close()


def test_an_error_without_a_known_form_is_still_one(ends: Ends) -> None:
    channel, link = ends
    link.tell("failed", error={"what": "odd"})

    with pytest.raises(ClaudeProxyError):
        channel.wait_for("started", print)
