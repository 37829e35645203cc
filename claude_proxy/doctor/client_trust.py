"""Client trust: runs each installed client against a local server, to see whether it trusts the CA.

Each client gets its own host name, which no DNS server knows: only the proxy can connect it to the
server, so a client that bypasses the proxy fails at the lookup, not at the certificate. The server
uses leaf certificates of the owner's CA and the proxy passes TLS through: a proxy with the owner's
own directory would overwrite the files of one that is running.
"""

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from claude_proxy.doctor.transparent_trial import TransparentTrial
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.helper_processes import start_proxy_process
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.client_environment import environment
from claude_proxy.trust.roots import java_truststore_of
from claude_proxy.wire.authority import Authority

_DOMAIN: Final = "claude-proxy-doctor.test"  # RFC 6761: no name below it is ever registered
_LIMIT_S: Final = 60.0
_AT_ONCE: Final = 3
_DIRECT: Final = "localhost"  # which every client reaches without the proxy
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TERM", "SYSTEMROOT", *SHIMS)
# What a package client takes for "there is no such package".
_NOT_FOUND: Final = 404
_RECORDED_S: Final = 10.0  # the record is flushed often, but the machine may be busy
_PAUSE_S: Final = 0.02
_LONGEST: Final = 100
_FIND_OUT: Final = "find out why `{}` fails"
_TELLING: Final = re.compile(
    r"certif|ssl|tls|x509|trust|verif|resol|proxy|not known", re.IGNORECASE
)


# The client that is tried next, its number, and of how many.
type Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ClientResult:
    """The behaviour of one client; None means unknown."""

    client: str
    present: bool
    uses_proxy: bool | None = None
    trusts: bool | None = None
    said: str = ""  # its own error message
    fix: str | None = None
    transparent: bool | None = None  # whether `run --transparent on` leads it to the proxy

    @property
    def good(self) -> bool:
        """Whether nothing needs a fix."""
        return not self.present or (self.uses_proxy is True and self.trusts is True)


def exit_code_of(results: Iterable[ClientResult]) -> int:
    """Return 1 if a client needs a fix, else 2 if one could not be tested, else 0."""
    bad = [result for result in results if not result.good]
    if any(result.uses_proxy is False or result.trusts is False for result in bad):
        return 1
    return 2 if bad else 0


@dataclass(frozen=True, slots=True)
class ProbeSetup:
    """The server, the proxy and the files that the clients are run with."""

    proxy: Authority
    server: ProbeServer
    domain: str
    certificate: Path
    bundle: Path
    truststore: Path
    record: Path  # the proxy's decisions, one JSON object per line
    homes: Path
    environ: Mapping[str, str]  # of the user's shell
    address: str  # of the user's own proxy
    alone: threading.Lock = field(default_factory=threading.Lock, kw_only=True)

    def connected(self, host: str) -> bool:
        """Tell whether the proxy was asked for `host`; its record may be slightly late."""
        deadline = time.monotonic() + _RECORDED_S
        while not self._recorded(f"{host}:{self.server.port}"):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _recorded(self, target: str) -> bool:
        lines = self.record.read_text("utf-8").splitlines() if self.record.exists() else []
        return any(_target_of(line) == target for line in lines)


