"""Makes the place of a run: the C programs, certificates, a hosts file, and an origin."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench import pki
from bench.processes import LOOPBACK, Child, StartError, free_port

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BUILT = REPOSITORY / "build" / "bench"

HOST = "api.bench.test"
DENIED_HOST = "denied.bench.test"
JSON_BYTES = 1024

# nginx's own `return` answers before it has read the body, which makes some proxies hang up; the
# echo module reads it first. Without that module our own origin answers these requests too.
_ECHO = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
_NGINX = """\
load_module {echo};
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.err warn;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 1g;
  client_body_buffer_size 64k; tcp_nodelay on; default_type application/json;
  client_body_temp_path {run}/nginx-body; proxy_temp_path {run}/nginx-proxy;
  fastcgi_temp_path {run}/nginx-fcgi; uwsgi_temp_path {run}/nginx-uwsgi;
  scgi_temp_path {run}/nginx-scgi;
  server {{
    listen {address}:{tls} ssl http2 backlog=4096; listen {address}:{plain} backlog=4096;
    ssl_certificate {run}/origin.pem; ssl_certificate_key {run}/origin.key;
    location = /json {{ echo_read_request_body; echo -n '{json}'; }}
  }}
}}
"""


class Place:
    """A directory of its own outside the repository, and the origins; a context manager."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Else whoever ends the harness would leave its proxies running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with self._stack:
            build()
            raise_descriptors()
            self.directory = Path(tempfile.mkdtemp(prefix="claude-proxy-bench."))
            self._kept = False
            self._stack.callback(self._remove)
            # squid gives up its rights, and reads its files here afterwards.
            self.directory.chmod(0o711)
            pki.make_origin(self.directory, self._names)
            self.hosts_file = self.directory / "hosts"
            self.hosts_file.write_text(f"{LOOPBACK} localhost {' '.join(self._names)}\n")
            self._start_origin()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def origin_ca(self) -> Path:
        """The CA that the proxies must trust upstream."""
        return self.directory / "origin-ca.pem"

    def child(
        self, name: str, *argv: str | Path, environment: dict[str, str] | None = None
    ) -> Child:
        """Start a program that is ended with the place, if not before."""
        child = Child(argv, self.directory / f"{name}.log", environment)
        self._stack.callback(child.stop)
        return child

    def keep(self) -> None:
        """Leave the directory where it is at the end."""
        self._kept = True

    def _remove(self) -> None:
        if not self._kept:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _start_origin(self) -> None:
        self.origin_tls, self.origin_plain = free_port(), free_port()
        certificate, key = self.directory / "origin.pem", self.directory / "origin.key"
        ports = str(self.origin_tls), str(self.origin_plain)
        self.origin = self.child("origin", BUILT / "origin", *ports, certificate, key)
        self.origin.wait_for(self.origin_plain)

    def start_nginx(self) -> tuple[int, int] | None:
        """Start nginx, if it is there, as an origin of requests; return its ports."""
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None or not _ECHO.exists():
            return None
        tls, plain = free_port(), free_port()
        before = '{"id":"msg_01","type":"message","role":"assistant","content":[{"text":"'
        config = self.directory / "nginx.conf"
        config.write_text(
            _NGINX.format(
                echo=_ECHO,
                run=self.directory,
                address=LOOPBACK,
                tls=tls,
                plain=plain,
                json=(before + "y" * JSON_BYTES)[: JSON_BYTES - 4] + '"}]}',
            )
        )
        self.child("nginx", program, "-c", config).wait_for(plain)
        return tls, plain


def build() -> None:
    """Compile the load generator and the origin, if they are older than their sources."""
    try:
        ran = subprocess.run(
            ["make", "--silent", "-C", str(HERE / "src"), f"OUT={BUILT}"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise StartError("there is no make; Debian: apt-get install make gcc libssl-dev") from error
    if ran.returncode:
        raise StartError(
            f"the C programs do not compile; Debian: apt-get install gcc libssl-dev\n{ran.stderr}"
        )


def raise_descriptors() -> None:
    """Let everything that is started from here open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
