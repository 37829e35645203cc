"""Proxies that run, as far as their owner's commands can tell: threads that answer on sockets."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from claude_proxy.control import client, places, protocol
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ProxyFacts

type Answers = Callable[[dict[str, object]], bytes]


def facts(name: str, *, project: str = "", workers: int = 1, pid: int = 7) -> ProxyFacts:
    kind, run = ("run", name) if project else ("serve", "")
    return ProxyFacts(name, kind, pid, 1.0, workers, run, "sh", project)


class Running:
    """Proxies that run, as threads of this process."""

    def __init__(self, base: Path, stack: ExitStack) -> None:
        self.environ = {"XDG_RUNTIME_DIR": str(base)}
        self.base = base / "claude-proxy"  # what a start would use
        self._stack = stack

    def starts(self, given: ProxyFacts, *answers: Answers) -> None:
        place = places.claim(self.base, given.name)
        place.write(protocol.encode_facts(given))
        self._stack.callback(place.remove)
        for worker, answer in enumerate(answers):
            self._serve(place.listen(worker), answer)

    def _serve(self, sock: socket.socket, answer: Answers) -> None:
        sock.setblocking(True)

        def serve() -> None:
            while True:
                try:
                    peer, _ = sock.accept()
                except OSError:
                    return
                with peer:
                    line = peer.makefile("rb").readline()
                    if line:  # some only connect
                        peer.sendall(answer(json.loads(line)))

        thread = threading.Thread(target=serve)
        thread.start()

        def end() -> None:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
            sock.close()

        self._stack.callback(end)

    def one(self, name: str) -> Proxy:
        return client.choose(client.find(self.environ), Path("/"), name=name)


def says(**answer: object) -> Answers:
    """Return what answers everything alike."""
    return lambda _: protocol.encode_answer(answer)
