"""Raw system calls have the right numbers, and raise the errors of the kernel."""

import errno
import os
from pathlib import Path

import pytest

from claude_proxy.doctor.attack.probes import syscalls
from tests.support.libraries import need_libseccomp
from tools import libseccomp


@pytest.mark.parametrize("name", syscalls.NUMBERS)
def test_a_number_is_the_one_that_libseccomp_knows(name: str) -> None:
    need_libseccomp()
    numbers = [libseccomp.call_number(name, machine) for machine in ("x86_64", "aarch64")]

    assert syscalls.NUMBERS[name] == tuple(numbers)


def test_a_call_returns_its_result() -> None:
    descriptor = syscalls.call("pidfd_open", os.getpid(), 0)

    assert Path(f"/proc/self/fd/{descriptor}").readlink() == Path("anon_inode:[pidfd]")
    os.close(descriptor)


def test_a_call_that_fails_raises_its_error() -> None:
    with pytest.raises(OSError, match="socket") as caught:
        syscalls.call("socket", -1, 0, 0)

    assert caught.value.errno == errno.EAFNOSUPPORT
