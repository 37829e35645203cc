"""Replay of a large audit log: how long it takes to judge a million recorded requests again.

It writes a log of its own, in a temporary directory, and runs `claude-proxy replay` on it.
"""

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from claude_proxy.audit.database import database_in, open_for_writing

ROWS: Final = 1_000_000
RUNS: Final = 200
HOSTS: Final = 2_000
_BEGIN_NS: Final = 1_767_323_045_000_000_000
_METHODS: Final = ("GET", "GET", "GET", "HEAD", "POST", "PUT")
_DECISION: Final = (
    "INSERT INTO decision(id, connection, client, listener, phase, scheme, target, method, path,"
    " allowed, reason, rule, rule_source, run) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_OUTCOME: Final = "INSERT INTO outcome VALUES(?,?,?,?,?,?,?,?)"
POLICY: Final = """\
allow:
  - host: "*.example.com"
    methods: [GET, HEAD]
  - host: host-1.example.com
    methods: [POST]
    paths: [/v1/items, /v1/items/*]
deny:
  - host: host-7.example.com
    paths: [/private/**]
"""


def fill(connection: sqlite3.Connection, rows: int, *, paths: int, seed: int = 1) -> None:
    """Write so many decisions with their outcomes, of at most `paths` different paths."""
    connection.execute("BEGIN")
    connection.executemany(_DECISION, _decisions(rows, paths, random.Random(seed)))
    connection.executemany(_OUTCOME, _outcomes(rows))
    connection.execute("COMMIT")


def _decisions(rows: int, paths: int, chance: random.Random) -> Iterator[tuple[object, ...]]:
    for number in range(rows):
        host = chance.randrange(HOSTS)
        path = chance.randrange(paths)
        is_allowed = path % 10 != 0
        yield (
            _BEGIN_NS + number,
            number // 20,
            "127.0.0.1:55555",
            "unix /run/proxy.sock",
            "request",
            "https",
            f"host-{host}.example.com:443",
            _METHODS[path % len(_METHODS)],
            f"/v1/items/{path}/details/of/one",
            is_allowed,
            "rule-matched" if is_allowed else "path-not-allowed",
            None,
            None,
            f"run-{number * RUNS // rows}",
        )


def _outcomes(rows: int) -> Iterator[tuple[object, ...]]:
    return (
        (_BEGIN_NS + number, 200, 10, 2000, 12.5, 3.25, "93.184.216.34:443", None)
        for number in range(rows)
    )


def main() -> int:
    """Make the log, replay it, print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--paths", type=int, default=500, help="different paths in the log")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        statedir, policy = Path(directory) / "state", Path(directory) / "allowlist.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        with closing(open_for_writing(database_in(statedir))) as connection:
            fill(connection, given.rows, paths=given.paths)
        program = (sys.executable, "-m", "claude_proxy", "replay")
        words = ("--statedir", str(statedir), "--allowlist", str(policy), "--confdir", directory)
        began = time.perf_counter()
        done = subprocess.run([*program, *words], check=False, capture_output=True, text=True)
        took = time.perf_counter() - began
    sys.stdout.write(done.stdout[-1000:] + done.stderr)
    sys.stdout.write(f"{given.rows} rows: {took:.1f} s\n")
    return 0 if done.returncode in {0, 1} else done.returncode


if __name__ == "__main__":
    sys.exit(main())
