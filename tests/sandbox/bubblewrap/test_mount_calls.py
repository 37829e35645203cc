"""Mounts are made on what is open, and never by a path that somebody could change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import mount_calls
from tests.conftest import FindProgram

SCRIPT = """\
import os, sys
from pathlib import Path
from claude_proxy.sandbox.bubblewrap import mount_calls
top = Path(sys.argv[1])
(top / "a").write_text("1")
os.chdir("/proc")
def opened(name):
    return os.open(top / name, os.O_PATH | os.O_NOFOLLOW)
held = opened("a")
os.rename(top / "a", top / "b")
(top / "a").write_text("2")
mount_calls.bind_to_itself(held)
mount_calls.make_read_only(opened("b"))
print(mount_calls.is_read_only(opened("b")), mount_calls.is_read_only(opened("a")))
flags = os.fstatvfs(opened("b")).f_flag, os.fstatvfs(held).f_flag
print(flags[0] == flags[1] | os.ST_RDONLY)
tree = mount_calls.clone(opened("b"))
mount_calls.attach(tree, opened("a"))
print((top / "a").read_text(), mount_calls.is_read_only(opened("a")))
"""


def test_a_mount_is_on_what_was_opened_whatever_its_name_is_now(
    tmp_path: Path, program: FindProgram
) -> None:
    command = [program("unshare"), "--user", "--map-root-user", "--mount", sys.executable, "-c"]

    done = subprocess.run(
        [*command, SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == ["True False", "True", "1 True"], done.stderr


def test_a_call_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    events = mount_calls.new_watches()

    with pytest.raises(OSError, match="No such file"):
        mount_calls.watch(events, 999_999, 0x100)
    with pytest.raises(OSError, match="no mount id"):
        mount_calls.mount_in("self/status")
    os.close(events)
