"""Real servers of protocols that know of no proxy, somewhere on the test's internet."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tests.support.waiting import until

from .internet import Internet
from .launch import NOBODY

REDIS, MARIADB, ADB, MONGO = (
    6390,
    3390,
    5390,
    27390,
)  # no port of theirs, so that a forward has to change it

_ROLES = """\
CREATE DATABASE shop;
GRANT ALL ON shop.* TO app IDENTIFIED BY 'of-the-client';
"""


class TcpServer:
    """One server, as an ordinary user unless it is `as_self`, with a directory of its own."""

    def __init__(self, internet: Internet, port: int, *, as_self: bool = False) -> None:
        self._internet, self._port, self._as_self = internet, port, as_self
        self.directory = Path(tempfile.mkdtemp(prefix="server-"))
        os.chown(self.directory, NOBODY, NOBODY)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        """Start it, and wait until it listens."""
        with self._log() as log:
            self._process = subprocess.Popen(
                self._argv(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            until(self._listens, f"{words[0]} to listen on {self._port}")
        except BaseException:
            self.close()
            raise

    def prepare(self, *words: str) -> None:
        """Run something that it needs before."""
        with self._log() as log:
            subprocess.run(self._argv(words), stdin=subprocess.DEVNULL, stdout=log, check=True)

    def close(self) -> None:
        """End it, and remove all of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory)

    def _argv(self, words: Sequence[str]) -> list[str]:
        user = (
            []
            if self._as_self
            else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        )
        clean = ["env", "-i", "-C", str(self.directory), f"HOME={self.directory}"]
        return self._internet.namespace.argv([*user, *clean, f"PATH={os.environ['PATH']}", *words])

    def _log(self) -> IO[bytes]:
        return (self.directory / "log").open("ab")

    def _listens(self) -> bool:
        words = ["ss", "-Hltn", f"sport = :{self._port}"]
        ran = subprocess.run(
            self._internet.namespace.argv(words), capture_output=True, text=True, check=False
        )
        return str(self._port) in ran.stdout


def redis(internet: Internet) -> TcpServer:
    """Start a Redis."""
    server = TcpServer(internet, REDIS)
    server.start(
        *("redis-server", "--port", str(REDIS), "--bind", "0.0.0.0"),
        *("--protected-mode", "no", "--save", "", "--requirepass", "of-the-client"),
    )
    return server


def mariadb(internet: Internet) -> TcpServer:
    """Start a MariaDB that knows the user `app`."""
    server = TcpServer(internet, MARIADB)
    where = f"--datadir={server.directory}/data"
    server.prepare("mariadb-install-db", "--auth-root-authentication-method=normal", where)
    roles = server.directory / "roles.sql"
    roles.write_text(_ROLES, encoding="utf-8")
    server.start(
        *("mariadbd", "--no-defaults", where, f"--port={MARIADB}", "--bind-address=0.0.0.0"),
        *(f"--socket={server.directory}/socket", f"--init-file={roles}", "--skip-name-resolve"),
    )
    return server


def adb(internet: Internet) -> TcpServer:
    """Start a server of the Android Debug Bridge."""
    server = TcpServer(internet, ADB)
    server.start("adb", "-a", "-P", str(ADB), "nodaemon", "server")
    return server


def mongo(internet: Internet, python: str) -> TcpServer:
    """Start the least of a MongoDB; `python` has pymongo."""
    # As the tests, whose interpreter may be where nobody else may enter.
    server = TcpServer(internet, MONGO, as_self=True)
    server.start(python, str(Path(__file__).with_name("mongo_server.py")), "mongo.test", str(MONGO))
    return server
