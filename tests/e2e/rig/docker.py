"""Runs a real Docker daemon whose data, sockets and containers are in a directory of the test's.

It makes no bridge and no firewall rules, so that it changes nothing of the machine's network.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.support.waiting import until

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_END_S = 60


class DockerDaemon:
    """One daemon, with its images and containers."""

    def __init__(self, dockerd: str, docker: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="docker-"))
        self.directory.chmod(0o711)
        self.docker = docker
        self.socket = self.directory / "docker.sock"
        quiet = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false")
        places = {
            "--data-root": "data",
            "--exec-root": "exec",
            "--pidfile": "pid",
            "--config-file": "daemon.json",
        }
        (self.directory / "daemon.json").write_text("{}")
        words = [word for key, name in places.items() for word in (key, self.directory / name)]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [dockerd, *quiet, "--storage-driver", "vfs", *words, "-H", self.host],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PATH}"},
                start_new_session=True,
            )
        until(self._answers, "the Docker daemon to answer")

    @property
    def host(self) -> str:
        """Where it listens, for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which `docker` finds it."""
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.directory / "config")}

    def call(self, *words: str, given: bytes | None = None) -> str:
        """Run one command of `docker` and return what it prints."""
        ended = self._run(*words, given=given)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stdout.decode().strip()

    def admit_everybody(self) -> None:
        """Let every user talk to it, as members of the group docker may."""
        self.socket.chmod(0o666)

    def close(self) -> None:
        """End its containers, and the daemon; nothing stays."""
        containers = self.call("ps", "--all", "--quiet").split()
        if containers:
            self.call("rm", "--force", "--volumes", *containers)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_END_S)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        log = self.directory / "log"
        assert self._process.poll() is None, log.read_text(errors="replace")[-2000:]
        return self.socket.exists() and self._run("version").returncode == 0

    def _run(self, *words: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.docker, *words],
            input=given,
            capture_output=True,
            check=False,
            env={**os.environ, **self.variables},
        )
