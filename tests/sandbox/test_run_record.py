"""The record of a run says what was started, in which image, and how it ended."""

from pathlib import Path

from claude_proxy.audit.database import FILE_NAME
from claude_proxy.audit.queries import AuditReader
from claude_proxy.config.settings import RunIdentity, Settings
from claude_proxy.events import Notice
from claude_proxy.sandbox import run_record

RUN = RunIdentity("web", "sh", "sha256:d16e57")


def settings(statedir: Path) -> Settings:
    return Settings(Path("/conf/allowlist.yaml"), Path("/conf"), statedir)


def test_the_start_of_a_run_is_recorded_with_its_image(tmp_path: Path) -> None:
    run_record.record_start(settings(tmp_path), RUN)

    with AuditReader(tmp_path / FILE_NAME) as reader:
        (run,) = reader.runs(9)
    assert (run.name, run.program) == ("web", "sh")
    assert RUN.start_text == "run web: sh (image sha256:d16e57)"


def test_what_happened_in_a_run_is_added_to_its_record(tmp_path: Path) -> None:
    run_record.record_start(settings(tmp_path), RUN)

    run_record.record(settings(tmp_path), Notice(0, "run-end", "run web: exit code 3", run="web"))

    with AuditReader(tmp_path / FILE_NAME) as reader:
        (run,) = reader.runs(9)
    assert run.exit_code == 3
