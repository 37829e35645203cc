"""Runs things on real sockets of the loopback interface, on both event loops."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address

import uvloop

from claude_proxy.wire.address import Address

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

_HANGS_S = 60  # no answer is this late on a loaded machine: only one that never comes
_EAGER_TURNS = 100
_REST_S = 0.001

type Play = Callable[[], Awaitable[None]]
type Run = Callable[[Play], None]


def run_on(loop: str, play: Play) -> None:
    """Run a coroutine function to its end; fail if it hangs, or if the loop was told of a fault."""
    faults: list[dict[str, object]] = []

    async def limited() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with asyncio.timeout(_HANGS_S):
            await play()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(limited())
    assert faults == [], faults


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until something holds.

    After some turns it rests between them: a loop that turns without a rest takes the interpreter
    lock back after every call of a thread that it waits for, and on a busy machine starves it.
    """
    turns = 0
    while not holds():
        await asyncio.sleep(0 if turns < _EAGER_TURNS else _REST_S)
        turns += 1


class Names:
    """Resolves from a table and counts what it was asked."""

    def __init__(self, **table: list[str]) -> None:
        self._table = {name.replace("_", "."): found for name, found in table.items()}
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        if host not in self._table:
            raise OSError(f"{host} is unknown")
        return [ip_address(address) for address in self._table[host]]


class Stream:
    """One connection of a peer, with what came in on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gets(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def gets_until(self, end: bytes) -> bytes:
        return await self.reader.readuntil(end)

    async def gets_rest(self) -> bytes:
        """Return what comes up to the end, be it a clean one or a reset."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                got += data
        return got

    def half_closes(self) -> None:
        self.writer.write_eof()

    def breaks_off(self) -> None:
        """End with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.writer.transport.abort()

    async def leaves(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Origin:
    """A server that hands each connection to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Origin"]:
        opened: list[Stream] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.append(Stream(reader, writer))
            await self.streams.put(opened[-1])

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for stream in opened:
                await stream.leaves()

    async def accepts(self) -> Stream:
        return await self.streams.get()


async def connect(port: int) -> Stream:
    return Stream(*await asyncio.open_connection("127.0.0.1", port))
