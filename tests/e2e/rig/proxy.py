"""Runs `claude-proxy` as its user does: a process of its own, in a home of its own."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.audit import Row, audit_rows
from tests.support.waiting import PATIENCE_S, until

from .client import Tunnel, open_tunnel
from .internet import Internet

REPOSITORY = Path(__file__).resolve().parents[3]
LOOPBACK = "127.0.0.1"
BANNER = "listens on"

# The processes of these tests are not measured: it would slow each start, and what a line of the
# program does is for its own tests to show.
_HANDED_ON = ("PATH", "LANG", "TERM")


class Workplace:
    """A home directory on the host, and the commands that are run from there."""

    def __init__(self, internet: Internet, directory: Path) -> None:
        self.internet = internet
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)

    def environment(self, **variables: str) -> dict[str, str]:
        """Return a small environment: nothing of the developer's own settings is in it."""
        handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        ours = {"HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), "TMPDIR": "/tmp"}
        return {**handed_on, **ours, **variables}

    def run(
        self,
        *command: str | Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        given: bytes | None = None,
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host to its end."""
        ran = subprocess.run(
            self.internet.host.argv([str(word) for word in command], cwd=cwd or self.home),
            env=dict(environment) if environment is not None else self.environment(),
            stdin=subprocess.DEVNULL if given is None else None,
            input=given,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return subprocess.CompletedProcess(
            ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode()
        )

    def claude_proxy(
        self, *arguments: str | Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one `claude-proxy` command to its end."""
        command = (sys.executable, "-m", "claude_proxy", *arguments)
        return self.run(*command, environment=self.environment(**variables))


class Proxy:
    """One running `claude-proxy serve`."""

    def __init__(
        self,
        internet: Internet,
        directory: Path,
        arguments: Sequence[str | Path],
        *,
        port: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.internet = internet
        self.port = port
        self.place = Workplace(internet, directory)
        self.confdir = self.place.home / ".config" / "claude-proxy"
        self.statedir = self.place.home / ".local" / "state" / "claude-proxy"
        self._out, self._err = directory / "stdout", directory / "stderr"
        self._command = [sys.executable, "-m", "claude_proxy", *map(str, arguments)]
        self._variables = dict(variables or {})
        self._banners = 0
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._out.open("ab") as out, self._err.open("ab") as err:
            return subprocess.Popen(
                self.internet.host.argv(self._command, cwd=self.place.home),
                env=self.place.environment(**self._variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def restart(self) -> None:
        """End it and start it anew, in the same home."""
        self.check_calm()
        self._banners += 1
        self.process = self._started()
        self.wait_until_listening()

    @property
    def allowlist(self) -> Path:
        """Where its list lies, if the test wrote one."""
        return self.place.directory / "allowlist.yaml"

    @property
    def url(self) -> str:
        """The address as clients spell it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate, where the seed's users look for it."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    def wait_until_listening(self, ready: str = BANNER) -> None:
        """Wait for the words that say so; fail with what the process said if it ends before."""
        until(lambda: self._says(ready), f"the proxy to say {ready!r}")

    def _says(self, ready: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the proxy ended: {self.process.returncode}\n{self.stderr()}")
        return self.stdout().count(ready) > self._banners

    def stdout(self) -> str:
        """Return what it has printed."""
        return self._out.read_text(errors="replace")

    def stderr(self) -> str:
        """Return what it has complained about."""
        return self._err.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the proxy does not end on SIGTERM") from None

    def check_calm(self) -> None:
        """Fail if it ended badly or printed a traceback."""
        code = self.stop()
        said = self.stdout() + self.stderr()
        assert "Traceback" not in said, said
        assert code == 0, f"exit code {code}: {said}"

    def memory_kib(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

    def open_files(self) -> int:
        """Return how many descriptors it holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    # --- as a client sees it

    def connect(self) -> socket.socket:
        """Return a plain connection to it."""
        return self.internet.host.connect(LOOPBACK, self.port)

    def tls(self) -> ssl.SSLContext:
        """Return a client's side of TLS that trusts this proxy's CA alone."""
        return ssl.create_default_context(cafile=self.ca_file)

    def tunnel(self, target: str, *, server_name: str | None = None) -> Tunnel:
        """Return a TLS tunnel to `target` ("host:port")."""
        return open_tunnel(self.connect(), target, self.tls(), server_name=server_name)

    def ask(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own and return all that comes until its end."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def env(self) -> dict[str, str]:
        """Return a client's environment, from the real `claude-proxy env`."""
        ran = self.place.claude_proxy("env", "--shell", "json", "--port", str(self.port))
        assert ran.returncode == 0, ran.stderr
        variables: dict[str, str] = json.loads(ran.stdout)
        return self.place.environment(**variables)

    def audit(self, *arguments: str) -> list[Row]:
        """Return the audit rows, oldest first."""
        return audit_rows(self.statedir, *arguments)

    def decisions(self, target: str) -> list[Row]:
        """Return the decisions about one target ("host:port"), oldest first."""
        host, _, port = target.rpartition(":")
        rows = self.audit("--host", host)
        return [row for row in rows if (row.host, row.port) == (host, int(port))]

    def outcome(self, target: str, path: str) -> Row:
        """Return the latest request for `path`, once its end is in the log."""

        def ended() -> Row | None:
            rows = [row for row in self.decisions(target) if row.path == path]
            return rows[-1] if rows and rows[-1].duration_ms is not None else None

        row = until(ended, f"the outcome of {target}{path}")
        assert row is not None
        return row


def read_all(connection: socket.socket) -> bytes:
    """Return everything until the other side ends the connection."""
    pieces = []
    try:
        while piece := connection.recv(64 * 1024):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)
