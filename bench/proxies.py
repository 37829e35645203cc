"""Knows how each proxy is started, the way its user would, to allow one host and decrypt it.

claude-proxy: `python -m claude_proxy serve`, the audit log on, default verbosity into a file.
mitmdump: as it comes, with `allow_addon.py`. squid: `ssl_bump` as its manual has it, no logs.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench import pki
from bench.place import HERE, HOST, REPOSITORY, Place
from bench.processes import LOOPBACK, Child, StartError, free_port

SQUID_MAKERS = ("/usr/lib/squid/security_file_certgen", "/usr/libexec/security_file_certgen")
_SQUID_USER = "proxy"


@dataclass(frozen=True, slots=True)
class Target:
    """The origin's host and ports, as the proxies are to allow them."""

    tls: int
    plain: int
    own_tls: int  # of our own origin: events and downloads

    @property
    def tls_ports(self) -> list[int]:
        """Every port with TLS, each once."""
        return list(dict.fromkeys((self.tls, self.own_tls)))


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that listens, and how clients use it."""

    address: str  # "127.0.0.1:20001"
    ca: Path  # what its clients trust
    startup_s: float = 0.0
    child: Child | None = None
    direct: bool = False

    @property
    def pid(self) -> int | None:
        """The process whose tree is measured."""
        return None if self.child is None else self.child.pid

    def stop(self) -> None:
        """End it."""
        if self.child is not None:
            self.child.stop()


NOT_STARTED = Running("", Path())


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """How a command is started in a sandbox."""

    argv: list[str | Path]
    environment: dict[str, str] | None = None


class Proxy(ABC):
    """One column of the comparison."""

    name: str
    direct = False
    joins = False  # its sandboxes can share one proxy

    def __init__(self, place: Place, target: Target) -> None:
        self.place = place
        self.target = target
        self._starts = 0

    def missing(self) -> str | None:
        """Say what is not installed, if anything."""
        return None

    def version(self) -> str:
        """Return its version, if it is not this repository's."""
        return ""

    def start(self) -> Running:
        """Start one more of it, on a port and in a directory of its own; wait until it listens."""
        if (missing := self.missing()) is not None:
            raise StartError(missing)
        port = free_port()
        self._starts += 1
        directory = self.place.directory / f"{self.slug}-{self._starts}"
        directory.mkdir(mode=0o755)
        argv, environment, ca = self.command(port, directory)
        began = time.monotonic()
        child = self.place.child(directory.name, *argv, environment=environment)
        child.wait_for(port)
        return Running(f"{LOOPBACK}:{port}", ca, time.monotonic() - began, child)

    def sandboxed(self, command: Sequence[str], *, join: Running | None = None) -> Sandboxed | None:
        """Return what runs a command in its sandbox, if it has one.

        With `join`, by way of a proxy that runs already, where its sandbox can do that.
        """
        del command, join
        return None

    @property
    def slug(self) -> str:
        """The name as a file may have it."""
        return "".join(c if c.isalnum() else "-" for c in self.name)

    @abstractmethod
    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return the command, its environment and the CA that its clients trust."""


class Direct(Proxy):
    """No proxy: what the load generator and the origin can do by themselves."""

    name = "no proxy"
    direct = True

    def start(self) -> Running:
        """Start nothing."""
        return Running(f"{LOOPBACK}:0", self.place.origin_ca, direct=True)

    def sandboxed(self, command: Sequence[str], *, join: Running | None = None) -> Sandboxed | None:
        """Return the command as it is: no sandbox."""
        del join
        return Sandboxed(list(command))

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Be never asked."""
        raise NotImplementedError


