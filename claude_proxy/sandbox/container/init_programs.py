"""Init programs of this machine: the first process of a container, which CMD is a child of.

To the first process of a PID namespace the kernel passes no signal that it has no handler for
(pid_namespaces(7)), so Ctrl-C at a terminal ends nothing there, unless an init is that process.
Law kept: nothing of the host's but one static program, read-only, gets into the container by it.
"""

import os
import stat
import struct
from pathlib import Path

# Where podman looks for its own (containers.conf(5), init_path).
_OF_PODMAN = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/lib/podman/catatonit")
# Of the packages tini and dumb-init, where podman's is missing; Debian's docker.io brings tini.
_OTHERS = ("/usr/bin/tini-static", "/usr/bin/tini", "/usr/bin/dumb-init")
_HEADER_BYTES = 64 * 1024
_ELF_64 = b"\x7fELF\x02\x01"  # with 64 bits, little-endian
_PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")  # e_phoff, e_phentsize, e_phnum; elf(5)
_INTERPRETER = 3  # PT_INTERP


def of_podman() -> bool:
    """Tell whether podman has an init of its own, for --init alone."""
    return any(Path(place).exists() for place in _OF_PODMAN)


def another(places: tuple[str, ...] = _OTHERS) -> Path | None:
    """Return another static program that is an init, for --init-path; None: there is none."""
    return next((Path(place) for place in places if _is_static(place)), None)


def _is_static(place: str) -> bool:
    """Tell whether it is a program of root's that needs no library, which an image may not have."""
    try:
        with open(place, "rb") as file:  # noqa: PTH123 - its descriptor is looked at
            found = os.fstat(file.fileno())
            head = file.read(_HEADER_BYTES)
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
        return stat.S_ISREG(found.st_mode) and has_no_interpreter(head)
    except OSError:
        return False


def has_no_interpreter(head: bytes) -> bool:
    """Tell whether a program's first bytes are those of a static one."""
    if not head.startswith(_ELF_64):
        return False
    try:
        offset, size, count = _PROGRAM_HEADERS.unpack_from(head)
        kinds = [struct.unpack_from("<I", head, offset + at * size)[0] for at in range(count)]
    except struct.error:
        return False
    return bool(kinds) and _INTERPRETER not in kinds
