"""The control door: it costs a start a socket, and makes what answers for the first who asks."""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.config.settings import InheritedListen, RunIdentity, Settings, UnixListen
from claude_proxy.control import places, protocol
from claude_proxy.control.protocol import Answer, ProxyFacts
from claude_proxy.server import control_door
from claude_proxy.server.control_door import ControlDoor
from claude_proxy.server.control_server import Call, ControlServer
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.wire.authority import Authority

PLACE = Path("/nowhere")
TCP = OpenListener("tcp", "http://127.0.0.1:9051", (), address=Authority.of("127.0.0.1", 9051))
UNIX = OpenListener("unix", "unix:/home/me/.cache/work.sock", ())
RUN = RunIdentity("web", "sh", project="/code")


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="control-") as name:
        yield Path(name)


def settings(base: Path | None, run: RunIdentity | None = None, **changes: object) -> Settings:
    listen = (InheritedListen(3, "run", run),) if run else (UnixListen(PLACE),)
    given = {"listen": listen, "runs": base} | changes
    return Settings(PLACE, PLACE, PLACE, **given)  # type: ignore[arg-type]


def facts_of(base: Path) -> ProxyFacts | None:
    (found,) = places.living(base)
    return protocol.decode_facts(found.facts)


@pytest.mark.parametrize(
    ("listener", "name"),
    [
        (TCP, "proxy-9051"),
        (UNIX, "proxy-work"),
        (OpenListener("unix", "unix:@bad name/../x y", ()), "proxy-x_y"),
    ],
)
def test_a_proxy_is_called_by_where_it_listens(
    base: Path, listener: OpenListener, name: str
) -> None:
    place = control_door.claim(settings(base), (listener,))
    assert place is not None

    found = facts_of(base)
    place.remove()

    assert found is not None
    assert (found.name, found.kind, found.pid) == (name, "serve", os.getpid())
    assert found.listens == (listener.url,)


@pytest.mark.parametrize(
    ("run", "kind"),
    [(RUN, "run"), (RunIdentity("web", "sh", project="/code", is_container=True), "container")],
)
def test_the_proxy_of_a_run_is_called_by_the_run(base: Path, run: RunIdentity, kind: str) -> None:
    place = control_door.claim(settings(base, run), (UNIX,))
    assert place is not None

    found = facts_of(base)
    place.remove()

    assert found is not None
    assert (found.name, found.kind, found.run, found.project) == ("web", kind, "web", "/code")


def test_a_gateway_alone_is_called_one(base: Path) -> None:
    place = control_door.claim(settings(base, listen=()), (TCP,))
    assert place is not None

    found = facts_of(base)
    place.remove()

    assert found is not None
    assert (found.name, found.kind) == ("gateway-9051", "gateway")


def test_settings_without_a_directory_of_runs_have_no_door() -> None:
    assert control_door.claim(settings(None), (TCP,)) is None


def test_a_place_that_cannot_be_made_is_a_warning(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base.chmod(0o755)

    with caplog.at_level(logging.WARNING):
        place = control_door.claim(settings(base), (TCP,))

    assert place is None
    assert "cannot be asked while it runs" in caplog.text
    assert f"chmod 700 {base}" in caplog.text


def test_what_answers_is_made_for_the_first_who_asks(base: Path) -> None:
    made: list[ControlServer] = []

    def make() -> ControlServer:
        async def hello(_: Call) -> Answer:
            return {"hello": True}

        server = ControlServer()
        server.add("hello", hello)
        made.append(server)
        return server

    async def ask(path: Path) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(protocol.encode_request("hello", {}))
        answer = await reader.read()
        writer.close()
        return answer

    async def play() -> tuple[int, list[bytes]]:
        place = places.claim(base, "web")
        door = ControlDoor(place, 0, make, owns=True)
        before = len(made)
        path = place.path / "0.sock"
        answers = [await ask(path), await ask(path)]
        door.close()
        return before, answers

    before, answers = asyncio.run(play())

    assert (before, len(made)) == (0, 1)
    assert answers == [b'{"ok":true,"hello":true}\n'] * 2
    assert places.living(base) == []


def test_a_door_that_nobody_used_leaves_nothing(base: Path) -> None:
    async def play() -> None:
        ControlDoor(places.claim(base, "web"), 0, ControlServer, owns=True).close()

    asyncio.run(play())

    assert places.living(base) == []
    assert [path.name for path in (base / "control").iterdir()] == [places.LOCK]


def ended(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_a_fault_of_what_answers_closes_the_socket(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> ControlServer:
        raise ValueError("broken")

    async def play() -> None:
        place = places.claim(base, "web")
        door = ControlDoor(place, 0, fail, owns=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place.path / "0.sock"))
            await asyncio.get_running_loop().run_in_executor(None, ended, client)
        door.close()

    asyncio.run(play())

    assert "cannot be served" in caplog.text
