"""Laws of the desk: an answer reaches what asked for the same, and nothing waits for ever."""

from claude_proxy.control.questions import OPEN_S, Desk, DeskLimits, Waiter
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority


class Office:
    """A desk with a clock that is set by hand."""

    def __init__(self, limits: DeskLimits | None = None) -> None:
        self.now = 0.0
        self.desk = Desk(lambda: self.now, limits)
        self.answers: list[tuple[str, Answer]] = []

    def ask_for(self, path: str) -> Waiter | Answer:
        facts = Facts(about(), "GET", path, "", None)
        return self.desk.put(facts, lambda answer: self.answers.append((path, answer)))

    def ask(self, name: str, host: str = "a.test", run: str = "r", size: int = 0) -> Waiter:
        waiter = self.try_to_ask(name, host, run, size)
        assert isinstance(waiter, Waiter)
        return waiter

    def try_to_ask(
        self, name: str, host: str = "a.test", run: str = "r", size: int = 0
    ) -> Waiter | Answer:
        facts = Facts(about(host, run), "GET", "/", "", None, size)
        return self.desk.put(facts, lambda answer: self.answers.append((name, answer)))


def about(host: str = "a.test", run: str = "r", access: Access = Access.READ) -> Subject:
    return Subject(run, Scheme.HTTPS, Authority.of(host, 443), access)


def test_fifty_tries_are_one_question() -> None:
    office = Office()

    for number in range(50):
        office.ask(str(number))
    office.desk.answer(about(), Answer.YES)

    assert len(office.answers) == 50
    assert office.desk.questions == []


def test_an_answer_reaches_nothing_else() -> None:
    office = Office()
    office.ask("one")
    office.ask("host", "b.test")
    office.ask("run", run="other")

    office.desk.answer(about(access=Access.WRITE), Answer.YES)
    office.desk.answer(about(), Answer.YES)

    assert office.answers == [("one", Answer.YES)]
    assert office.desk.waiting == 2


def test_requests_that_differ_are_shown_each_once() -> None:
    office = Office()
    for path in ("/a", "/b", "/a"):
        office.ask_for(path)

    (question,) = office.desk.questions

    assert [(facts.path, count) for facts, count in question.waiting] == [("/a", 2), ("/b", 1)]


def test_the_oldest_that_waits_is_shown_not_what_has_given_up() -> None:
    office = Office()
    office.ask_for("/gone")
    office.now = 20
    office.ask_for("/waits")
    office.now = 30
    office.desk.expire()

    assert office.desk.questions[0].shown.path == "/waits"


def test_what_came_after_a_question_was_shown_is_not_answered_with_it() -> None:
    office = Office()
    office.ask_for("/shown")
    shown = office.desk.questions[0].newest
    office.ask_for("/unseen")
    office.ask_for("/shown")

    office.desk.answer(about(), Answer.YES, shown)

    assert office.answers == [("/shown", Answer.YES)] * 2
    assert [facts.path for facts, _ in office.desk.questions[0].waiting] == ["/unseen"]


def test_an_answer_still_counts_for_what_was_judged_again_meanwhile() -> None:
    office = Office()
    office.ask_for("/shown")
    shown = office.desk.questions[0].newest
    office.desk.ask_again()
    office.ask_for("/shown")

    office.desk.answer(about(), Answer.YES, shown)

    assert office.answers[-1] == ("/shown", Answer.YES)
    assert office.desk.questions == []


def test_what_nobody_answers_in_time_is_settled_so() -> None:
    office = Office()
    office.ask("early")
    office.now = 10.0
    office.ask("later")

    assert office.desk.expire() == 30.0
    office.now = 30.0
    assert office.desk.expire() == 40.0

    assert office.answers == [("early", Answer.NONE)]


def test_a_late_yes_serves_the_next_try_of_the_same_request_and_no_other() -> None:
    office = Office()
    office.ask_for("/a")
    office.now = 30.0
    office.desk.expire()

    office.desk.answer(about(), Answer.YES)

    assert isinstance(office.ask_for("/b"), Waiter)
    assert office.ask_for("/a") is Answer.YES
    assert isinstance(office.ask_for("/a"), Waiter)


