"""The attacks of a container are those that need no server of ours, and fail closed."""

from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.catalogue import AttackGroup, Observation, Outcome
from claude_proxy.doctor.attack.probes.__main__ import ATTACKS

STOPPED = ["a try", "stopped", "namespace", ""]


def test_every_attack_of_a_container_is_one_that_the_probes_know() -> None:
    names = {catalogue.POD_PROXY.name, *(one.name for one in catalogue.CONTAINER_ATTACKS)}

    assert names <= {*ATTACKS}
    assert AttackGroup.KEYS not in {one.group for one in catalogue.CONTAINER_ATTACKS}


def test_what_was_not_tried_is_unknown_and_not_stopped() -> None:
    rows = catalogue.judge_container([], [Observation("unix", "Unix sockets", ())])

    assert catalogue.exit_code(rows) == 2
    assert {row.result for row in rows[:-1]} == {Outcome.ERROR}


def test_all_stopped_and_a_proxy_that_answers_is_clean() -> None:
    reports = [
        {"attack": one.name, "tries": [STOPPED], "crashed": None}
        for one in catalogue.CONTAINER_ATTACKS
    ]
    answers = {"attack": "pod-proxy", "tries": [["a", "through", "", ""]], "crashed": None}

    assert catalogue.exit_code(catalogue.judge_container([answers, *reports], [])) == 0
