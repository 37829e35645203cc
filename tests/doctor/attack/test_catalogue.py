"""An attack counts as stopped only if each of its tries was stopped, and none is left out."""

from collections.abc import Iterable
from typing import Any

import pytest

from claude_proxy.doctor.attack.catalogue import (
    ALLOWED,
    ATTACKS,
    POD_ATTACKS,
    POD_PROXY,
    AttackGroup,
    AttackResult,
    Observation,
    Outcome,
    exit_code,
    judge,
    names,
)
from claude_proxy.doctor.attack.probes.__main__ import ATTACKS as CARRIED_OUT

STOPPED = ["a try", "stopped", "seccomp", "EPERM"]
THROUGH = ["another try", "through", "", "connected"]
QUIET = (Observation("loopback", "listeners", ()),)


def a_report(name: str, *tries: list[str], crashed: str | None = None) -> dict[str, Any]:
    return {"attack": name, "tries": list(tries), "crashed": crashed}


def all_stopped(
    *but: dict[str, Any], honest: Iterable[list[str]] = (THROUGH,)
) -> list[dict[str, Any]]:
    told = {report["attack"]: report for report in but}
    found = [told.get(each.name) or a_report(each.name, STOPPED) for each in ATTACKS]
    works = a_report(ALLOWED, *honest)
    return [works, *found, works]


def row_of(name: str, *reports: dict[str, Any]) -> AttackResult:
    [row] = [
        row
        for row in judge(all_stopped(*reports), QUIET, network=True, project=True)
        if row.name == name
    ]
    return row


def test_the_exit_code_is_0_if_everything_is_stopped() -> None:
    rows = judge(all_stopped(), QUIET, network=True, project=True)

    assert {row.result for row in rows} == {Outcome.WORKS, Outcome.STOPPED}
    assert exit_code(rows) == 0


def test_one_try_that_gets_through_makes_the_attack_get_through() -> None:
    row = row_of("socks", a_report("socks", STOPPED, THROUGH, STOPPED))

    assert row.result is Outcome.THROUGH
    assert row.through == ("another try: connected",)
    assert exit_code([row]) == 1


def test_a_try_that_got_through_counts_though_the_attack_broke_off_after_it() -> None:
    row = row_of("socks", a_report("socks", THROUGH, crashed="it did not finish"))

    assert row.result is Outcome.THROUGH


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (a_report("socks", STOPPED, crashed="KeyError: x"), "KeyError: x"),
        (a_report("socks"), "it tried nothing"),
        (None, "it was not run"),
    ],
)
def test_a_crashed_or_missing_attack_is_an_error(report: dict[str, Any] | None, why: str) -> None:
    reports = [each for each in all_stopped() if each["attack"] != "socks"]
    rows = judge([*reports, *([report] if report else [])], QUIET, network=True, project=True)

    [row] = [row for row in rows if row.name == "socks"]
    assert (row.result, row.saw) == (Outcome.ERROR, (why,))
    assert exit_code(rows) == 2


def test_an_unknown_outcome_does_not_count_as_stopped() -> None:
    row = row_of("socks", a_report("socks", ["a try", "perhaps", "", ""]))

    assert row.result is Outcome.THROUGH


def test_no_denial_counts_if_allowed_requests_fail() -> None:
    before = judge(all_stopped(honest=[STOPPED]), QUIET, network=True, project=True)
    never = judge(all_stopped()[1:-1], QUIET, network=True, project=True)

    assert exit_code(before) == exit_code(never) == 2
    assert [row.saw for row in never[:2]] == [("it was not run",)] * 2


def test_a_canarys_evidence_counts_whatever_the_attack_reports() -> None:
    rows = judge(
        all_stopped(),
        [Observation("unix", "sockets", ("a connection",))],
        network=True,
        project=True,
    )

    assert rows[-1].through == ("a connection",)
    assert exit_code(rows) == 1


def test_an_attack_that_got_through_outweighs_an_unknown_outcome() -> None:
    reports = all_stopped(a_report("socks", THROUGH), a_report("kill", crashed="x"))

    assert exit_code(judge(reports, QUIET, network=True, project=True)) == 1


def test_without_a_network_there_is_no_proxy_to_attack() -> None:
    rows = judge(all_stopped(), QUIET, network=False, project=True)

    assert {row.group for row in rows} == set(AttackGroup) - {
        AttackGroup.PROXY,
        AttackGroup.KEYS,
        AttackGroup.ALLOWED,
    }
    assert ALLOWED not in names(network=False, project=True)


def test_many_reasons_are_counted_after_the_first() -> None:
    tries = [["a try", "stopped", "policy", f"reason {n}"] for n in range(5)]

    row = row_of("socks", a_report("socks", *tries))

    assert row.saw == ("reason 0", "reason 1", "reason 2", "2 more")
    assert (row.tries, row.by) == (5, ("policy",))


def test_every_attack_is_carried_out_and_every_one_carried_out_is_judged() -> None:
    in_a_pod = {POD_PROXY.name, *(each.name for each in POD_ATTACKS)}

    assert set(names(network=True, project=True)) | in_a_pod == set(CARRIED_OUT)
