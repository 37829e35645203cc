"""Laws of the process's memory: its initial environment cannot be read from it afterwards."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.system import process_memory

CANARY = "sk-ant-CANARY-0123456789"
ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import os, subprocess, sys
from pathlib import Path
from claude_proxy.system import process_memory

os.environ["SET_LATER"] = os.environ["KEY"]
os.environ["SET_AGAIN"] = os.environ["SET_AGAIN"]
left = process_memory.scrub_environment(["KEY", "OTHER", "SET_LATER", "SET_AGAIN", "NEVER", ""])
print("left", left)
print("kept", os.environ.get("KEPT"), os.environ.get("KEY"))
sys.stdout.flush()
print("proc", Path("/proc/self/environ").read_bytes().replace(b"\\0", b"\\n"))
print("child", subprocess.run(["env"], capture_output=True, check=True).stdout)
subprocess.run(["cat", f"/proc/{os.getpid()}/environ"], check=True)
if os.fork() == 0:
    print("fork", Path("/proc/self/environ").read_bytes())
    os._exit(0)
os.wait()
"""


def run(code: str, **variables: str) -> str:
    """Run Python with these variables, and return all that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_scrubbed_variable_is_visible_nowhere() -> None:
    said = run(_CHILD, KEY=CANARY, OTHER=CANARY, SET_AGAIN=CANARY, KEPT="kept", LAST="last")

    assert "left ()" in said
    assert "kept kept None" in said
    assert "LAST=last" in said
    assert "CANARY" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_variable_with_the_same_prefix_is_unchanged() -> None:
    said = run(_CHILD, KEY="a" * 8, KEY_TWO="kept-too", OTHER="b" * 8, SET_AGAIN="c")

    assert "KEY_TWO=kept-too" in said


def test_without_names_nothing_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")

    assert process_memory.scrub_environment([]) == ()
    assert process_memory.scrub_environment(["NO_SUCH_VARIABLE"]) == ()

    assert os.environ["KEPT"] == "1"


def test_variables_are_removed_without_proc_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_memory, "_OWN_STAT", tmp_path / "stat")
    monkeypatch.setattr(process_memory, "_OWN_ENVIRONMENT", tmp_path / "environ")
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)

    assert process_memory.scrub_environment(["CANARY_VARIABLE"]) == ()

    assert "CANARY_VARIABLE" not in os.environ
    assert b"CANARY_VARIABLE" not in subprocess.run(["env"], stdout=-1, check=True).stdout


def test_variables_that_are_still_visible_are_returned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "environ").write_bytes(b"CANARY_VARIABLE=1\0OTHER=\0")
    monkeypatch.setattr(process_memory, "_OWN_ENVIRONMENT", tmp_path / "environ")

    assert process_memory.scrub_environment(["CANARY_VARIABLE", "OTHER"]) == ("CANARY_VARIABLE",)


_DUMPING = """
import os, resource
from pathlib import Path
from claude_proxy.system import process_memory

process_memory.no_core_dumps()
print("core", resource.getrlimit(resource.RLIMIT_CORE)[0])
print("files", len(os.listdir("/proc/self/fd")) > 2)
print("map", Path("/proc/self/uid_map").read_text().split())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_core_is_dumped_and_the_process_still_works() -> None:
    said = run(_DUMPING)

    assert "core 0" in said
    assert "files True" in said
    assert "map ['" in said


_ORDINARY = """
import os, sys
from claude_proxy.system import process_memory

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
process_memory.no_core_dumps()
print("left", process_memory.scrub_environment(["KEY"]))
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_ordinary_users_process_shows_nothing_to_root_either() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ORDINARY],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "KEY": CANARY, "LAST": "last"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        if child.stdout is None or child.stdin is None:
            raise AssertionError
        assert child.stdout.readline() == b"left ()\n"
        if os.geteuid() == 0:
            shown = Path(f"/proc/{child.pid}/environ").read_bytes()
            assert b"LAST=last" in shown
            assert b"CANARY" not in shown
        child.stdin.close()


def test_this_process_may_still_dump() -> None:
    # The two above were children: a limit on the tests themselves would hide their crashes.
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