class ClaudeProxy(Proxy):
    """claude-proxy of this working tree, or, to compare with it, of another or otherwise told."""

    name = "claude-proxy"
    joins = True

    def __init__(
        self, place: Place, target: Target, tree: Path = REPOSITORY, more: str = ""
    ) -> None:
        super().__init__(place, target)
        self._tree = tree
        self._more = shlex.split(more)
        if tree != REPOSITORY:
            self.name = f"claude-proxy in {tree.name}"
        if more:
            self.name = f"claude-proxy {more}"
        self._confdir = place.directory / f"{self.slug}-config"

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return `serve` with an allowlist: the shipped preset and the origin."""
        argv = [*self._program(), "serve", "--port", str(port), *self._policy(directory)]
        for target in (*self.target.tls_ports, self.target.plain):
            argv += ["--resolve", f"{HOST}:{target}:{LOOPBACK}"]
        return (
            [*argv, *self._more],
            environment_of(self._tree),
            self._confdir / "mitmproxy-ca-cert.pem",
        )

    def sandboxed(self, command: Sequence[str], *, join: Running | None = None) -> Sandboxed | None:
        """Return `run` with the same policy, and a home that holds nothing yet."""
        if self._more:
            return None  # they are options of `serve`
        directory = self.place.directory / f"{self.slug}-runs"
        home = directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        argv = [*self._program(), "run"]
        if join is None:
            argv += self._policy(directory)
        else:
            argv += ["--proxy", join.address, "--confdir", self._confdir]
            argv += ["--statedir", directory / "state"]
        return Sandboxed([*argv, "--", *command], environment_of(self._tree) | {"HOME": str(home)})

    def _program(self) -> list[str | Path]:
        """Return the program as its user starts it, with the libraries of its own tree."""
        script = self._tree / ".venv/bin/claude-proxy"
        return [script] if script.exists() else [sys.executable, "-m", "claude_proxy"]

    def _policy(self, directory: Path) -> list[str | Path]:
        allowlist = directory / "allowlist.yaml"
        allowlist.write_text(
            allowlist_for({HOST: self.target.tls_ports}, {HOST: self.target.plain})
        )
        argv: list[str | Path] = ["--allowlist", allowlist, "--confdir", self._confdir]
        return [*argv, "--statedir", directory / "state", "--upstream-ca", self.place.origin_ca]


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment in which Python finds the claude-proxy of a working tree."""
    # Safe path: else the directory we are in, a tree as well, would come first.
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def allowlist_for(secure: dict[str, list[int]], plain: dict[str, int]) -> str:
    """Return the shipped preset and these hosts, at loopback addresses too."""
    entries = ["  - preset: claude"]
    entries += [
        f'  - {{host: {host}, ports: {ports}, addresses: ["127.0.0.0/8"]}}'
        for host, ports in secure.items()
    ]
    entries += [
        f'  - {{host: {host}, scheme: http, ports: [{port}], addresses: ["127.0.0.0/8"]}}'
        for host, port in plain.items()
    ]
    return "\n".join(["allow:", *entries, ""])


class Mitmdump(Proxy):
    """Stock mitmdump, printing its flows into a file as it prints them to a terminal."""

    name = "mitmdump"

    def __init__(self, place: Place, target: Target) -> None:
        super().__init__(place, target)
        self._program = Path(sys.executable).with_name("mitmdump")
        self._confdir = place.directory / f"{self.slug}-config"

    def version(self) -> str:
        """Return that of the library."""
        return metadata.version("mitmproxy")

    def missing(self) -> str | None:
        """Need the program and a private /etc/hosts, as it has no option for addresses."""
        if not self._program.exists():
            return f"there is no {self._program}"
        ran = subprocess.run(
            [*with_hosts(self.place), "true"], capture_output=True, text=True, check=False
        )
        return f"no private mount namespace: {ran.stderr.strip()}" if ran.returncode else None

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return it with the addon, the origin's CA, and nothing else that is not its default."""
        del directory
        argv, ca = self.mitmdump(port)
        return [*argv, "--scripts", HERE / "allow_addon.py"], None, ca

    def mitmdump(self, port: int) -> tuple[list[str | Path], Path]:
        """Return the command without an addon, and its CA."""
        argv: list[str | Path] = [*with_hosts(self.place), self._program]
        argv += ["--listen-host", LOOPBACK, "--listen-port", str(port)]
        argv += ["--set", f"confdir={self._confdir}"]
        argv += ["--set", f"ssl_verify_upstream_trusted_ca={self.place.origin_ca}"]
        return argv, self._confdir / "mitmproxy-ca-cert.pem"