def test_a_late_yes_is_for_what_waited_last_if_that_was_shown() -> None:
    office = Office()
    office.ask_for("/shown")
    (question,) = office.desk.questions
    shown = question.newest
    office.ask_for("/unseen")
    for waiter in tuple(question.waiters):
        office.desk.take_back(waiter)

    assert question.shown.path == "/unseen"
    assert office.desk.answer(about(), Answer.YES, shown) == 0

    assert isinstance(office.ask_for("/shown"), Waiter)
    assert isinstance(office.ask_for("/unseen"), Waiter)


def test_a_late_yes_does_not_wait_for_ever() -> None:
    office = Office()
    office.desk.take_back(office.ask("first"))
    office.desk.answer(about(), Answer.YES)

    office.now = OPEN_S

    assert office.desk.expire() is None
    office.ask("next")


def test_a_question_is_closed_some_time_after_what_asked_has_left() -> None:
    office = Office()
    office.desk.take_back(office.ask("first"))
    assert len(office.desk.questions) == 1

    office.now = OPEN_S
    office.desk.expire()

    assert office.desk.questions == []
    assert office.desk.answer(about(), Answer.YES) == 0
    office.ask("next")


def test_what_is_refused_is_not_asked_about_again() -> None:
    office = Office()
    office.ask("first")

    assert office.desk.refuse(about()) == 1

    assert office.answers == [("first", Answer.NO)]
    assert office.try_to_ask("next") is Answer.NO
    office.ask("other", "b.test")
    office.desk.forget_run("r")
    office.ask("of a later run")


def test_changed_rules_are_asked_again_within_the_same_time() -> None:
    office = Office()
    facts = Facts(about(), "GET", "/", "", None)
    waiters: list[Waiter | Answer] = []

    def judge_again(answer: Answer) -> None:
        office.answers.append(("it", answer))
        if answer is Answer.AGAIN:
            waiters.append(office.desk.put(facts, judge_again, 30.0))

    waiters.append(office.desk.put(facts, judge_again))
    office.now = 20.0
    office.desk.ask_again()
    office.now = 30.0
    office.desk.expire()

    assert office.answers == [("it", Answer.AGAIN), ("it", Answer.NONE)]
    assert len(office.desk.questions) == 1


def test_more_than_may_wait_is_refused() -> None:
    limits = DeskLimits(waiting=3, waiting_of_run=2, questions=2, questions_of_run=2, size=100)
    office = Office(limits)
    office.ask("one")
    office.ask("two")

    assert office.try_to_ask("of the run") is Answer.NO_ROOM
    office.ask("of another", run="other", size=90)
    assert office.try_to_ask("in all", run="third") is Answer.NO_ROOM
    assert office.try_to_ask("too long", run="other", size=11) is Answer.NO_ROOM


def test_a_question_that_nothing_waits_for_gives_way() -> None:
    office = Office(DeskLimits(questions_of_run=2))
    office.desk.take_back(office.ask("one", "1.test"))
    office.ask("two", "2.test")

    office.ask("three", "3.test")

    assert [each.facts.subject.target.host for each in office.desk.questions] == [
        "2.test",
        "3.test",
    ]
    assert office.try_to_ask("four", "4.test") is Answer.NO_ROOM


def test_an_asker_that_fails_leaves_the_question_open() -> None:
    office = Office()
    office.ask("one")

    assert office.desk.give_up(about()) == 1
    assert office.desk.give_up(about("b.test")) == 0

    assert office.answers == [("one", Answer.NONE)]
    office.desk.answer(about(), Answer.YES)
    assert office.try_to_ask("next") is Answer.YES


def test_the_end_settles_everything() -> None:
    office = Office()
    office.ask("one")
    office.ask("two", "b.test")

    office.desk.close()

    assert sorted(office.answers) == [("one", Answer.NONE), ("two", Answer.NONE)]
    assert office.try_to_ask("next") is Answer.NONE
    assert office.desk.expire() is None


def test_what_is_taken_back_is_not_settled() -> None:
    office = Office()
    waiter = office.ask("one")
    office.desk.take_back(waiter)
    office.desk.take_back(waiter)

    office.desk.answer(about(), Answer.NO)

    assert office.answers == []


def test_a_question_is_found_by_its_number() -> None:
    office = Office()
    office.ask("one")
    office.ask("two", "b.test")

    assert office.desk.find(2) is office.desk.questions[1]
    assert office.desk.find(3) is None
