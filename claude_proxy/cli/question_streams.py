"""Questions of all running proxies as they come: a thread for each worker, one queue for all.

A proxy that starts later is found, and one that ends takes its questions with it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from claude_proxy.control.answers import facts_of_subject, subject_of
from claude_proxy.control.client import Proxy
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and the worker that asks it."""

    proxy: Proxy
    worker: int
    facts: dict[str, Any]
    others: tuple["Asked", ...] = ()  # of other workers of the proxy, about the same

    @property
    def newest(self) -> int:
        """Which of its requests, counted as they came, was the last when it was shown."""
        found: int = self.facts.get("newest", 0)
        return found

    @property
    def is_live(self) -> bool:
        """Whether anything waits for its answer now."""
        return bool(self.facts["waiting"])

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from every other question."""
        return f"{self.proxy.name} {self.proxy.facts.pid}", self.worker, self.facts["number"]


def most_urgent(several: Iterable[Asked]) -> Asked:
    """Return the question to put first: what waits before what has given up."""
    return min(several, key=lambda each: (not each.is_live, each.facts["left_s"]))


def with_others(asked: Asked, known: Iterable[Asked]) -> Asked:
    """Return a question with what waits for the same answer in other workers of the proxy."""
    facts, subject = dict(asked.facts), facts_of_subject(subject_of(asked.facts))
    others = tuple(
        each
        for each in known
        if each.key[0] == asked.key[0]
        and each.worker != asked.worker
        and facts_of_subject(subject_of(each.facts)) == subject
    )
    requests = {(one["method"], one["path"]): one for one in facts.get("requests", ())}
    for each in others:
        for one in each.facts.get("requests", ()):
            requests.setdefault((one["method"], one["path"]), one)
        for name in ("waiting", "tries", "more_requests"):
            facts[name] = facts.get(name, 0) + each.facts.get(name, 0)
    facts["requests"] = list(requests.values())
    return Asked(asked.proxy, asked.worker, facts, others)


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

    def is_as_shown(self, asked: Asked) -> bool:
        """Tell whether a question is open, and something still waits if something did."""
        known = self.open
        now = next((each for each in known if each.key == asked.key), None)
        return now is not None and (not asked.is_live or with_others(now, known).is_live)

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
