"""File probes see files and devices that can be read or written."""

import os
from pathlib import Path

from tests.doctor.cage import (
    got_through,
    outcomes,
    run_probe,
    weak,
)


def test_files_that_can_be_read_or_written_are_seen(tmp_path: Path) -> None:
    file, folder, pipe = tmp_path / "file", tmp_path / "folder", tmp_path / "pipe"
    file.write_text("x")
    folder.mkdir()
    os.mkfifo(pipe)
    found = {str(each): identity_of(each) for each in (file, folder, pipe)}
    other = {str(file): [1, 1]}

    read = run_probe("host-files", hidden=found)
    written = run_probe("write-policy", guarded=dict(list(found.items())[:2]), shown=[str(file)])

    assert set(found) <= set(got_through(read))
    assert got_through(written) == [str(file), str(folder), f"{file} (as shown here)"]
    assert list(folder.iterdir()) == []
    assert outcomes(run_probe("host-files", hidden=other)) == {"stopped"}
    assert outcomes(run_probe("write-policy", guarded=other)) == {"stopped"}


def identity_of(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino]


def test_settings_and_devices_that_can_be_written_are_seen(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("")
    around = weak("--bind", str(ours), "/etc/passwd", "--bind", str(ours), "/dev/kmsg")

    assert "/etc/passwd" in got_through(run_probe("system-settings", around=around))
    assert "/dev/kmsg" in got_through(run_probe("devices", around=around))
