"""The system call filter denies what its rules say, and real programs run under it."""

import errno
import itertools
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_proxy.doctor.attack.probes.syscalls import NUMBERS
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.bubblewrap import seccomp, seccomp_notify
from claude_proxy.sandbox.bubblewrap.seccomp import Reported
from tests.conftest import FindProgram
from tests.sandbox.boxes import Box
from tests.support import bpf
from tests.support.libraries import need_libseccomp
from tools import libseccomp, seccomp_filter

CALLS = Path(__file__).with_name("calls.c")

UNSUPPORTED_FAMILY = (
    *("socket-unix", "socket-unix-high", "socket-unix-dgram", "socket-vsock", "socket-packet"),
    *("socket-alg", "socket-bluetooth", "socket-beyond", "socket-negative", "pair-inet"),
)
UNSUPPORTED_PROTOCOL = (
    *("socket-netfilter", "socket-netfilter-high"),
    *("pair-dgram", "pair-dgram-cloexec", "pair-dgram-high"),
)
UNKNOWN = ("io-uring", "io-uring-enter", "io-uring-register", "clone3")
FORBIDDEN = (
    *("keyctl", "add-key", "request-key", "unshare-user", "unshare-user-high", "unshare-net"),
    *("unshare-time", "clone-user", "clone-user-high", "setns", "mount", "umount", "open-tree"),
    *("fsopen", "mount-setattr", "chroot", "bpf", "perf", "userfaultfd", "handle", "vm-read"),
    *("vm-write", "type", "type-high", "paste", "paste-high"),
)
ALLOWED = ("tcp", "udp", "ipv6", "routes", "pair", "pair-of-packets", "unshare")
EXPECTED = {
    **dict.fromkeys(UNSUPPORTED_FAMILY, errno.EAFNOSUPPORT),
    **dict.fromkeys(UNSUPPORTED_PROTOCOL, errno.EPROTONOSUPPORT),
    **dict.fromkeys(UNKNOWN, errno.ENOSYS),
    **dict.fromkeys(FORBIDDEN, errno.EPERM),
    **{f"allowed-{name}": 0 for name in ALLOWED},
}
FOREIGN = {"i386": -signal.SIGSYS, "x32": -signal.SIGSYS}


def test_each_call_ends_as_the_filter_says(box: Box, program: FindProgram) -> None:
    built = box.project / "calls"
    subprocess.run([program("gcc"), "-o", built, CALLS], check=True)

    done = box.run(str(built))

    found = {name: int(code) for name, code in (line.split() for line in done.out.splitlines())}
    foreign = FOREIGN if platform.machine() == "x86_64" else {}
    assert found == EXPECTED | foreign, done.err


def test_the_init_process_of_the_sandbox_is_filtered_too(box: Box) -> None:
    assert "Seccomp:\t2" in box.sh("cat /proc/1/status").out


def test_python_and_its_pools_of_processes_work(box: Box) -> None:
    script = box.project / "pool.py"
    script.write_text(
        "import concurrent.futures, multiprocessing, subprocess, threading\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    with concurrent.futures.ProcessPoolExecutor(2) as pool:\n"
        "        print(sum(pool.map(abs, [-1, -2, -3])))\n"
        "    threading.Thread(target=print, args=('thread',)).start()\n"
        "    subprocess.run(['true'], check=True)\n"
    )

    done = box.run(sys.executable, str(script))

    assert done.out.splitlines() == ["6", "thread"], done.err


def test_node_and_its_children_work(box: Box, program: FindProgram) -> None:
    node = program("node")
    script = box.project / "children.js"
    script.write_text(
        "const { fork, spawnSync } = require('child_process');\n"
        "const { Worker } = require('worker_threads');\n"
        "if (process.send) { process.send('from the child'); process.disconnect(); } else {\n"
        "  fork(__filename).on('message', (text) => console.log(text));\n"
        "  new Worker('console.log(\"worker\")', { eval: true });\n"
        "  console.log(spawnSync('echo', ['spawned']).stdout.toString().trim());\n"
        "  require('http').createServer((_, r) => r.end('served')).listen(0, '127.0.0.1',\n"
        "    function () { require('http').get({ port: this.address().port }, (r) =>\n"
        "      r.on('data', (d) => { console.log(d.toString()); this.close(); })); });\n"
        "}\n"
    )

    done = box.run(node, str(script))

    expected = ["from the child", "served", "spawned", "worker"]
    assert sorted(done.out.splitlines()) == expected, done.err


