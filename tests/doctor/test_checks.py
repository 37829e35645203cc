"""Every check runs, whatever the result of the others, and none changes anything."""

import os
import sys
from pathlib import Path

from claude_proxy.config.settings import Settings, TcpListen
from claude_proxy.doctor.checks import CHECKS, examine
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level, exit_code, ok, warning


def a_subject(directory: Path) -> Subject:
    allowlist = directory / "allowlist.yaml"
    listen = (TcpListen("127.0.0.1", 0),)
    settings = Settings(allowlist, directory / "c", directory / "s", listen=listen)
    return Subject(settings, dict(os.environ), sys.platform)


def test_a_check_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def broken(_: Subject) -> list[Finding]:
        raise RuntimeError

    def sound(_: Subject) -> list[Finding]:
        return [ok("b", "well")]

    found = examine(a_subject(tmp_path), (("a", broken), ("b", sound)))

    assert [(each.name, each.level) for each in found] == [("a", Level.ERROR), ("b", Level.OK)]


def test_examining_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "allowlist.yaml").write_text("allow: [one.example]\n")

    found = examine(a_subject(tmp_path))

    assert [path.name for path in tmp_path.iterdir()] == ["allowlist.yaml"]
    assert len(found) >= len(CHECKS)


def test_a_machine_where_nothing_can_be_read_is_still_examined(tmp_path: Path) -> None:
    nowhere = Subject(
        Settings(tmp_path / "none", Path("/proc/1/nothing"), Path("/dev/null/state")), {}, "linux"
    )

    found = examine(nowhere)

    assert exit_code(found) == 2
    assert {each.level for each in found if each.name == "allowlist"} == {Level.ERROR}


def test_the_worst_finding_makes_the_exit_code() -> None:
    assert exit_code([]) == 0
    assert exit_code([ok("a", "b"), warning("a", "b")]) == 1
