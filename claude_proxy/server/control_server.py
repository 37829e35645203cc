"""Control server: answers what the owner asks of a running proxy, in the loop of its engine.

Operations are a table: `ControlServer.add(op, handler)`. Laws kept: only processes of the same user
are read; each connection asks once; a peer that is slow, silent or says too much is dropped, and
none holds up a client of the proxy. Fail closed: what is not understood is refused.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from claude_proxy.control import protocol
from claude_proxy.control.protocol import Answer, ControlError, Request
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system.peer_credentials import Peer, peer_of

logger = logging.getLogger(__name__)

_MOST_PEERS = 64
_READ_S = 5.0  # for the request
_WRITE_S = 5.0  # for the peer to take a line of the answer
_LOOK_S = 1.0  # between looks whether one that has closed its writing side is there
_BUFFERED = 256 * 1024
_BACKLOG = 64


class Call:
    """One request, and the stream of lines that may come before its answer."""

    def __init__(self, request: Request, peer: Peer, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.peer = peer  # who asks: a process of the same user
        self._writer = writer

    @property
    def arguments(self) -> Answer:
        """What was sent with the operation, as JSON has it; a handler checks the types."""
        return self.request.arguments

    async def send(self, line: Answer) -> None:
        """Send a line of a stream; OSError or TimeoutError if the peer does not take it."""
        await self._write(protocol.encode_answer({protocol.MORE: True, **line}))

    async def finish(self, line: bytes) -> None:
        """Send the answer."""
        await self._write(line)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(_WRITE_S):
            await self._writer.drain()


# Returns the answer; ClaudeProxyError is sent as a refusal. It is cancelled when the peer is gone.
type Handler = Callable[[Call], Awaitable[Answer]]


class ControlServer:
    """The control socket of one worker, and what it answers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}  # by operation
        self._peers: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    def add(self, op: str, handler: Handler) -> None:
        """Answer the operation `op` with what `handler` returns."""
        if op in self.handlers:
            raise ValueError(f"the operation {op} has a handler")
        self.handlers[op] = handler

    async def serve(self, sock: socket.socket) -> None:
        """Answer on a listening socket from now on."""
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await asyncio.start_unix_server(
            self._accept, sock=sock, limit=protocol.REQUEST_BYTES, backlog=_BACKLOG, **keep
        )

    def close(self) -> None:
        """Answer no more; who waits for an answer is left without one."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers:
            peer.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._peers) >= _MOST_PEERS:
            writer.transport.abort()
            return
        self._peers.add(task)
        try:
            await self._serve_peer(reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception:
            logger.exception("a control request failed")
            writer.transport.abort()
        finally:
            self._peers.discard(task)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _serve_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        peer = peer_of(sock)
        if peer.uid != os.geteuid():
            writer.transport.abort()
            return
        writer.transport.set_write_buffer_limits(high=_BUFFERED)
        try:
            async with asyncio.timeout(_READ_S):
                line = await reader.readline()
        except ValueError:  # longer than the limit of the reader
            line = b""
        call = Call(Request("", {}), peer, writer)
        try:
            call.request = protocol.decode_request(line)
            answer = protocol.encode_answer(await self._answered(call, reader, sock))
        except ClaudeProxyError as error:
            answer = protocol.encode_refusal(error)
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            logger.exception("the control operation %s failed", call.request.op[:40])
            answer = protocol.encode_refusal(
                ControlError(
                    f"internal error ({type(error).__name__}) in the proxy",
                    fix="see the proxy's log, and report it as a bug",
                )
            )
        await call.finish(answer)

    async def _answered(
        self, call: Call, reader: asyncio.StreamReader, sock: socket.socket
    ) -> Answer:
        handler = self.handlers.get(call.request.op)
        if handler is None:
            raise protocol.unknown(call.request.op, self.handlers)
        answering = asyncio.ensure_future(handler(call))
        leaving = asyncio.create_task(_gone(reader, sock.fileno()))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ConnectionResetError("the peer is gone")
            return await answering
        finally:
            leaving.cancel()
            answering.cancel()


async def _gone(reader: asyncio.StreamReader, descriptor: int) -> None:
    """Return when the peer is gone; what it says after its request is not looked at.

    One that only closes its writing side still waits for its answer.
    """
    while await reader.read(protocol.REQUEST_BYTES):
        pass
    hung_up = select.poll()
    hung_up.register(descriptor, select.POLLHUP)
    while not hung_up.poll(0):  # noqa: ASYNC110 - a state of the kernel, which sets no event
        await asyncio.sleep(_LOOK_S)
