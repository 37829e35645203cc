"""The image of a holder: one tiny program that waits, or nothing at all."""

import io
import os
import signal
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from claude_proxy.sandbox.container.holder_image import (
    PROGRAM,
    can_wait,
    empty_image,
    waiting_image,
    waiting_program,
)
from tests.support.waiting import until

WAIT_S = 30


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def test_an_empty_image_holds_nothing() -> None:
    assert names(empty_image()) == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_other_one_holds_the_program_alone(machine: str) -> None:
    archive = waiting_image(machine)

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (entry,) = tar.getmembers()
        file = tar.extractfile(entry)
        assert file is not None
        assert f"/{entry.name}" == PROGRAM
        assert entry.mode == 0o755
        assert file.read() == waiting_program(machine)


def test_another_processor_has_none() -> None:
    assert can_wait("x86_64")
    assert not can_wait("riscv64")
    with pytest.raises(KeyError):
        waiting_program("riscv64")


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="another processor")
def test_the_program_waits_without_working_until_it_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "wait"
    program.write_bytes(waiting_program(os.uname().machine))
    program.chmod(0o755)

    with subprocess.Popen([program, "a word"]) as process:
        stat = Path(f"/proc/{process.pid}/stat")

        until(lambda: stat.read_text("ascii").split()[2] == "S", "it to sleep")
        assert process.poll() is None
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: stat.read_text("ascii").split()[2] == "S", "it to sleep again")

        process.kill()
        assert process.wait(WAIT_S) == -signal.SIGKILL


def test_the_last_instruction_of_the_arm_program_leads_to_the_first() -> None:
    *_, branch = code = struct.unpack("<8I", waiting_program("aarch64")[-32:])

    offset = branch & 0x3FFFFFF
    assert offset - (1 << 26) == 1 - len(code)
