"""Terminal probes see a terminal that can be typed into."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.doctor.cage import (
    got_through,
    run_probe,
)

AS_ROOT = os.geteuid() == 0


def test_a_terminal_that_can_be_typed_into_is_seen(tmp_path: Path) -> None:
    """The weak place has a terminal of its own, that of `script`."""
    out = tmp_path / "reports"
    spec = tmp_path / "spec"
    spec.write_text(json.dumps({"attacks": ["terminal"]}))
    command = f"{sys.executable} -m claude_proxy.doctor.attack.probes <{spec} >{out}"
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

    subprocess.run(
        [sys.executable, "-c", script, "sh", "-c", command],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )

    tries = [tuple(row) for row in json.loads(out.read_text())["tries"]]
    assert {what for what, *_ in tries} == {"TIOCSTI", "TIOCSTI with a high bit", "TIOCLINUX"}
    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if not legacy.exists() or legacy.read_text().strip() == "1" or AS_ROOT:
        assert "TIOCSTI" in got_through(tries)


def test_without_a_terminal_and_a_filter_there_is_nothing_to_type_into() -> None:
    [(_, outcome, by, _)] = run_probe("terminal", around=["setsid", "--wait"])

    assert (outcome, by) == ("stopped", "terminal")
