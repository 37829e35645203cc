"""Questions of all running proxies as they come: a thread for each worker, one queue for all.

A proxy that starts later is found, and one that ends takes its questions with it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from claude_proxy.control.client import Proxy
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and the worker that asks it."""

    proxy: Proxy
    worker: int
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from every other question."""
        return f"{self.proxy.name} {self.proxy.facts.pid}", self.worker, self.facts["number"]


def listed(proxies: Iterable[Proxy]) -> list[Asked]:
    """Return the questions that are open now; ClaudeProxyError if a proxy cannot be asked."""
    found = []
    for proxy in proxies:
        for worker in range(proxy.facts.workers):
            answer = proxy.ask("questions", worker=worker)
            found += [Asked(proxy, worker, facts) for facts in answer["questions"]]
    return found


class QuestionStreams:
    """Follows the questions of proxies until the process ends."""

    def __init__(self, find: Callable[[], Sequence[Proxy]]) -> None:
        self._find = find
        self._followed: set[tuple[str, int, int]] = set()
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int, int], Asked] = {}
        self._changed: queue.Queue[None] = queue.Queue()

    @property
    def open(self) -> list[Asked]:
        """The questions without an answer."""
        with self._lock:
            return list(self._open.values())

    def is_open(self, asked: Asked) -> bool:
        """Tell whether a question has no answer yet."""
        with self._lock:
            return asked.key in self._open

    def wait(self, patience_s: float) -> None:
        """Wait until something has changed, and no longer than `patience_s`."""
        try:
            self._changed.get(timeout=patience_s)
        except queue.Empty:
            return

    def look(self) -> int:
        """Follow the proxies that have started since; return how many run."""
        proxies = self._find()
        for proxy in proxies:
            for worker in range(proxy.facts.workers):
                place = proxy.name, proxy.facts.pid, worker
                if place not in self._followed:
                    self._followed.add(place)
                    following = threading.Thread(
                        target=self._follow, args=(proxy, worker), daemon=True
                    )
                    following.start()
        return len(proxies)

    def _follow(self, proxy: Proxy, worker: int) -> None:
        try:
            for line in proxy.stream("questions", worker=worker, patience_s=None, watch=True):
                self._take(proxy, worker, line.get("questions", []))
        except ClaudeProxyError:
            pass  # it has ended, or asks nothing; a worker that takes its place is found again
        finally:
            self._take(proxy, worker, [])
            self._followed.discard((proxy.name, proxy.facts.pid, worker))

    def _take(self, proxy: Proxy, worker: int, several: Iterable[dict[str, Any]]) -> None:
        found = [Asked(proxy, worker, facts) for facts in several]
        with self._lock:
            mine = f"{proxy.name} {proxy.facts.pid}", worker
            rest = {key: each for key, each in self._open.items() if key[:2] != mine}
            self._open = rest | {each.key: each for each in found}
        self._changed.put(None)
