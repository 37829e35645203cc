"""Protected files that stay writable after the host has replaced them are seen."""

from pathlib import Path

import pytest

from claude_proxy.doctor.attack.host_side import REQUEST, HostSide
from claude_proxy.doctor.attack.probes import replaced as module
from claude_proxy.doctor.attack.probes.outcome import STOPPED, THROUGH


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_files_that_nothing_protects_are_seen(tmp_path: Path) -> None:
    host = HostSide(tmp_path)
    host.create()
    spec = {
        "request": str(tmp_path / REQUEST),
        "entries": host.protected,
        "hidden": host.hidden,
    }

    with host:
        tries = list(module.replaced({"replace": spec}))

    assert {outcome for _, outcome, _, _ in tries} == {THROUGH}
    assert len(tries) == 3 * (len(host.protected) + 1)


def test_an_empty_file_shows_nothing(tmp_path: Path) -> None:
    host = HostSide(tmp_path)
    host.create()
    spec = {"request": str(tmp_path / REQUEST), "entries": [], "hidden": "/dev/null"}

    with host:
        tries = list(module.replaced({"replace": spec}))

    assert {outcome for _, outcome, _, _ in tries} == {STOPPED}


def test_a_host_that_replaces_nothing_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.0)
    spec = {"request": str(tmp_path / REQUEST), "entries": [], "hidden": "/dev/null"}

    with pytest.raises(RuntimeError, match="replaced nothing"):
        list(module.replaced({"replace": spec}))