def test_git_clones_in_the_project(box: Box) -> None:
    subprocess.run(["git", "init", "-q", box.project / "one"], check=True)

    done = box.sh(
        "cd one && git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m x"
        " && git clone -q . ../two && git -C ../two log --format=%s"
    )

    assert done.out == "x\n", done.err


# What the shipped filters are, call by call, without asking the machine that the tests run on

HIGH_BIT = 1 << 32
I386, ARM = 0x4000_0003, 0x4000_0028
X32 = 0x4000_0000
TIOCSTI, TIOCLINUX, TCGETS = 0x5412, 0x541C, 0x5401
NEW_USER, NEW_NET, NEW_TIME = 0x1000_0000, 0x4000_0000, 0x80
SIGCHLD = 17
KILL = libseccomp.KILL_PROCESS
USER_NOTIF = 0x7FC0_0000
GETSOCKOPT = {"x86_64": 55, "aarch64": 209}
PEER_PIDFD = (socket.SOL_SOCKET, 77)
NEW_THREAD = 0x3D0F00  # the flags by which the C library starts a thread

ALLOWED_CALLS: list[tuple[str, tuple[int, ...]]] = [
    ("socket", (socket.AF_INET, socket.SOCK_STREAM, 0)),
    ("socket", (socket.AF_INET6, socket.SOCK_DGRAM, 0)),
    ("socket", (socket.AF_NETLINK, socket.SOCK_RAW, 0)),
    ("socketpair", (socket.AF_UNIX, socket.SOCK_STREAM, 0)),
    ("socketpair", (socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 0)),
    ("clone", (SIGCHLD,)),
    ("clone", (NEW_THREAD,)),
    ("unshare", (0,)),
    ("ioctl", (0, TCGETS)),
    ("ptrace", (0,)),
    ("pidfd_open", (1,)),
]
DENIED_CALLS: list[tuple[str, tuple[int, ...], int]] = [
    ("socket", (socket.AF_UNIX, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),
    ("socket", (socket.AF_UNIX | HIGH_BIT, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),
    ("socket", (40, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),  # AF_VSOCK
    ("socket", (17, socket.SOCK_RAW, 0), errno.EAFNOSUPPORT),  # AF_PACKET
    ("socket", (1000, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),
    ("socket", (-1, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),
    ("socket", (socket.AF_NETLINK, socket.SOCK_RAW, 12), errno.EPROTONOSUPPORT),
    ("socket", (socket.AF_NETLINK | HIGH_BIT, socket.SOCK_RAW, 12), errno.EPROTONOSUPPORT),
    ("socketpair", (socket.AF_UNIX, socket.SOCK_DGRAM, 0), errno.EPROTONOSUPPORT),
    ("socketpair", (socket.AF_UNIX, socket.SOCK_DGRAM | HIGH_BIT, 0), errno.EPROTONOSUPPORT),
    ("socketpair", (socket.AF_INET, socket.SOCK_STREAM, 0), errno.EAFNOSUPPORT),
    ("clone", (NEW_USER | SIGCHLD,), errno.EPERM),
    ("clone", (NEW_USER | HIGH_BIT | SIGCHLD,), errno.EPERM),
    ("clone3", (), errno.ENOSYS),
    ("unshare", (NEW_USER | NEW_NET,), errno.EPERM),
    ("unshare", (NEW_TIME,), errno.EPERM),
    ("ioctl", (0, TIOCSTI), errno.EPERM),
    ("ioctl", (0, TIOCSTI | HIGH_BIT), errno.EPERM),
    ("ioctl", (0, TIOCLINUX), errno.EPERM),
    ("ioctl", (0, TIOCLINUX | HIGH_BIT), errno.EPERM),
    *((name, (), errno.EPERM) for name in ("setns", "mount", "umount2", "chroot", "bpf", "keyctl")),
    *((name, (), errno.EPERM) for name in ("open_by_handle_at", "pidfd_getfd", "mount_setattr")),
    ("io_uring_setup", (), errno.ENOSYS),
]


def shipped(architecture: str) -> bpf.Program:
    return bpf.decode(seccomp.program(architecture))


def action(architecture: str, name: str, *arguments: int) -> int:
    number = NUMBERS[name][seccomp.ARCHITECTURES.index(architecture)]
    token = libseccomp.ARCHITECTURES[architecture]
    return bpf.run(shipped(architecture), token, number, *arguments)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
@pytest.mark.parametrize(("name", "arguments"), ALLOWED_CALLS)
def test_what_programs_need_is_allowed(
    architecture: str, name: str, arguments: tuple[int, ...]
) -> None:
    assert action(architecture, name, *arguments) == libseccomp.ALLOW


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
@pytest.mark.parametrize(("name", "arguments", "number"), DENIED_CALLS)
def test_a_call_that_bypasses_the_namespaces_is_denied(
    architecture: str, name: str, arguments: tuple[int, ...], number: int
) -> None:
    assert action(architecture, name, *arguments) == libseccomp.errno_action(number)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
def test_a_call_too_new_for_libseccomp_is_denied(architecture: str) -> None:
    token = libseccomp.ARCHITECTURES[architecture]
    open_tree_attr = 467

    denied = bpf.run(shipped(architecture), token, open_tree_attr)

    assert denied == libseccomp.errno_action(errno.EPERM)


@pytest.mark.parametrize("number", [0, 20, 359, 467])
def test_a_call_of_another_architecture_kills_the_process(number: int) -> None:
    intel, arm = libseccomp.ARCHITECTURES["x86_64"], libseccomp.ARCHITECTURES["aarch64"]

    assert {bpf.run(shipped("x86_64"), other, number) for other in (I386, arm)} == {KILL}
    assert bpf.run(shipped("x86_64"), intel, number | X32) == KILL
    assert {bpf.run(shipped("aarch64"), other, number) for other in (ARM, intel)} == {KILL}


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
def test_the_shipped_filter_does_what_libseccomp_builds_from_the_rules(architecture: str) -> None:
    need_libseccomp()
    built, here = bpf.decode(seccomp_filter.build(architecture)), shipped(architecture)
    token = libseccomp.ARCHITECTURES[architecture]

    differing = [
        (hex(arch), call, arguments)
        for arch, call, arguments in every_kind_of_call(token, architecture)
        if bpf.run(built, arch, call, *arguments) != bpf.run(here, arch, call, *arguments)
    ]

    assert differing == [], "run `make seccomp`"


def every_kind_of_call(token: int, architecture: str) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield every call with plain arguments, and those that rules look into with many."""
    column = seccomp.ARCHITECTURES.index(architecture)
    for arch in (token, I386, ARM, *libseccomp.ARCHITECTURES.values()):
        for call in (*range(-1, 600), *range(X32, X32 + 600)):
            yield arch, call, ()
            yield arch, call, (-1,) * 6
    bits = [1 << bit for bit in range(64)]
    for name in ("clone", "unshare"):
        for flags in (0, SIGCHLD, NEW_THREAD, *bits):
            yield token, NUMBERS[name][column], (flags,)
    for request in {*range(0x5400, 0x5480), *(TIOCSTI | bit for bit in bits), *bits}:
        yield token, NUMBERS["ioctl"][column], (0, request)
    for option in range(100):
        yield token, GETSOCKOPT[architecture], (3, socket.SOL_SOCKET, option)
    families = {*range(70), *bits, *(socket.AF_UNIX | bit for bit in bits), -1}
    kinds = {*range(16), *(socket.SOCK_STREAM | bit for bit in (HIGH_BIT, 1 << 11, 1 << 19)), -1}
    for family, protocol in itertools.product(families, (0, 1, 12, HIGH_BIT)):
        yield token, NUMBERS["socket"][column], (family, socket.SOCK_STREAM, protocol)
    for family, kind in itertools.product((*range(20), socket.AF_UNIX | HIGH_BIT), kinds):
        yield token, NUMBERS["socket"][column], (family, kind, 0)
    for family, kind in itertools.product(families, kinds):
        yield token, NUMBERS["socketpair"][column], (family, kind, 0)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
def test_the_filter_that_leaves_pairs_to_another_differs_in_nothing_else(architecture: str) -> None:
    strict = shipped(architecture)
    reporting = bpf.decode(seccomp.program(architecture, Reported.PAIRS))
    before = bpf.decode(seccomp_notify.filter_program(architecture, private=False))
    token = libseccomp.ARCHITECTURES[architecture]

    for arch, call, arguments in every_kind_of_call(token, architecture):
        ends = [bpf.run(one, arch, call, *arguments) for one in (strict, reporting, before)]
        passes = [end == libseccomp.ALLOW for end in ends]
        if passes[1] and not passes[0]:
            # What only this filter lets through, the one before reports.
            assert ends[2] == USER_NOTIF, (arch, call, arguments)
        else:
            assert passes[0] == passes[1], (arch, call, arguments)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
def test_the_filter_for_private_sockets_lets_only_streams_and_packets_be_made(
    architecture: str,
) -> None:
    pairs = bpf.decode(seccomp.program(architecture, Reported.PAIRS))
    sockets = bpf.decode(seccomp.program(architecture, Reported.SOCKETS))
    token = libseccomp.ARCHITECTURES[architecture]
    made = NUMBERS["socket"][seccomp.ARCHITECTURES.index(architecture)]
    asked = GETSOCKOPT[architecture]
    streams = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)

    for arch, call, arguments in every_kind_of_call(token, architecture):
        before, now = (bpf.run(one, arch, call, *arguments) for one in (pairs, sockets))
        family = arguments[0] & 0xFFFF_FFFF if arguments else 0
        if (arch, call, arguments[1:3]) == (token, asked, PEER_PIDFD):
            assert now == libseccomp.errno_action(errno.ENOPROTOOPT)
            continue
        if (arch, call, family) == (token, made, socket.AF_UNIX):
            allowed = arguments[1] & 0xF in streams
            refused = libseccomp.errno_action(errno.EPROTONOSUPPORT)
            assert now == (libseccomp.ALLOW if allowed else refused), arguments
            assert before != libseccomp.ALLOW
        else:
            assert now == before, (hex(arch), call, arguments)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
@pytest.mark.parametrize("reported", [Reported.PAIRS, Reported.SOCKETS])
def test_the_shipped_filter_for_reported_calls_is_built_from_the_rules(
    architecture: str, reported: Reported
) -> None:
    need_libseccomp()

    built = bpf.decode(seccomp_filter.build(architecture, reported))
    here = bpf.decode(seccomp.program(architecture, reported))

    token = libseccomp.ARCHITECTURES[architecture]
    for arch, call, arguments in every_kind_of_call(token, architecture):
        assert bpf.run(built, arch, call, *arguments) == bpf.run(here, arch, call, *arguments)


def test_every_denied_call_has_a_reason() -> None:
    assert all(reason and calls for _, reason, calls in seccomp_filter.DENIED)


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES)
def test_every_denied_call_is_known_or_written_by_hand(architecture: str) -> None:
    need_libseccomp()

    for _, _, calls in seccomp_filter.DENIED:
        for call in calls:
            libseccomp.call_number(call, architecture)


# Which filter a run takes


def test_this_machine_has_a_filter() -> None:
    assert seccomp.problem() is None
    assert seccomp.program() == seccomp.program(platform.machine())


@pytest.mark.parametrize("machine", ["riscv64", "i686", "armv7l", ""])
def test_a_machine_without_a_filter_is_an_error(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))

    with pytest.raises(ConfigError, match="no system call filter for"):
        seccomp.program()

    problem = seccomp.problem()
    assert problem is not None
    assert "--without-seccomp" in (problem.fix or "")


def test_a_filter_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(seccomp, "__file__", str(tmp_path / "seccomp.py"))

    with pytest.raises(ConfigError, match="cannot be read"):
        seccomp.program()
