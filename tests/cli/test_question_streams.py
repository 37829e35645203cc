"""Questions of several workers are one list, and end with what asks them."""

from typing import Any, cast

from claude_proxy.cli.question_streams import (
    Asked,
    QuestionStreams,
    listed,
    most_urgent,
    with_others,
)
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError, ProxyFacts
from tests.support.waiting import until


class Running:
    """Stands for a running proxy with two workers, of which one ends."""

    def __init__(self) -> None:
        self.facts = ProxyFacts("web", "serve", 4711, 0.0, workers=2)
        self.name = "web"

    def ask(self, _op: str, *, worker: int) -> dict[str, Any]:
        return {"questions": [{"number": worker + 1}]}

    def stream(self, _op: str, *, worker: int, **_: object) -> Any:
        if worker:
            raise ControlError("it has ended")
        yield {"questions": [{"number": 1}, {"number": 2}]}
        yield {"questions": [{"number": 2}]}


def running() -> Proxy:
    return cast("Proxy", Running())


def test_all_workers_are_asked() -> None:
    assert [(each.worker, each.facts["number"]) for each in listed([running()])] == [(0, 1), (1, 2)]


def about(host: str, *paths: str, newest: int = 1) -> dict[str, Any]:
    subject = {"run": None, "scheme": "https", "host": host, "port": 443, "access": "read"}
    requests = [{"method": "GET", "path": path} for path in paths]
    counts = {"waiting": len(paths), "tries": len(paths), "more_requests": 0}
    return {"number": 1, "newest": newest, "requests": requests, **subject, **counts}


def test_what_waits_in_other_workers_is_shown_with_the_question() -> None:
    proxy = running()
    first = Asked(proxy, 0, about("a.test", "/one", "/two"))
    same = Asked(proxy, 1, about("a.test", "/two", "/three"))

    shown = with_others(first, [first, same, Asked(proxy, 1, about("b.test", "/four"))])

    assert [each["path"] for each in shown.facts["requests"]] == ["/one", "/two", "/three"]
    assert (shown.facts["waiting"], shown.others) == (4, (same,))


def test_questions_come_and_go_with_their_worker() -> None:
    proxy = running()
    streams = QuestionStreams(lambda: [proxy])

    assert streams.look() == 1

    until(lambda: not streams.open)
    streams.wait(0.0)
    assert not streams.is_open(Asked(proxy, 0, {"number": 2}))


def test_what_waits_comes_before_what_has_given_up() -> None:
    proxy = running()
    gone = Asked(proxy, 0, about("gone.test") | {"left_s": 0.0})
    later = Asked(proxy, 0, about("later.test", "/") | {"left_s": 20.0})
    sooner = Asked(proxy, 1, about("sooner.test", "/") | {"left_s": 5.0})

    assert most_urgent([gone, later, sooner]) is sooner
    assert most_urgent([gone, later]) is later
    assert most_urgent([gone]) is gone


def test_a_question_is_not_as_shown_once_nothing_waits_or_it_is_answered() -> None:
    proxy = running()
    streams = QuestionStreams(list)
    live, idle = about("a.test", "/"), about("a.test")
    shown = Asked(proxy, 0, live)

    streams._take(proxy, 0, [live])
    assert streams.is_as_shown(shown)
    streams._take(proxy, 0, [idle])
    assert not streams.is_as_shown(shown)
    assert streams.is_as_shown(Asked(proxy, 0, idle))
    streams._take(proxy, 0, [])
    assert not streams.is_as_shown(shown)
