"""Images of the container that holds a network: nothing, or one program that only waits.

The program is a few instructions, written here: pause(2), again and again. So nothing has to be
fetched, and nothing of the host's is in the container.
"""

import io
import struct

# Bytes of a file are part of an image's content: with another content comes another tag.
WAITING_IMAGE = "claude-proxy-network:wait-1"
EMPTY_IMAGE = "claude-proxy-network:empty-1"
PROGRAM = "/wait"

_X86_64, _AARCH64 = 62, 183  # e_machine, elf(5)
# By the names of uname(2): e_machine, and the instructions.
_MACHINES = {
    # mov eax, 34 (pause); syscall; jmp back
    "x86_64": (_X86_64, bytes.fromhex("b822000000 0f05 ebf7")),
    # mov x0..x4, #0; mov x8, #73 (ppoll of nothing, for ever); svc #0; b back
    "aarch64": (
        _AARCH64,
        struct.pack(
            "<8I",
            *(0xD2800000 | register for register in range(5)),
            0xD2800008 | 73 << 5,
            0xD4000001,
            0x17FFFFF9,
        ),
    ),
}

_BASE = 0x400000
_HEADER, _PROGRAM_HEADER = 64, 56  # bytes
_LOAD, _READ_AND_RUN = 1, 5
_PAGE = 0x1000


def can_wait(machine: str) -> bool:
    """Tell whether there is a waiting program for a kind of processor."""
    return machine in _MACHINES


def empty_image() -> bytes:
    """Return a root file system without anything, as a tar archive."""
    return _archive({})


def waiting_image(machine: str) -> bytes:
    """Return one with the waiting program for a kind of processor; KeyError if there is none."""
    return _archive({PROGRAM.removeprefix("/"): waiting_program(machine)})


def waiting_program(machine: str) -> bytes:
    """Return a static program that waits until it is killed."""
    number, code = _MACHINES[machine]
    entry = _BASE + _HEADER + _PROGRAM_HEADER
    size = _HEADER + _PROGRAM_HEADER + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)  # 64 bits, little-endian
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identity,
        2,  # ET_EXEC
        number,
        1,
        entry,
        _HEADER,
        0,
        0,
        _HEADER,
        _PROGRAM_HEADER,
        1,
        64,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", _LOAD, _READ_AND_RUN, 0, _BASE, _BASE, size, size, _PAGE)
    return header + segment + code


def _archive(files: dict[str, bytes]) -> bytes:
    import tarfile  # noqa: PLC0415 - once for each machine; most containers have no holder

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
