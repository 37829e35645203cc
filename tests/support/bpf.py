"""An interpreter of classic BPF, as far as system call filters use it: what the kernel would do."""

import struct

_WORDS = struct.Struct("<iIQ6Q")  # struct seccomp_data
_INSTRUCTION = struct.Struct("<HBBI")

type Program = list[tuple[int, int, int, int]]


def decode(program: bytes) -> Program:
    """Return the instructions of a filter."""
    return list(_INSTRUCTION.iter_unpack(program))


def run(program: Program, architecture: int, call: int, *arguments: int) -> int:
    """Return the action that a filter takes on a system call."""
    six = [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * 6)[:6]]
    data = _WORDS.pack(call, architecture, 0, *six)
    accumulator = at = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= value
            case 0x05:  # BPF_JMP | BPF_JA
                at += value
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_true if accumulator == value else if_false
            case 0x25:  # BPF_JMP | BPF_JGT | BPF_K
                at += if_true if accumulator > value else if_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += if_true if accumulator >= value else if_false
            case 0x06:  # BPF_RET | BPF_K
                return value
            case _:
                raise ValueError(f"an instruction that no filter uses: {code:#x}")