def with_hosts(place: Place) -> list[str | Path]:
    """Return what runs a program that sees our hosts file as /etc/hosts, and nobody else does.

    The mount is in a namespace of the program's own and gone with it.
    """
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    as_root = ["--user", "--map-root-user"] if os.geteuid() else []
    return ["unshare", "--mount", *as_root, "sh", "-c", script, place.hosts_file]


class Squid(Proxy):
    """squid's `ssl_bump`, with an RSA CA as its manual makes one."""

    name = "squid"

    def __init__(self, place: Place, target: Target) -> None:
        super().__init__(place, target)
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        self._program = shutil.which("squid", path=path)
        self._maker = next((made for made in SQUID_MAKERS if Path(made).exists()), None)
        self._ca = f"{self.slug}-ca"

    def version(self) -> str:
        """Return the third word of what it says."""
        if self._program is None:
            return ""
        ran = subprocess.run([self._program, "-v"], capture_output=True, text=True, check=False)
        return "".join(ran.stdout.split()[3:4])

    def missing(self) -> str | None:
        """Need a squid that was built with OpenSSL."""
        if self._program is None or self._maker is None:
            return "not installed; Debian: apt-get install squid-openssl"
        return None

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return it in the foreground, with a configuration and a certificate store."""
        if self._program is None or self._maker is None:
            raise StartError("squid is not installed")
        ca = self.place.directory / f"{self._ca}.pem"
        if not ca.exists():
            self.make_ca()
        store = directory / "certificates"
        make_store = [self._maker, "-c", "-s", str(store), "-M", "4MB"]
        subprocess.run(make_store, check=True, capture_output=True)
        config = directory / "squid.conf"
        config.write_text(
            _SQUID.format(
                address=f"{LOOPBACK}:{port}",
                run=directory,
                store=store,
                ca=ca,
                key=ca.with_suffix(".key"),
                maker=self._maker,
                origin_ca=self.place.origin_ca,
                hosts=self.place.hosts_file,
                host=HOST,
            )
        )
        if os.geteuid() == 0:
            give_to_squid(directory)
        return [self._program, "-N", "-f", config], None, ca

    def make_ca(self) -> None:
        """Make the CA that it signs with."""
        pki.make_rsa_ca(self.place.directory, self._ca)


class SquidP256(Squid):
    """The same with a P-256 CA, which makes its handshakes as cheap as claude-proxy's."""

    name = "squid-p256"

    def make_ca(self) -> None:
        """Make the CA that it signs with."""
        pki.make_p256_ca(self.place.directory, self._ca)


# No logs and no cache: the least that it can do. `hosts_file` is how it knows the names.
_SQUID = """\
http_port {address} ssl-bump tls-cert={ca} tls-key={key} generate-host-certificates=on \
dynamic_cert_mem_cache_size=4MB
sslcrtd_program {maker} -s {store} -M 4MB
tls_outgoing_options cafile={origin_ca}
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
acl allowed dstdomain {host}
http_access deny !allowed
http_access allow all
hosts_file {hosts}
cache deny all
cache_mem 0
access_log none
cache_store_log none
cache_log {run}/cache.log
pid_filename {run}/squid.pid
coredump_dir {run}
shutdown_lifetime 0 seconds
max_filedescriptors 16384
read_ahead_gap 64 KB
via off
forwarded_for delete
"""


def give_to_squid(directory: Path) -> None:
    """Hand a directory to the user that squid becomes when root starts it."""
    user = pwd.getpwnam(_SQUID_USER)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
