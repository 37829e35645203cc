"""What is open by a grant that is used up is told until it has ended, whichever process has it."""

from claude_proxy.control import used_up
from claude_proxy.policy.grants import SECOND_NS, Grant, Moment
from tests.policy.cases import rule

NOW = Moment(SECOND_NS, SECOND_NS, "boot")
SPENT = Grant(3, (rule("a.test"),), SECOND_NS, NOW, "alice", uses=1, uses_left=0)
OTHER = Grant(2, (rule("b.test"),), SECOND_NS, NOW, "alice", uses=1, uses_left=0)


def test_what_several_processes_have_open_is_counted_together() -> None:
    one = used_up.as_json(SPENT, NOW, tunnels=1, requests=0)
    more = used_up.as_json(SPENT, NOW, tunnels=1, requests=2)
    other = used_up.as_json(OTHER, NOW, tunnels=0, requests=1)

    found = used_up.merged([{used_up.KEY: [one]}, {}, {used_up.KEY: [more, other]}])

    assert [(each["number"], used_up.text_of(each)) for each in found] == [
        (2, "used up; 1 request open"),
        (3, "used up; 2 tunnels, 2 requests open"),
    ]
    assert (one["open_tunnels"], one["uses_left"]) == (1, 0)


def test_processes_that_know_nothing_of_it_say_nothing() -> None:
    assert used_up.merged([{}, {used_up.KEY: None}]) == []
