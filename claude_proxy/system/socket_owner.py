"""Socket owner: the program of a process tree that has a local UDP or TCP port open.

Read in /proc from outside (proc(5)): the port leads to an inode, the inode to a descriptor of a
process. Best effort and bounded, for a text that a user reads and never for a decision.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

_MOST_PROCESSES = 256
_MOST_DESCRIPTORS = 4096  # in all processes together
_LOCAL_ADDRESS, _INODE = 1, 9  # columns of /proc/net/udp and /proc/net/tcp


def program_with_port(init: int, protocol: str, port: int) -> str:
    """Return the name of the program with a port in the tree below process `init`; else "".

    `protocol` is "udp" or "tcp"; the port is one of the network namespace of `init`.
    """
    inode = _inode_of(init, protocol, port)
    if not inode:
        return ""
    wanted = f"socket:[{inode}]"
    left = _MOST_DESCRIPTORS
    for pid in _tree(init):
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - the relay has no pathlib
                left -= 1
                if left < 0:
                    return ""
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") == wanted:  # noqa: PTH115
                        return _program_of(pid)
    return ""


def _inode_of(pid: int, protocol: str, port: int) -> str:
    ending = f":{port:04X}"
    with suppress(OSError), open(f"/proc/{pid}/net/{protocol}", encoding="ascii") as file:  # noqa: PTH123
        for line in file:
            fields = line.split()
            if len(fields) > _INODE and fields[_LOCAL_ADDRESS].endswith(ending):
                return fields[_INODE]
    return ""


def _tree(root: int) -> Iterator[int]:
    """Yield a process and all below it, as far as the limit reaches."""
    queue = [root]
    for pid in queue:
        yield pid
        queue += _children_of(pid)
        del queue[_MOST_PROCESSES:]


def _children_of(pid: int) -> list[int]:
    """Return the children of all threads of a process: any thread may have forked."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            path = f"/proc/{pid}/task/{task}/children"
            with suppress(OSError), open(path, encoding="ascii") as file:  # noqa: PTH123
                found += [int(child) for child in file.read().split()]
    return found


def _program_of(pid: int) -> str:
    with suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119
    return ""
