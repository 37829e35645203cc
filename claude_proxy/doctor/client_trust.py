"""Runs the clients that are installed against a site of our own, to see who trusts the CA.

Each client gets a name of its own that no name service knows: only the proxy can lead it to the
site, so one that goes past the proxy fails to look it up, which is another failure than one of
trust. The site shows what the proxy would: leaves that the CA has signed. It signs them itself and
the proxy hands TLS through, as a proxy on the owner's own directory would overwrite what another
one, which is running, keeps there.
"""

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.config.settings import InheritedListen, Settings, Verbosity
from claude_proxy.doctor.bounded_run import Completed, run_program, words_of
from claude_proxy.doctor.clients import ABSENT_CODE, CLIENTS, SHIMS, Client
from claude_proxy.doctor.probe_server import Identity, ProbeServer, ReceivedRequest
from claude_proxy.doctor.setup import read_pair
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.helper_processes import open_log, start_proxy_process
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.client_environment import environment
from claude_proxy.trust.roots import java_truststore_of
from claude_proxy.wire.authority import Authority

_DOMAIN: Final = "claude-proxy-doctor.test"  # RFC 6761: no name below it is ever registered
_LIMIT_S: Final = 60.0
_AT_ONCE: Final = 3
_DIRECT: Final = "localhost"  # which every client is told to reach without the proxy
_HANDED_ON: Final = ("PATH", "LANG", "LC_ALL", "TERM", "SYSTEMROOT", *SHIMS)
# RFC 9110: what a client of packages takes for "there is no such package".
_NOT_FOUND: Final = 404
_RECORDED_S: Final = 10.0  # written many times a second, but a machine may be busy
_PAUSE_S: Final = 0.02
_LONGEST: Final = 100
_SEE: Final = "see why `{}` fails"
_TELLING: Final = re.compile(
    r"certif|ssl|tls|x509|trust|verif|resol|proxy|not known", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ClientResult:
    """What one client did; None where it could not be seen."""

    client: str
    present: bool
    uses_proxy: bool | None = None
    trusts: bool | None = None
    said: str = ""  # its own words, where something is amiss
    fix: str | None = None

    @property
    def good(self) -> bool:
        """Whether there is nothing to fix."""
        return not self.present or (self.uses_proxy is True and self.trusts is True)


def exit_code_of(looks: Iterable[ClientResult]) -> int:
    """Return 1 if a client is to be fixed, else 2 if one could not be looked at, else 0."""
    bad = [look for look in looks if not look.good]
    if any(look.uses_proxy is False or look.trusts is False for look in bad):
        return 1
    return 2 if bad else 0


@dataclass(frozen=True, slots=True)
class TestBench:
    """Everything around the clients while they are run."""

    proxy: Authority
    origin: ProbeServer
    domain: str
    certificate: Path
    bundle: Path
    truststore: Path
    record: Path  # the proxy's decisions, a JSON object a line
    homes: Path
    environ: Mapping[str, str]  # of whoever asked
    address: str  # of the owner's own proxy
    alone: threading.Lock = field(default_factory=threading.Lock, kw_only=True)

    def connected(self, host: str) -> bool:
        """Tell whether the proxy was asked for `host`; its record may be a moment behind."""
        deadline = time.monotonic() + _RECORDED_S
        while not self._recorded(f"{host}:{self.origin.port}"):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _recorded(self, target: str) -> bool:
        lines = self.record.read_text("utf-8").splitlines() if self.record.exists() else []
        return any(_target_of(line) == target for line in lines)


def look_at_clients(
    confdir: Path,
    environ: Mapping[str, str],
    *,
    address: str,
    clients: Iterable[Client] = CLIENTS,
) -> list[ClientResult]:
    """Run each client once and tell what it did; ClaudeProxyError if there is no CA yet.

    `address` is where the owner's proxy is to listen ("127.0.0.1:9051").
    """
    authority = read_pair(confdir)
    wanted = tuple(clients)
    with (
        _stage(authority, environ, address, wanted) as stage,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        return list(pool.map(lambda client: _look_at(client, stage), wanted))


@contextmanager
def _stage(
    authority: CertificateAuthority,
    environ: Mapping[str, str],
    address: str,
    clients: tuple[Client, ...],
) -> Iterator[TestBench]:
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(
            prefix="claude-proxy-doctor-", ignore_cleanup_errors=True
        )
        folder = Path(stack.enter_context(made))
        bundle, truststore = folder / "bundle.pem", folder / "bundle.p12"
        certificate = folder / "ca.pem"
        bundle.write_bytes(authority.bundle_pem())
        truststore.write_bytes(java_truststore_of(authority.bundle_pem()))
        certificate.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        domain = _domain_of(authority)

        def identify(name: str) -> Identity:
            leaf = authority.leaf(name)
            return leaf.certificate, leaf.key

        origin = stack.enter_context(ProbeServer(identify, status=_status_of))
        record = folder / "decisions.jsonl"
        names = [_host_of(client, domain) for client in clients]
        port = stack.enter_context(_proxy(folder, record, origin.port, domain, names))
        homes = folder / "homes"
        homes.mkdir()
        yield TestBench(
            Authority.of("127.0.0.1", port),
            origin,
            domain,
            certificate,
            bundle,
            truststore,
            record,
            homes,
            environ,
            address,
        )


@contextmanager
def _proxy(folder: Path, record: Path, origin: int, domain: str, names: list[str]) -> Iterator[int]:
    """Run a proxy that allows the site alone, with directories of its own; yield its port."""
    allowlist = folder / "allowlist.yaml"
    rule = {
        "host": f"*.{domain}",
        "ports": [origin],
        "tls": "passthrough",
        "addresses": ["127.0.0.1/32"],
    }
    allowlist.write_text(json.dumps({"allow": [rule]}), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(
            allowlist=allowlist,
            confdir=folder / "confdir",
            statedir=folder / "statedir",
            listen=(InheritedListen(listener.fileno(), "doctor"),),
            resolve=tuple((Authority.of(name, origin), IPv4Address("127.0.0.1")) for name in names),
            verbosity=Verbosity.QUIET,
            jsonl=record,
        )
        with RunDirectory.make(("doctor", "--trust")) as run_directory:
            log = open_log(settings.statedir, run_directory.name)
            with (
                log.file,
                start_proxy_process(settings, (listener,), run_directory, log) as proxy_process,
            ):
                proxy_process.wait_until_ready()
                yield int(listener.getsockname()[1])


def _domain_of(authority: CertificateAuthority) -> str:
    """Return a domain that the CA is good for and no name service knows."""
    permitted = authority.describe().permitted
    if not permitted:
        return _DOMAIN
    for name in permitted:
        if any(letter.isalpha() for letter in name) and ":" not in name:
            return f"claude-proxy-doctor.{name.lstrip('.')}"
    raise ClaudeProxyError(
        "the CA is good for addresses alone, and clients are tried with names",
        where=str(authority.certificate_path),
        fix="claude-proxy ca rotate, with --constrain once the allowlist has a name",
    )


def _host_of(client: Client, domain: str) -> str:
    return f"{client.name.replace(' ', '-')}.{domain}"


def _status_of(path: str) -> int:
    """Answer a question for a package with "there is none", all others with 200."""
    return 200 if path == "/" else _NOT_FOUND


def _target_of(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return ""  # the last line may still be on its way
    return f"{fields.get('host', '')}:{fields.get('port', '')}"


def _look_at(client: Client, stage: TestBench) -> ClientResult:
    program = shutil.which(client.program, path=stage.environ.get("PATH"))
    if program is None:
        return ClientResult(client.name, present=False)
    host = _host_of(client, stage.domain)
    try:
        ran = _run(client, program, host, stage)
    except OSError as problem:
        said = (problem.strerror or "it cannot be started").lower()
        return ClientResult(client.name, present=True, said=said, fix=_SEE.format(client.program))
    if ran.code == ABSENT_CODE:
        return ClientResult(client.name, present=False)
    if stage.connected(host):
        trusts = _trusts(stage.origin.wait_for(host))
        return _told(client, stage, ran, uses_proxy=True, trusts=trusts)
    # It did not ask the proxy. Whether that is because it goes its own way is seen where it may.
    return _look_directly(client, program, ran, stage)


def _trusts(arrivals: list[ReceivedRequest]) -> bool | None:
    if any(arrival.trusting for arrival in arrivals):
        return True
    return False if arrivals else None


def _look_directly(client: Client, program: str, ran: Completed, stage: TestBench) -> ClientResult:
    """Have a client ask for this machine's own name, for which no client needs the proxy."""
    with stage.alone:
        before = len(stage.origin.arrivals())
        _run(client, program, _DIRECT, stage)
        arrivals = stage.origin.wait_for(_DIRECT, before)
    if not arrivals:
        # Neither way: it cannot ask at all.
        return _told(client, stage, ran, uses_proxy=None, trusts=None)
    # A CA that is bound to other hosts is not good for this one, and says nothing.
    trusts = _trusts(arrivals) if stage.domain == _DOMAIN else None
    return _told(client, stage, ran, uses_proxy=False, trusts=trusts)


def _run(client: Client, program: str, host: str, stage: TestBench) -> Completed:
    """Run a client once, in a home of its own that goes with the stage."""
    home = Path(tempfile.mkdtemp(dir=stage.homes))
    facts = {"url": f"https://{host}:{stage.origin.port}", "home": str(home)}
    for name, text in client.files.items():
        (home / name).write_text(text, encoding="utf-8")
    argv = [program, *(_filled(word, facts) for word in client.argv[1:])]
    variables = _variables(client, stage)
    variables |= {name: _filled(value, facts) for name, value in client.environ.items()}
    variables |= {"HOME": str(home), "TMPDIR": str(home)}
    return run_program(argv, environ=variables, limit_s=_LIMIT_S, cwd=home, given=client.given)


def _filled(word: str, facts: Mapping[str, str]) -> str:
    # Not `format`: there are braces of programs in the words.
    for name, value in facts.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _variables(client: Client, stage: TestBench) -> dict[str, str]:
    shims = _shims_of(stage.environ)
    handed_on = {name: stage.environ[name] for name in _HANDED_ON if name in stage.environ}
    truststore = stage.truststore if client.java else None
    ours = environment(stage.proxy, stage.certificate, stage.bundle, java_truststore=truststore)
    return shims | handed_on | ours


def _shims_of(environ: Mapping[str, str]) -> dict[str, str]:
    home = Path(environ.get("HOME") or "/nonexistent")
    found = {name: home / folder for name, folder in SHIMS.items()}
    return {name: str(path) for name, path in found.items() if os.access(path, os.X_OK)}


def _told(
    client: Client,
    stage: TestBench,
    ran: Completed,
    *,
    uses_proxy: bool | None,
    trusts: bool | None,
) -> ClientResult:
    look = ClientResult(client.name, True, uses_proxy, trusts)
    if look.good:
        return look
    fix = {True: client.trust_fix, False: client.proxy_fix, None: _SEE.format(client.program)}
    filled = _filled(fix[uses_proxy], {"proxy": f"http://{stage.address}"})
    return replace(look, said=_words_of(ran), fix=filled)


def _words_of(ran: Completed) -> str:
    """Return the line by which a client says most about its failure."""
    if ran.code is None:
        return f"it did not end in {_LIMIT_S:.0f} s"
    lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return words_of((telling or lines or [""])[-1], _LONGEST)
