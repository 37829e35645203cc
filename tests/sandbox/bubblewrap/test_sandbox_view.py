"""The view of a sandbox has the host's files read-only, no /proc, and no capability but one."""

import os
import sys
from pathlib import Path

from claude_proxy.sandbox.bubblewrap.sandbox_view import MountPoint, mounts_of
from tests.sandbox.supervised import SupervisedBox

_CAP_SYS_PTRACE = 1 << 19


def test_a_line_of_mountinfo_is_read() -> None:
    line = rb"36 35 98:12 /root /a\040b rw,nosuid - tmpfs tmpfs rw,size=4k"

    at = MountPoint(line)

    assert (at.path, at.device, at.kind, at.writable) == (
        b"/a b",
        os.makedev(98, 12),
        b"tmpfs",
        True,
    )


def test_optional_fields_and_read_only_mounts_are_understood() -> None:
    line = b"36 35 0:5 / /p ro,relatime shared:1 master:2 - proc proc rw"

    at = MountPoint(line)

    assert (at.path, at.kind, at.writable) == (b"/p", b"proc", False)


def test_only_the_sandboxs_own_file_systems_are_writable_in_the_view(
    supervised: SupervisedBox,
) -> None:
    processes = os.open("/proc", os.O_PATH)
    command = (sys.executable, "-c", "")
    ours = {at.device for at in mounts_of(os.getpid(), processes)}

    with supervised.started(*command) as (bwrap, supervisor):
        view = mounts_of(supervisor.pid, processes)
        inside = mounts_of(bwrap.init, processes)
        status = Path(f"/proc/{supervisor.pid}/status").read_text()
        spaces = {
            name: Path(f"/proc/{supervisor.pid}/ns/{name}").readlink()
            == Path(f"/proc/{bwrap.init}/ns/{name}").readlink()
            for name in ("mnt", "net", "pid")
        }
    os.close(processes)

    writable = {at.path for at in view if at.writable}
    assert {b"/tmp", b"/run", b"/dev/shm"} <= writable
    assert not any(at.device in ours for at in view if at.writable)
    assert not any(at.kind == b"proc" for at in view)
    assert any(at.path == os.fsencode(supervised.box.project) and at.writable for at in inside)
    capabilities = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(capabilities["CapEff"], 16) == int(capabilities["CapPrm"], 16) == _CAP_SYS_PTRACE
    assert spaces == {"mnt": False, "net": True, "pid": False}
