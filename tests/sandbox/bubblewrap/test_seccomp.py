"""Tests the system call filter on the kernel itself, and that real programs live with it."""

import errno
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.bubblewrap import seccomp
from tests.conftest import FindProgram
from tests.sandbox.boxes import Box

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


def test_the_init_process_of_the_sandbox_is_under_the_filter_too(box: Box) -> None:
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


def test_a_machine_without_the_library_has_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the import does on such a machine: pyseccomp looks for the library, and raises.
    monkeypatch.setitem(sys.modules, "pyseccomp", None)

    with pytest.raises(ConfigError) as caught:
        seccomp.program()

    assert "libseccomp2" in (caught.value.fix or "")
    assert "--without-seccomp" in (caught.value.fix or "")
    assert seccomp.problem() is not None


def test_a_library_that_cannot_build_the_filter_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        Arch = Attr = ALLOW = KILL_PROCESS = 0

        @staticmethod
        def SyscallFilter(_: object) -> None:  # noqa: N802 - its name there
            raise OSError(errno.EINVAL, "no")

    monkeypatch.setitem(sys.modules, "pyseccomp", Broken)

    with pytest.raises(ConfigError, match="cannot build"):
        seccomp.program()


def test_this_machine_can_build_the_filter() -> None:
    assert seccomp.problem() is None
    assert len(seccomp.program()) % 8 == 0


def test_every_denied_call_has_a_reason() -> None:
    assert all(reason and calls for _, reason, calls in seccomp._DENIED)
