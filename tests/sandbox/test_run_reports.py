"""After a run its user reads what was denied, what was not recorded, and what was looked up."""

from pathlib import Path

from claude_proxy.config.settings import AuditFailure, Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import run_reports
from claude_proxy.sandbox.lookups import NameLookup, NameLookups
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec

SETTINGS = Settings(Path("/conf/allowlist.yaml"), Path("/conf"), Path("/nowhere"))
RUN = RunSpec(SandboxSpec(("true",), Path("/project"), Profile("shell")), SETTINGS)
WHY = ClaudeProxyError("the disk is full", where="/state", fix="make room")


def test_what_was_not_recorded_is_said_with_the_reason() -> None:
    said: list[str] = []

    run_reports.report_unrecorded(RUN, (3, WHY), said.append)

    assert "3 connections and requests of this run were denied" in said[0]
    assert "the disk is full" in said[0]
    assert said[1:] == ["  where: /state", "  fix:   make room"]


def test_what_was_allowed_without_a_record_is_said_so() -> None:
    said: list[str] = []
    run = replace(RUN, settings=replace(SETTINGS, audit_failure=AuditFailure.ALLOW))

    run_reports.report_unrecorded(run, (1, WHY), said.append)

    assert "without a record" in said[0]


def test_where_all_was_recorded_nothing_is_said() -> None:
    said: list[str] = []

    run_reports.report_unrecorded(RUN, None, said.append)
    run_reports.report_denials(RUN, "web", 0, said.append)  # there is no record to read

    assert said == []


def test_names_that_were_looked_up_are_notes_with_the_reason() -> None:
    lines = [*run_reports.lookup_lines(NameLookups((NameLookup("a.test", 1, "ssh"),)))]

    assert lines[0] == "note: a.test was looked up past the proxy by ssh"
    assert "only the proxy resolves names" in lines[1]
    assert "HTTPS is the way: where the list allows a.test" in lines[2]
    assert [*run_reports.lookup_lines(NameLookups())] == []
