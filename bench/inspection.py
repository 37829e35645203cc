"""Looks at a proxy from outside: its descriptors, its sockets, its memory, its audit log."""

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import cost_of

_STATES = {
    "01": "established",
    "02": "connecting",
    "04": "fin-wait-1",
    "05": "fin-wait-2",
    "06": "time-wait",
    "07": "closed",
    "08": "close-wait",
    "09": "last-ack",
    "0A": "listening",
    "0B": "closing",
}


# SQLite keeps the descriptor of a second connection that was closed, to use it again: to close it
# would drop the locks of the first. So there may be one more or less of these at any time.
_DATABASE = re.compile(r".*\.sqlite3(-wal|-shm)?").fullmatch


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a process holds open."""

    clients: int
    upstreams: int
    dead: int  # sockets that the kernel has given up, and the process has not
    states: Mapping[str, int]  # of the clients' and upstreams' sockets
    files: Mapping[str, int]  # what is no TCP socket, and what listens

    def more_than(self, before: "Descriptors") -> Counter[str]:
        """Return the files that were not open before."""
        return Counter(self.files) - Counter(before.files)

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return (
            f"{self.clients} client, {self.upstreams} upstream and {self.dead} dead sockets"
            f"{f' ({states})' if states else ''}, {sum(self.files.values())} files"
        )


def descriptors_of(pid: int, port: int) -> Descriptors:
    """Sort the descriptors of the proxy that listens on `port`."""
    inodes, files = _held_by(pid)
    clients = upstreams = 0
    states: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] not in inodes:
            continue
        inodes.discard(fields[9])
        state = _STATES.get(fields[3], fields[3])
        if state == "listening":
            files[state] += 1
            continue
        states[state] += 1
        if int(fields[1].rpartition(":")[2], 16) == port:
            clients += 1
        else:
            upstreams += 1
    for family in ("unix", "tcp6", "udp", "udp6", "netlink"):
        words = set(Path(f"/proc/{pid}/net/{family}").read_text().split())
        files[family] += len(inodes & words)
        inodes -= words
    return Descriptors(clients, upstreams, len(inodes), dict(states), dict(+files))


def _held_by(pid: int) -> tuple[set[str], Counter[str]]:
    """Return the inodes of a process's sockets, and the names of all else that it holds open."""
    inodes, files = set[str](), Counter[str]()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = str(entry.readlink())
        except OSError:
            continue  # closed meanwhile
        if link.startswith("socket:["):
            inodes.add(link.removeprefix("socket:[").removesuffix("]"))
        elif not _DATABASE(link):
            files[link] += 1
    return inodes, files


def soft_limit_of(pid: int) -> int:
    """Return how many files a process may open as things are."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    line = next(line for line in lines if line.startswith("Max open files"))
    return int(line.split()[3])


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    return cost_of(pid).rss_kib / 1024


def cpu_s_over(pid: int, seconds: float) -> float:
    """Return the CPU seconds that a process takes in the time to come."""
    before = cost_of(pid).cpu_s
    time.sleep(seconds)
    return cost_of(pid).cpu_s - before


type Kind = tuple[str, str, bool]  # target, phase, allowed


def decisions_in(database: Path) -> Counter[Kind]:
    """Count the decisions in an audit log; the row of a repeated denial stands for several."""
    rows = _query(
        database,
        "SELECT target, phase, allowed, sum(coalesce(count, 1)) FROM decision GROUP BY 1, 2, 3",
    )
    return Counter({(target, phase, bool(allowed)): n for target, phase, allowed, n in rows})


def told_in(database: Path) -> int:
    """Count the decisions that the console has a line for."""
    rows = _query(
        database,
        "SELECT sum(coalesce(count, 1)) FROM decision WHERE NOT allowed OR phase = 'request'"
        " OR (phase = 'connect' AND scheme = 'tls')",
    )
    return int(rows[0][0])


def endless_in(database: Path) -> Counter[tuple[str, str, str]]:
    """Count, by phase, reason and host, the decisions of which no outcome was recorded."""
    rows = _query(
        database,
        "SELECT phase, reason, target, count(*) FROM decision d"
        " WHERE NOT EXISTS (SELECT 1 FROM outcome o WHERE o.decision = d.id) GROUP BY 1, 2, 3",
    )
    return Counter({(phase, reason, target): count for phase, reason, target, count in rows})


def _query(database: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(statement).fetchall()