def try_clients(
    confdir: Path,
    environ: Mapping[str, str],
    *,
    address: str,
    clients: Iterable[Client] = CLIENTS,
    progress: Progress = lambda _name, _number, _of: None,
) -> list[ClientResult]:
    """Run each client once and return what it did; ClaudeProxyError if there is no CA yet.

    `address` is the address of the user's own proxy ("127.0.0.1:9051"). `progress` is called before
    each client, in the client's own thread.
    """
    authority = read_pair(confdir)
    wanted = tuple(clients)

    def attempt(number: int, client: Client) -> ClientResult:
        progress(client.name, number, len(wanted))
        return _try_client(client, setup)

    with (
        _setup(authority, environ, address, wanted) as setup,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        return list(pool.map(attempt, range(1, len(wanted) + 1), wanted))


@contextmanager
def _setup(
    authority: CertificateAuthority,
    environ: Mapping[str, str],
    address: str,
    clients: tuple[Client, ...],
) -> Iterator[ProbeSetup]:
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

        server = stack.enter_context(ProbeServer(identify, status=_status_of))
        record = folder / "decisions.jsonl"
        names = [_host_of(client, domain) for client in clients]
        port = stack.enter_context(_proxy(folder, record, server.port, domain, names))
        homes = folder / "homes"
        homes.mkdir()
        yield ProbeSetup(
            Authority.of("127.0.0.1", port),
            server,
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
def _proxy(folder: Path, record: Path, server: int, domain: str, names: list[str]) -> Iterator[int]:
    """Run a proxy that allows only the server, with its own directories; yield its port."""
    allowlist = folder / "allowlist.yaml"
    rule = {
        "host": f"*.{domain}",
        "ports": [server],
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
            resolve=tuple((Authority.of(name, server), IPv4Address("127.0.0.1")) for name in names),
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
    """Return a domain that the CA is valid for and that no DNS server knows."""
    permitted = authority.describe().permitted
    if not permitted:
        return _DOMAIN
    for name in permitted:
        if any(letter.isalpha() for letter in name) and ":" not in name:
            return f"claude-proxy-doctor.{name.lstrip('.')}"
    raise ClaudeProxyError(
        "the CA is valid for addresses only, and the clients are tested with names",
        where=str(authority.certificate_path),
        fix="claude-proxy ca rotate, with --constrain if the allowlist contains a name",
    )


def _host_of(client: Client, domain: str) -> str:
    return f"{client.name.replace(' ', '-')}.{domain}"


def _status_of(path: str) -> int:
    """Answer a request for a package with 404, all others with 200."""
    return 200 if path == "/" else _NOT_FOUND


def _target_of(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return ""  # the last line may be incomplete
    return f"{fields.get('host', '')}:{fields.get('port', '')}"


def _try_client(client: Client, setup: ProbeSetup) -> ClientResult:
    program = shutil.which(client.program, path=setup.environ.get("PATH"))
    if program is None:
        return ClientResult(client.name, present=False)
    host = _host_of(client, setup.domain)
    try:
        ran = _run(client, program, host, setup)
    except OSError as problem:
        said = (problem.strerror or "it cannot be started").lower()
        return ClientResult(
            client.name, present=True, said=said, fix=_FIND_OUT.format(client.program)
        )
    if ran.code == ABSENT_CODE:
        return ClientResult(client.name, present=False)
    if setup.connected(host):
        trusts = _trusts(setup.server.wait_for(host))
        return _result(client, setup, ran, uses_proxy=True, trusts=trusts)
    # It did not use the proxy; find out whether it connects directly where it can.
    return _try_directly(client, program, ran, setup)


def _trusts(requests: list[ReceivedRequest]) -> bool | None:
    if any(request.trusting for request in requests):
        return True
    return False if requests else None


def _try_directly(client: Client, program: str, ran: Completed, setup: ProbeSetup) -> ClientResult:
    """Have a client ask for localhost, which it reaches without the proxy."""
    with setup.alone:
        before = len(setup.server.requests())
        _run(client, program, _DIRECT, setup)
        requests = setup.server.wait_for(_DIRECT, before)
    if not requests:
        # Neither way works: it cannot connect at all.
        return _result(client, setup, ran, uses_proxy=None, trusts=None)
    # A CA that is limited to other hosts is not valid for localhost, which proves nothing.
    trusts = _trusts(requests) if setup.domain == _DOMAIN else None
    result = _result(client, setup, ran, uses_proxy=False, trusts=trusts)
    return replace(result, transparent=_is_led(client, program, setup))


def _is_led(client: Client, program: str, setup: ProbeSetup) -> bool | None:
    """Tell whether a run with `--transparent on` leads a client to the proxy; None: not known."""
    host = f"led-{_host_of(client, setup.domain)}"
    project = Path(tempfile.mkdtemp(dir=setup.homes))
    facts = {"url": f"https://{host}:{setup.server.port}", "home": str(project)}
    for name, text in client.files.items():
        (project / name).write_text(text, encoding="utf-8")
    words = [program, *(_filled(word, facts) for word in client.argv[1:])]
    environ = {name: _filled(value, facts) for name, value in client.environ.items()}
    path = setup.environ.get("PATH") or os.defpath
    trial = TransparentTrial(setup.homes.parent, setup.server.port, path, _LIMIT_S)
    return trial.is_led(host, words, project, environ, lambda: bool(setup.server.wait_for(host)))


def _run(client: Client, program: str, host: str, setup: ProbeSetup) -> Completed:
    """Run a client once, in its own temporary home."""
    home = Path(tempfile.mkdtemp(dir=setup.homes))
    facts = {"url": f"https://{host}:{setup.server.port}", "home": str(home)}
    owned = Path(setup.environ.get("HOME") or "/nonexistent")
    for name, text in client.files.items():
        (home / name).write_text(text, encoding="utf-8")
    argv = [program, *(_filled(word, facts) for word in client.argv[1:])]
    variables = _variables(client, setup)
    variables |= {name: _filled(value, facts) for name, value in client.environ.items()}
    variables |= {
        name: str(owned / path) for name, path in client.own.items() if (owned / path).is_file()
    }
    variables |= {"HOME": str(home), "TMPDIR": str(home)}
    return run_program(argv, environ=variables, limit_s=_LIMIT_S, cwd=home, stdin=client.stdin)


def _filled(word: str, facts: Mapping[str, str]) -> str:
    # Not `format`: the words contain braces of programs.
    for name, value in facts.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _variables(client: Client, setup: ProbeSetup) -> dict[str, str]:
    shims = _shims_of(setup.environ)
    passed_on = {name: setup.environ[name] for name in _PASSED_ON if name in setup.environ}
    truststore = setup.truststore if client.java else None
    ours = environment(setup.proxy, setup.certificate, setup.bundle, java_truststore=truststore)
    return shims | passed_on | ours


def _shims_of(environ: Mapping[str, str]) -> dict[str, str]:
    home = Path(environ.get("HOME") or "/nonexistent")
    found = {name: home / folder for name, folder in SHIMS.items()}
    return {name: str(path) for name, path in found.items() if os.access(path, os.X_OK)}


def _result(
    client: Client,
    setup: ProbeSetup,
    ran: Completed,
    *,
    uses_proxy: bool | None,
    trusts: bool | None,
) -> ClientResult:
    result = ClientResult(client.name, True, uses_proxy, trusts)
    if result.good:
        return result
    fix = {True: client.trust_fix, False: client.proxy_fix, None: _FIND_OUT.format(client.program)}
    filled = _filled(fix[uses_proxy], {"proxy": f"http://{setup.address}"})
    return replace(result, said=_words_of(ran), fix=filled)


def _words_of(ran: Completed) -> str:
    """Return the line that says most about the failure of a client."""
    if ran.code is None:
        return f"it did not end in {_LIMIT_S:.0f} s"
    lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return words_of((telling or lines or [""])[-1], _LONGEST)
