"""What a start has prepared is told and recorded once, by the worker that speaks for all."""

from pathlib import Path
from typing import Any, cast

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.policy_files import load_for
from claude_proxy.config.settings import LogFormat, Settings, Verbosity
from claude_proxy.events import Notice
from claude_proxy.server.prepared import Prepared, ignore_applied
from claude_proxy.server.workers import WorkerSlot
from claude_proxy.vault.vault import Vault
from tests.support.audit import audit_rows


def prepared_in(place: Path, slot: WorkerSlot, **settings: Any) -> Prepared:
    (place / "allowlist.yaml").write_text("allow: [one.example]\n", "utf-8")
    given = Settings(place / "allowlist.yaml", place / "conf", place / "state", **settings)
    unused = cast("Any", None)
    return Prepared(
        given,
        load_for(given),
        authority=None,
        vault=Vault((), given.statedir),
        roots=None,
        descriptors_warning=None,
        listening=(),
        store=AuditStore(database_in(given.statedir)),
        slot=slot,
        news=unused,
        signals=unused,
        of_run=False,
        on_applied=ignore_applied,
    )


@pytest.mark.parametrize(("number", "says"), [(0, True), (1, False)])
def test_one_worker_speaks_and_records_for_all(
    place: Path, capfd: pytest.CaptureFixture[str], number: int, *, says: bool
) -> None:
    prepared = prepared_in(place, WorkerSlot(number))

    prepared.announce("Listening.")
    prepared.report(["warning: something"])
    prepared.record(Notice(0, "start", "listening"))
    prepared.store.close()

    said = capfd.readouterr()
    assert (said.out, said.err) == (
        ("Listening.\n", "claude-proxy: warning: something\n") if says else ("", "")
    )
    assert len(audit_rows(place / "state")) == says


@pytest.mark.parametrize("quiet", [{"verbosity": Verbosity.QUIET}, {"log_format": LogFormat.JSON}])
def test_nothing_is_announced_where_it_would_disturb(
    place: Path, capfd: pytest.CaptureFixture[str], quiet: dict[str, Any]
) -> None:
    prepared = prepared_in(place, WorkerSlot(), **quiet)

    prepared.announce("Listening.")
    prepared.store.close()

    assert capfd.readouterr().out == ""


def test_a_notice_that_cannot_be_recorded_stops_nothing(place: Path) -> None:
    prepared = prepared_in(place, WorkerSlot())
    prepared.store.close()

    prepared.record(Notice(0, "start", "listening"))

    assert audit_rows(place / "state") == []
