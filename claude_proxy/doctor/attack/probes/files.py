"""File probes: files and devices that must not be visible, or not writable."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import FILES, Spec, Try, attempt, open_to_write


def _same(path: str, identity: list[int]) -> None:
    """Return if `path` is this file or directory; else raise OSError."""
    found = Path(path).stat()
    if [found.st_dev, found.st_ino] != identity:
        raise FileNotFoundError(errno.ENOENT, "another file is there")
    if stat.S_ISDIR(found.st_mode):
        list(Path(path).iterdir())
    elif stat.S_ISREG(found.st_mode):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def host_files(spec: Spec) -> Iterator[Try]:
    """Read what must not be visible: keys, other homes, the canary's files, old roots."""
    for path, identity in spec["hidden"].items():
        yield attempt(path, partial(_same, path, identity), denied=FILES)
    roots = ("/proc/1/root", "/proc/1/cwd", "/oldroot", "/newroot")
    for root in roots:
        for path, identity in list(spec["hidden"].items())[:3]:
            yield attempt(f"{root}{path}", partial(_same, root + path, identity), denied=FILES)


def write_policy(spec: Spec) -> Iterator[Try]:
    """Change the policy, the CA, the audit log, and their visible copies."""
    for path, identity in spec["guarded"].items():
        yield attempt(path, partial(_writable, path, identity), denied=FILES)
    for path in spec["shown"]:
        yield attempt(f"{path} (as shown here)", partial(open_to_write, path), denied=FILES)


def _writable(path: str, identity: list[int]) -> None:
    found = Path(path).stat()
    if [found.st_dev, found.st_ino] != identity:
        raise FileNotFoundError(errno.ENOENT, "another file is there")
    if stat.S_ISDIR(found.st_mode):
        name = os.path.join(path, f".claude-proxy-doctor-{os.getpid()}")  # noqa: PTH118
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        Path(name).unlink()
    else:
        open_to_write(path)


def system_settings(_: Spec) -> Iterator[Try]:
    """Open settings of the host's kernel for writing; nothing is written."""
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/release_agent",
        "/usr/bin/env",
        "/etc/passwd",
    ):
        yield attempt(path, partial(open_to_write, path), denied=FILES)


_DEVICES = "mem kmem kmsg port kvm fuse net/tun vhost-net vhost-vsock loop-control mapper/control"


def devices(_: Spec) -> Iterator[Try]:
    """Open devices: memory, disks, tunnels; create one."""
    for name in _DEVICES.split():
        yield attempt(f"/dev/{name}", partial(open_to_write, f"/dev/{name}"), denied=FILES)
    for path in Path("/dev").iterdir():
        with suppress(OSError):
            if stat.S_ISBLK(path.stat().st_mode):
                yield attempt(str(path), partial(_read_disk, path), denied=FILES)
    yield attempt("a new disk device", _make_disk)


def _read_disk(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _make_disk() -> None:
    made = Path(f"/tmp/claude-proxy-doctor-{os.getpid()}")  # noqa: S108 - the sandbox's own
    os.mknod(made, stat.S_IFBLK | 0o600, os.makedev(8, 0))
    made.unlink()
