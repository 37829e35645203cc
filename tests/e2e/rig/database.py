"""A real PostgreSQL somewhere on the test's internet, with a cluster of its own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .internet import Internet
from .launch import NOBODY

PORT = 5433
PASSWORD = "s3cret-of-the-owners-database"  # an imitation, as everything here
_PROGRAMS = Path("/usr/lib/postgresql")
_RULES = """\
local all all trust
host all clear all password
host all hashed all md5
host all anybody all trust
host all all all scram-sha-256
"""
_ROLES = f"""
CREATE ROLE app LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE other LOGIN PASSWORD 'of-another-role';
CREATE ROLE clear LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE anybody LOGIN;
SET password_encryption = 'md5';
CREATE ROLE hashed LOGIN PASSWORD '{PASSWORD}';
"""


class Database:
    """One cluster, run by an ordinary user, with TLS as `postgres.test`."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._programs = max(_PROGRAMS.glob("*/bin"))
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        certificate, key = internet.pki.files("postgres.test", self.directory)
        key.chmod(0o600)
        for path in (self.directory, certificate, key):
            os.chown(path, NOBODY, NOBODY)
        self._data = self.directory / "data"
        self._run("initdb", "-D", self._data, "-U", "admin", "-A", "trust", "-N")
        (self._data / "pg_hba.conf").write_text(_RULES, encoding="utf-8")
        settings = {
            "port": PORT,
            "listen_addresses": "0.0.0.0",  # in its namespace
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
        }
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self._control("start", "-l", str(self.directory / "log"))
        self.admin(_ROLES)
        self.admin("CREATE DATABASE shop OWNER app")

    def admin(self, statements: str) -> str:
        """Run statements as the owner of the cluster, on its machine."""
        where = ("-h", self.directory, "-p", str(PORT), "-U", "admin")
        return self._run("psql", *where, "-qAtc", statements, "postgres")

    def close(self) -> None:
        """Stop it, and remove all of it."""
        self._control("stop", "-m", "immediate")
        shutil.rmtree(self.directory)

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", *words)

    def _run(self, program: str, *words: str | Path) -> str:
        command: Sequence[str | Path] = (
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
            *("env", "-i", f"HOME={self.directory}", "LC_ALL=C"),
            *(self._programs / program, *words),
        )
        ran = subprocess.run(
            self._internet.namespace.argv([str(word) for word in command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=self.directory,
            check=True,
        )
        return ran.stdout.decode()
