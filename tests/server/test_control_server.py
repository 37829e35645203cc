"""The control server: whom it answers, and whom it drops, without anybody waiting for them."""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.control import protocol
from claude_proxy.control.protocol import Answer
from claude_proxy.errors import ConfigError
from claude_proxy.server import control_server
from claude_proxy.server.control_server import Call, ControlServer

type Talk = Callable[["Peers"], Awaitable[Any]]


class Peers:
    """Whoever connects to a server."""

    def __init__(self, path: Path, server: ControlServer) -> None:
        self.path = path
        self.server = server

    async def says(self, data: bytes, *, closes: bool = False) -> bytes:
        reader, writer = await self.connects()
        writer.write(data)
        if closes:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def asks(self, op: str, **arguments: object) -> Any:
        return json.loads(await self.says(protocol.encode_request(op, arguments)))

    async def connects(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="control-") as name:
        yield Path(name)


def play(directory: Path, talk: Talk, **handlers: control_server.Handler) -> Any:
    async def run() -> Any:
        server = ControlServer()
        for op, handler in handlers.items():
            server.add(op, handler)
        sock = socket.socket(socket.AF_UNIX)
        path = directory / "0.sock"
        sock.bind(str(path))
        sock.listen(8)
        await server.serve(sock)
        try:
            return await talk(Peers(path, server))
        finally:
            server.close()
            sock.close()

    return asyncio.run(run())


async def hello(call: Call) -> Answer:
    return {"hello": call.arguments.get("name"), "uid": call.peer.uid}


async def stream(call: Call) -> Answer:
    for number in range(3):
        await call.send({"number": number})
    return {"count": 3}


def test_an_operation_is_answered_with_who_asks(directory: Path) -> None:
    answer = play(directory, lambda peers: peers.asks("hello", name="x"), hello=hello)

    assert answer == {"ok": True, "hello": "x", "uid": os.geteuid()}


def test_a_stream_ends_with_its_answer(directory: Path) -> None:
    async def talk(peers: Peers) -> list[Any]:
        said = await peers.says(protocol.encode_request("stream", {}))
        return [json.loads(line) for line in said.splitlines()]

    lines = play(directory, talk, stream=stream)

    assert lines == [{"ok": True, "more": True, "number": number} for number in range(3)] + [
        {"ok": True, "count": 3}
    ]


def test_who_closes_the_writing_side_still_gets_the_answer(directory: Path) -> None:
    async def slow(_: Call) -> Answer:
        await asyncio.sleep(0.01)
        return {"late": True}

    said = play(directory, lambda peers: peers.says(b'{"op": "slow"}\n', closes=True), slow=slow)

    assert json.loads(said) == {"ok": True, "late": True}


@pytest.mark.parametrize("data", [b"hello\n", b"[]\n", b"{}\n", b'{"op": "none"}\n', b"\n"])
def test_what_is_not_understood_is_refused(directory: Path, data: bytes) -> None:
    said = play(directory, lambda peers: peers.says(data), hello=hello)

    assert json.loads(said)["ok"] is False


def test_a_request_without_an_end_is_refused_at_its_bound(directory: Path) -> None:
    said = play(
        directory, lambda peers: peers.says(b"a" * (protocol.REQUEST_BYTES + 1)), hello=hello
    )

    assert json.loads(said)["ok"] is False


def test_a_refusal_of_a_handler_says_what_where_and_fix(directory: Path) -> None:
    async def refuse(_: Call) -> Answer:
        raise ConfigError("bad rule", where="a.yaml:3", fix="correct it")

    answer = play(directory, lambda peers: peers.asks("refuse"), refuse=refuse)

    said = {"what": "bad rule", "where": "a.yaml:3", "fix": "correct it"}
    assert answer == {"ok": False, **said, "code": ConfigError.exit_code, "problems": []}


def test_a_fault_of_a_handler_names_its_type_and_nothing_else(directory: Path) -> None:
    async def fail(_: Call) -> Answer:
        raise ValueError("a secret")

    async def talk(peers: Peers) -> list[Any]:
        return [await peers.asks("fail"), await peers.asks("hello")]

    failed, next_one = play(directory, talk, fail=fail, hello=hello)

    assert failed["ok"] is False
    assert "ValueError" in failed["what"]
    assert "secret" not in json.dumps(failed)
    assert next_one["ok"] is True


def test_a_silent_peer_is_dropped_and_holds_nobody_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_READ_S", 0.05)

    async def talk(peers: Peers) -> tuple[Any, bytes]:
        silent, writer = await peers.connects()
        answer = await peers.asks("hello")
        said = await silent.read()
        writer.close()
        return answer, said

    answer, said = play(directory, talk, hello=hello)

    assert answer["ok"] is True
    assert said == b""


def test_a_peer_that_does_not_read_is_dropped(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_WRITE_S", 0.05)
    ended = asyncio.Event()

    async def flood(call: Call) -> Answer:
        try:
            while True:
                await call.send({"data": "a" * 100_000})
        finally:
            ended.set()

    async def talk(peers: Peers) -> Any:
        _, writer = await peers.connects()
        writer.write(protocol.encode_request("flood", {}))
        await ended.wait()
        writer.close()
        return await peers.asks("hello")

    answer = play(directory, talk, flood=flood, hello=hello)

    assert answer["ok"] is True


def test_a_stream_ends_when_its_peer_is_gone(directory: Path) -> None:
    ended = asyncio.Event()

    async def forever(call: Call) -> Answer:
        try:
            await call.send({"first": True})
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    async def talk(peers: Peers) -> None:
        reader, writer = await peers.connects()
        writer.write(protocol.encode_request("forever", {}))
        await reader.readline()
        writer.close()
        await ended.wait()

    play(directory, talk, forever=forever)

    assert ended.is_set()


def test_what_waits_for_something_ends_when_its_peer_is_gone(directory: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def forever(_: Call) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    async def talk(peers: Peers) -> None:
        _, writer = await peers.connects()
        writer.write(protocol.encode_request("forever", {}))
        await begun.wait()
        writer.close()
        await ended.wait()

    play(directory, talk, forever=forever)

    assert ended.is_set()


def test_more_peers_than_the_limit_are_turned_away(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_MOST_PEERS", 2)

    async def talk(peers: Peers) -> tuple[bytes, Any]:
        writers = [(await peers.connects())[1] for _ in range(2)]
        await asyncio.sleep(0)
        turned_away = b"?"
        while turned_away:
            try:
                turned_away = await peers.says(protocol.encode_request("hello", {}))
            except OSError:
                turned_away = b""
        for writer in writers:
            writer.close()
        answer = None
        while answer is None:
            try:
                answer = await peers.asks("hello")
            except (OSError, ValueError):
                await asyncio.sleep(0.01)
        return turned_away, answer

    turned_away, answer = play(directory, talk, hello=hello)

    assert turned_away == b""
    assert answer["ok"] is True


def test_another_user_is_not_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)

    async def talk(peers: Peers) -> bytes:
        try:
            return await peers.says(protocol.encode_request("hello", {}))
        except OSError:
            return b""

    assert play(directory, talk, hello=hello) == b""


def test_an_operation_has_one_handler() -> None:
    server = ControlServer()
    server.add("hello", hello)

    with pytest.raises(ValueError, match="has a handler"):
        server.add("hello", hello)
