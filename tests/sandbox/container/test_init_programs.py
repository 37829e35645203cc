"""An init of this machine is taken only if it needs no library, which an image may not have."""

import shutil
import struct
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import holder_image, init_programs


def elf(*kinds: int) -> bytes:
    """Return the head of a program with program headers of these kinds."""
    header = struct.pack("<6s26xQ14xHH6x", b"\x7fELF\x02\x01", 64, 56, len(kinds))
    return header + b"".join(struct.pack("<I52x", kind) for kind in kinds)


@pytest.mark.parametrize(
    ("head", "fits"),
    [
        (elf(1, 1), True),
        (holder_image.waiting_program("x86_64"), True),
        (elf(1, 3, 1), False),
        (elf(), False),
        (elf(1)[:-8], True),  # as much as is needed of it
        (elf(1)[:60], False),
        (b"#!/bin/sh\n", False),
        (b"", False),
    ],
)
def test_a_program_with_an_interpreter_is_not_static(head: bytes, *, fits: bool) -> None:
    assert init_programs.has_no_interpreter(head) == fits


def test_the_shell_of_this_machine_needs_libraries() -> None:
    shell = Path(shutil.which("bash") or "/bin/sh").read_bytes()

    assert not init_programs.has_no_interpreter(shell[:4096])


def test_the_first_that_fits_is_taken(tmp_path: Path) -> None:
    static, dynamic = tmp_path / "static", tmp_path / "dynamic"
    static.write_bytes(elf(1))
    dynamic.write_bytes(elf(3))
    is_root = static.stat().st_uid == 0
    places = (str(tmp_path / "missing"), str(tmp_path), str(dynamic), str(static))

    assert init_programs.another(places) == (static if is_root else None)


def test_one_that_others_may_write_is_not_taken(tmp_path: Path) -> None:
    program = tmp_path / "static"
    program.write_bytes(elf(1))
    program.chmod(0o777)

    assert init_programs.another((str(program),)) is None
