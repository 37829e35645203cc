"""The filter reports what it should and nothing else, where the kernel can report calls."""

import os
import socket
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_proxy.sandbox.bubblewrap import seccomp, seccomp_notify
from claude_proxy.sandbox.bubblewrap.seccomp_notify import BIND, CONNECT, NUMBERS, SOCKETPAIR
from tests.support import bpf
from tools import libseccomp

USER_NOTIF = 0x7FC0_0000
I386 = 0x4000_0003


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@pytest.mark.parametrize("private", [False, True])
def test_only_datagram_pairs_of_unix_sockets_are_reported(machine: str, *, private: bool) -> None:
    program = bpf.decode(seccomp_notify.filter_program(machine, private=private))
    token = libseccomp.ARCHITECTURES[machine]
    call = NUMBERS[machine][SOCKETPAIR]

    def end(*arguments: int, call: int = call, token: int = token) -> int:
        return bpf.run(program, token, call, *arguments)

    assert end(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) == USER_NOTIF
    for other in (
        end(socket.AF_UNIX, socket.SOCK_STREAM),
        end(socket.AF_INET, socket.SOCK_DGRAM),
        end(socket.AF_UNIX, socket.SOCK_DGRAM, call=call + 1000),
        end(socket.AF_UNIX, socket.SOCK_DGRAM, token=0),
    ):
        assert other == libseccomp.ALLOW


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_every_connect_and_bind_is_reported_if_sockets_are_private(machine: str) -> None:
    private, pairs = (
        bpf.decode(seccomp_notify.filter_program(machine, private=private))
        for private in (True, False)
    )
    token = libseccomp.ARCHITECTURES[machine]

    for call in range(-1, 600):
        wanted = call in {NUMBERS[machine][CONNECT], NUMBERS[machine][BIND]}
        assert bpf.run(private, token, call, 3) == (USER_NOTIF if wanted else libseccomp.ALLOW)
        assert bpf.run(pairs, token, call, 3) == libseccomp.ALLOW
        assert bpf.run(private, I386, call, 3) == libseccomp.ALLOW  # the filter after it kills


def test_a_bwrap_with_privileges_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(b"")
    program.chmod(0o755 | stat.S_ISUID)

    assert not seccomp_notify.is_supported(str(program), private=False)
    assert not seccomp_notify.is_supported(str(tmp_path / "none"), private=False)


@pytest.mark.parametrize(
    ("release", "pairs", "sockets"),
    [
        ("4.19.0-1-amd64", False, False),
        ("5.8.0", False, False),
        ("5.10.0-8", True, False),
        ("5.14.0", True, True),
        ("unknown", False, False),
    ],
)
def test_a_kernel_is_asked_for_what_it_has(
    monkeypatch: pytest.MonkeyPatch, release: str, *, pairs: bool, sockets: bool
) -> None:
    supported = seccomp_notify.is_supported(sys.executable, private=False)
    found = SimpleNamespace(machine=os.uname().machine, release=release)
    monkeypatch.setattr(os, "uname", lambda: found)

    assert seccomp_notify.is_supported(sys.executable, private=False) is (pairs and supported)
    assert seccomp_notify.is_supported(sys.executable, private=True) is (sockets and supported)
