"""Properties of the desk and the policy together, in any order of events.

None leaves before its verdict, no verdict reaches another's request, and nothing is held for ever.
"""

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from claude_proxy.control.questions import OPEN_S, Desk, DeskLimits, Waiter
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.granted_policy import with_grants
from claude_proxy.policy.grants import Grant, Moment
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import Facts, Subject, rule_of_answer, subject_of_request
from claude_proxy.policy.request import Request
from claude_proxy.policy.verdict import Verdict
from tests.policy import cases

HOSTS = ("a.test", "b.test", "c.test")
RUNS = ("one", "two", None)
METHODS = ("GET", "HEAD", "POST")
ASKS = Policy().asking_by_default(cases.NOWHERE)
POLICIES = (
    ASKS,
    Policy((cases.rule("a.test"),), ask=ASKS.ask),
    Policy(ask=(replace(cases.rule("b.test", methods=["GET"]), asks=True),)),
    replace(ASKS, deny=(cases.deny("c.test"),)),
    Policy(),
)
WAIT_S = 30.0


@dataclass(eq=False)
class Held:
    """One request from its arrival to its verdict."""

    run: str | None
    request: Request
    arrived: float
    waiter: Waiter | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    answered_by: Answer | None = None
    gone: bool = False

    @property
    def subject(self) -> Subject:
        return subject_of_request(self.run, self.request)


class HeldRequests(RuleBasedStateMachine):
    """A gate with its desk, whose clock is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        limits = DeskLimits(wait_s=WAIT_S, waiting=12, waiting_of_run=8, questions=6)
        self.desk = Desk(lambda: self.now, limits)
        self.base = ASKS
        self.grants: dict[int, tuple[str | None, Grant]] = {}
        self.requests: list[Held] = []
        self.yes: dict[Subject, int] = {}  # how many may leave by an answer

    # --- the gate

    def policy_of(self, run: str | None) -> Policy:
        return with_grants(
            self.base, [grant for whose, grant in self.grants.values() if whose == run]
        )

    def judge(self, held: Held, answer: Answer | None = None) -> None:
        held.waiter = None
        verdict = self.policy_of(held.run).evaluate(held.request, answer=answer)
        if not verdict.decision.asks:
            assert not held.verdicts
            held.answered_by = answer
            held.verdicts.append(verdict)
            if verdict.decision.answered:
                self.yes[held.subject] = self.yes.get(held.subject, 0) - 1
            return
        subject, asking = held.subject, verdict.decision.rule
        facts = Facts(subject, held.request.method, "/", "", asking)
        deadline = held.arrived + WAIT_S if answer is not None else None
        found = self.desk.put(facts, lambda said: self.judge(held, said), deadline)
        if isinstance(found, Waiter):
            held.waiter = found
        else:
            self.judge(held, found)

    # --- what happens

    @rule(run=st.sampled_from(RUNS), host=st.sampled_from(HOSTS), method=st.sampled_from(METHODS))
    def arrives(self, run: str | None, host: str, method: str) -> None:
        held = Held(run, cases.request(host, method), self.now)
        self.requests.append(held)
        self.judge(held)

    @precondition(lambda self: self.desk.questions)
    @rule(data=st.data(), answer=st.sampled_from([Answer.YES, Answer.NO]))
    def is_answered(self, data: st.DataObject, answer: Answer) -> None:
        question = data.draw(st.sampled_from(self.desk.questions))
        if answer is Answer.YES:
            self.yes[question.facts.subject] = max(1, len(question.waiters))
        self.desk.answer(question.facts.subject, answer)

    @precondition(lambda self: self.desk.questions)
    @rule(data=st.data())
    def is_granted(self, data: st.DataObject) -> None:
        facts = data.draw(st.sampled_from(self.desk.questions)).facts
        opens = (
            None
            if facts.asking is None
            else rule_of_answer(facts.subject, facts.asking, cases.NOWHERE)
        )
        if opens is not None:
            number = len(self.grants) + 1
            grant = Grant(number, (opens,), 0, Moment(0, 0, ""), "me", lasts_ns=1)
            self.grants[number] = facts.subject.run, grant
            self.desk.answer(facts.subject, Answer.AGAIN)
            self.desk.ask_again()

    @rule()
    def is_revoked(self) -> None:
        self.grants.clear()
        self.desk.ask_again()

    @precondition(lambda self: self.desk.questions)
    @rule(data=st.data())
    def is_refused(self, data: st.DataObject) -> None:
        self.desk.refuse(data.draw(st.sampled_from(self.desk.questions)).facts.subject)

    @precondition(lambda self: self.desk.questions)
    @rule(data=st.data())
    def asker_fails(self, data: st.DataObject) -> None:
        self.desk.give_up(data.draw(st.sampled_from(self.desk.questions)).facts.subject)

    @rule(policy=st.sampled_from(POLICIES))
    def is_reloaded(self, policy: Policy) -> None:
        self.base = policy
        self.desk.ask_again()

    @precondition(lambda self: any(held.waiter for held in self.requests))
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from([each for each in self.requests if each.waiter]))
        assert held.waiter is not None
        self.desk.take_back(held.waiter)
        held.waiter, held.gone = None, True

    @rule(run=st.sampled_from(RUNS))
    def run_ends(self, run: str | None) -> None:
        self.desk.forget_run(run)

    @rule(seconds=st.sampled_from([1.0, 10.0, WAIT_S, OPEN_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.desk.expire()

    @rule()
    def ends(self) -> None:
        self.desk.close()

    # --- what always holds

    @invariant()
    def each_waits_or_has_one_verdict_or_is_gone(self) -> None:
        for held in self.requests:
            states = (held.waiter is not None, bool(held.verdicts), held.gone)
            assert states.count(True) == 1
        waiting = sum(held.waiter is not None for held in self.requests)
        assert self.desk.waiting == waiting

    @invariant()
    def nothing_waits_longer_than_it_may(self) -> None:
        for held in self.requests:
            if held.waiter is not None:
                assert held.waiter.deadline <= held.arrived + WAIT_S
                assert self.now < held.waiter.deadline

    @invariant()
    def what_left_was_allowed_by_a_rule_or_by_its_own_answer(self) -> None:
        for held in self.requests:
            for verdict in held.verdicts:
                if verdict.decision.allowed and verdict.decision.answered:
                    assert held.answered_by is Answer.YES
        assert all(left >= 0 for left in self.yes.values())

    @invariant()
    def no_more_waits_than_may(self) -> None:
        assert self.desk.waiting <= self.desk.limits.waiting
        assert len(self.desk.questions) <= self.desk.limits.questions

    def teardown(self) -> None:
        self.now += WAIT_S
        self.desk.expire()
        assert not any(held.waiter for held in self.requests)


HeldRequests.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestHeldRequests = HeldRequests.TestCase
