"""What an answer does: recorded, carried out, and never more than was asked about."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from claude_proxy.config.settings import Settings
from claude_proxy.control.answers import AnswerError, Reply, Verdict
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule
from claude_proxy.server.owner_answers import OwnerAnswers
from claude_proxy.wire.authority import Authority
from tests.support.waiting import until

ASKING = Policy().asking_by_default(Location("a.yaml", 1, 1)).ask[0]
SUBJECT = Subject("r", Scheme.HTTPS, Authority.of("a.test", 443), Access.READ)
FACTS = Facts(SUBJECT, "GET", "/\x1b[2J", "curl", ASKING)


class House:
    """A proxy's questions with what was recorded and granted."""

    def __init__(self, settings: Settings, *, grants: bool = True) -> None:
        self.notices: list[Notice] = []
        self.granted: list[str] = []
        self.answers: list[Answer] = []
        self.over = asyncio.Event()
        store = SimpleNamespace(record=self.notices.append)
        self.announced: list[str] = []
        self.noted = asyncio.Event()
        prepared = SimpleNamespace(settings=settings, store=store, announce=self._announce)
        self.owner = OwnerAnswers(cast("Any", prepared), self._grant if grants else None)

    def _grant(self, subject: Subject, rule: Rule, reply: Reply, by: str) -> int:
        assert subject == SUBJECT
        if by == "nobody":
            raise ConfigError("the store is gone")
        self.granted.append(f"{rule} {reply}")
        return 7

    def _announce(self, text: str) -> None:
        self.announced.append(text)
        self.noted.set()

    def ask(self) -> None:
        self.owner().put(FACTS, self._settle, None)

    def _settle(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.over.set()

    @property
    def recorded(self) -> list[tuple[str, str]]:
        return [(notice.kind, notice.text) for notice in self.notices]


def play(
    act: Callable[[House], Awaitable[None]],
    settings: Settings | None = None,
    *,
    grants: bool = True,
) -> House:
    async def run() -> House:
        house = House(settings or Settings(Path(), Path(), Path()), grants=grants)
        await act(house)
        house.owner.close()
        return house

    return asyncio.run(run(), loop_factory=uvloop.new_event_loop)


def answered(reply: Reply, by: str = "me", *, grants: bool = True) -> House:
    async def act(house: House) -> None:
        house.ask()
        await asyncio.sleep(0)
        house.owner.answer(SUBJECT, reply, by)

    return play(act, grants=grants)


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (Verdict.ONCE, Answer.YES),
        (Verdict.NO, Answer.NO),
        (Verdict.NEVER, Answer.NO),
        (Verdict.ALWAYS, Answer.AGAIN),
    ],
)
def test_an_answer_settles_what_waits_and_is_recorded(verdict: Verdict, answer: Answer) -> None:
    house = answered(Reply(verdict))

    assert house.answers == [answer]
    assert house.recorded == [
        ("question", "GET https://a.test:443/\\x1b[2J of curl waits for an answer"),
        ("answer", f"{verdict} to read https://a.test:443, by me"),
    ]
    assert house.granted == []


def test_an_answer_that_lasts_is_a_grant_within_the_question() -> None:
    house = answered(Reply(Verdict.FOR, seconds=60.0))

    assert house.granted == ["https://a.test ports 443 methods GET,HEAD,OPTIONS for 1m"]
    assert house.answers == [Answer.AGAIN]
    assert house.recorded[1][1] == "for 1m to read https://a.test:443 (grant 7), by me"


def test_an_answer_that_cannot_be_carried_out_settles_nothing() -> None:
    with pytest.raises(ConfigError, match="store is gone"):
        answered(Reply(Verdict.RUN), by="nobody")
    with pytest.raises(AnswerError, match="cannot be allowed for longer"):
        answered(Reply(Verdict.RUN), grants=False)


@pytest.mark.parametrize(("kept", "shown"), [(False, "/a of"), (True, "/a?key=s3cret of")])
def test_a_query_is_recorded_only_where_the_owner_wants_it(*, kept: bool, shown: str) -> None:
    settings = replace(Settings(Path(), Path(), Path()), record_query=kept)

    async def act(house: House) -> None:
        house.owner().put(replace(FACTS, path="/a?key=s3cret"), house.answers.append, None)
        await house.noted.wait()

    house = play(act, settings)
    assert shown in house.announced[0]
    assert [shown in text for _, text in house.recorded] == [True]


def test_what_nobody_asks_cannot_be_answered_but_refused() -> None:
    async def act(house: House) -> None:
        with pytest.raises(AnswerError, match="nothing asks this"):
            house.owner.answer(SUBJECT, Reply(Verdict.ONCE), "me")
        house.owner.answer(SUBJECT, Reply(Verdict.NEVER), "me")
        assert house.owner().put(FACTS, house.answers.append, None) is Answer.NO

    play(act)


def test_changed_rules_and_the_end_settle_what_waits() -> None:
    async def act(house: House) -> None:
        house.owner.ask_again()
        house.ask()
        house.owner.ask_again()
        house.ask()

    assert play(act).answers == [Answer.AGAIN, Answer.NONE]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('echo \'{"answer": "once"}\'', Answer.YES),
        ('echo \'{"answer": "always"}\'', Answer.NONE),
        ("exit 1", Answer.NONE),
    ],
)
def test_a_program_answers_or_has_not_answered(tmp_path: Path, text: str, answer: Answer) -> None:
    program = tmp_path / "answer"
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    program.chmod(0o700)
    settings = replace(Settings(Path(), Path(), Path()), ask_command=program)

    async def act(house: House) -> None:
        house.ask()
        await house.over.wait()

    assert play(act, settings).answers == [answer]


def test_a_program_is_shown_each_path_before_it_can_pass(tmp_path: Path) -> None:
    program = tmp_path / "answer"
    script = f"""#!/bin/sh
cat >> {tmp_path}/asked
while [ ! -e {tmp_path}/go ]; do sleep 0.01; done
echo '{{"answer": "once"}}'
"""
    program.write_text(script, encoding="utf-8")
    program.chmod(0o700)
    settings = replace(Settings(Path(), Path(), Path()), ask_command=program)
    asked = tmp_path / "asked"

    async def act(house: House) -> None:
        house.ask()
        await asyncio.to_thread(until, asked.exists)
        house.owner().put(replace(FACTS, path="/unseen"), house.answers.append, None)
        (tmp_path / "go").touch()
        await asyncio.to_thread(until, lambda: len(house.answers) == 2)

    assert play(act, settings).answers == [Answer.YES, Answer.YES]
    shown = [json.loads(line)["requests"] for line in asked.read_text("utf-8").splitlines()]
    assert [[each["path"] for each in several] for several in shown] == [[FACTS.path], ["/unseen"]]


def test_a_client_that_asks_and_leaves_starts_no_more_programs_than_may_run(
    tmp_path: Path,
) -> None:
    program = tmp_path / "answer"
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/begun; exec sleep 1000\n", encoding="utf-8")
    program.chmod(0o700)
    settings = replace(Settings(Path(), Path(), Path()), ask_command=program)

    async def act(house: House) -> None:
        asking = house.owner()
        for number in range(60):
            subject = replace(SUBJECT, target=Authority.of(f"{number}.test", 443))
            asking.put(replace(FACTS, subject=subject), house.answers.append, None)
        await asyncio.to_thread(until, lambda: len(house.answers) >= 28)

    assert play(act, settings).answers[:28] == [Answer.NONE] * 28
