"""Attack run: tries to get out of a sandbox with the owner's settings, and reports what stopped it.

The sandbox, the relay and the proxy are those of `claude-proxy run`. The policy is the owner's,
with rules added for two local servers: denials prove something only if allowed requests work.
Hosts that the owner's rules allow are never contacted.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

import claude_proxy
from claude_proxy.audit.database import database_in
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.writer import entry_of, facts_of
from claude_proxy.config.settings import TcpListen
from claude_proxy.control import places
from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.doctor.attack.catalogue import AttackResult, Observation
from claude_proxy.doctor.attack.host_side import HIDDEN, REQUEST, HostSide
from claude_proxy.doctor.bounded_run import last_words_of
from claude_proxy.doctor.probe_server import Identity, ProbeServer, ReceivedRequest
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.sandbox.plan.environment import (
    ALLOWLIST,
    BUNDLE,
    CERTIFICATE,
    HTTP_PORT,
    SOCKS_PORT,
)
from claude_proxy.sandbox.plan.protected_paths import protected
from claude_proxy.sandbox.run_directory import SOCKET, start_time_of
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.sandbox.runner import Sandbox, live_sandbox
from claude_proxy.system.runs import CONTROL, base_of, bases_of
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.published_certificate import AUTHORITY_FILE
from claude_proxy.wire.authority import Authority

_ALLOWED: Final = "allowed.claude-proxy-doctor.test"  # RFC 6761
_DENIED: Final = "denied.claude-proxy-doctor.test"
_NAMES: Final = "names.claude-proxy-doctor.test"  # any name below it is allowed
_BOUND: Final = "bound.claude-proxy-doctor.test"  # where the proxy injects a test key
_MESSAGES: Final = "/v1/messages"
_ECHOES: Final = ("/v1/models", "/v1/models/head")
_NARROWED: Final = (_MESSAGES, f"{_MESSAGES}/count_tokens", "/v1/models", "/v1/models/**")
_HONEST_PATH: Final = "/honest/"
_LIMIT_S: Final = 600.0
# -B: no compiled files, if the user's project contains this program.
_PYTHON_OPTIONS: Final = ("-I", "-S", "-B", "-c")
START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from claude_proxy.doctor.attack.probes.__main__ import main; main()"
)
_DENY_KEYS: Final = ("host", "scheme", "ports", "methods", "paths")


@dataclass(frozen=True, slots=True)
class AttackTarget:
    """The sandbox to attack: a run as `claude-proxy run` would start it, and its owner."""

    run_spec: RunSpec
    home: Path
    environ: Mapping[str, str]
    token: str | None = None  # a secret in a variable of this process
    own_project: bool = True  # an empty temporary directory instead of the run's project


def attack(target: AttackTarget) -> list[AttackResult]:
    """Run every attack in a live sandbox, and return the result of each.

    Raises ClaudeProxyError if there can be no such sandbox.
    """
    policy = policy_files.load_for(target.run_spec.settings).policy
    _refuse_allowed(policy)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        project = folder / "project" if target.own_project else None
        host = HostSide(project) if project is not None else None
        if project is not None and host is not None:
            project.mkdir()
            host.create()
        canaries = stack.enter_context(Canaries(folder, project, target.token))
        server = stack.enter_context(_server(folder))
        key = ProbeKey(folder)
        allowlist = attack_allowlist(policy, server.port) + key.sections(server.port)
        run_spec = _attack_run_spec(target.run_spec, folder, project, allowlist, server.port)
        pipes = (subprocess.PIPE,) * 3
        with live_sandbox(run_spec, streams=pipes) as sandbox, host or nullcontext():
            setup = _AttackSetup(target, run_spec, canaries, server, sandbox, key, host)
            if sandbox.proxy_process is not None:
                sandbox.proxy_process.wait_until_ready()  # it has a control socket then
            guarded = identities(setup.guarded())
            reports = _reports_of(sandbox, setup.parameters(guarded))
            changed_files = changed(guarded)
        observations = (
            Observation("loopback", "listeners on loopback", canaries.seen("loopback")),
            Observation("unix", "Unix sockets", canaries.seen("unix")),
            Observation("origin", "the allowed sites", _unexpected(server.requests(), key)),
            Observation("policy", "policy, CA, audit log", changed_files),
            *_seen_by(host),
        )
    network = run_spec.sandbox.has_proxy
    return catalogue.judge(reports, observations, network=network, project=host is not None)


def _seen_by(host: HostSide | None) -> Iterator[Observation]:
    if host is not None:
        yield Observation("project", "protected files", host.changed())


@contextmanager
def _folder() -> Iterator[Path]:
    # Files that cannot be removed are harmless; an error would hide the results.
    made = tempfile.TemporaryDirectory(prefix="claude-proxy-doctor-", ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


def _refuse_allowed(policy: Policy) -> None:
    if policy.decide_connect(Authority.of(_DENIED, 443)).allowed:
        raise ClaudeProxyError(
            f"the allowlist allows {_DENIED}, which the attacks need to be denied",
            fix="remove the rule for it from the allowlist",
        )


@contextmanager
def _server(folder: Path) -> Iterator[ProbeServer]:
    """Run the server of the allowed hosts, with a certificate of a temporary root."""
    root = CertificateAuthority.load_or_create(folder / "server")
    pem = root.certificate.public_bytes(Encoding.PEM)
    (folder / "server.pem").write_bytes(pem)

    def identify(name: str) -> Identity:
        leaf = root.leaf(name)
        return leaf.certificate, leaf.key

    with ProbeServer(identify, answer=_echo) as server:
        yield server


@dataclass(frozen=True, slots=True)
class ProbeKey:
    """A test key for one of the servers, which must not become known inside."""

    folder: Path
    value: str = field(default_factory=lambda: f"doctor-key-{token_hex(16)}")
    placeholder: str = field(default_factory=lambda: f"doctor-placeholder-{token_hex(8)}")

    @property
    def file(self) -> Path:
        """The file from which the proxy reads it."""
        return self.folder / "key"

    def sections(self, port: int) -> str:
        """Write the key to its file, and return its sections of an allowlist."""
        self.file.touch(mode=0o600)
        self.file.write_text(self.value, encoding="ascii")
        credential = {
            "host": _BOUND,
            "ports": [port],
            "name": "doctor",
            "inject": "x-api-key",
            "from": {"file": str(self.file)},
            "placeholder": self.placeholder,
        }
        narrowed = {
            "host": _BOUND,
            "ports": [port],
            "paths": list(_NARROWED),
            "models": "all",
            "beta": "all",
            "server_tools": "none",
            "mcp_servers": "allowlisted",
            "sources": "allowlisted",
        }
        entries = (("credentials", credential), ("anthropic", narrowed))
        return "".join(f"{name}:\n{_item(json.dumps(entry))}\n" for name, entry in entries)

    def is_alone_in(self, request: ReceivedRequest) -> bool:
        """Tell whether a request has this login and no other."""
        logins = [(name, value) for name, value in request.fields if name in _LOGINS]
        return logins == [("x-api-key", self.value)]

    def shows_in(self, request: ReceivedRequest) -> bool:
        """Tell whether a request contains the key or its placeholder."""
        texts = [request.path, *(value for _, value in request.fields)]
        return any(mark in text for mark in (self.value, self.placeholder) for text in texts)


_LOGINS: Final = frozenset({"x-api-key", "x_api_key", "api-key", "authorization", "cookie"})


def _echo(request: ReceivedRequest) -> tuple[str, bytes]:
    """Return the received key in the response, on the paths that echo it."""
    key = dict(request.fields).get("x-api-key", "")
    in_head = f"X-Echo: {key}" if request.path == _ECHOES[1] else ""
    return in_head, f"claude-proxy doctor {key if request.path == _ECHOES[0] else ''}\n".encode()


def _attack_run_spec(
    given: RunSpec, folder: Path, project: Path | None, listed: str, port: int
) -> RunSpec:
    """Return the owner's run with the probes as its command, and rules for the servers.

    Its directories are temporary, so that the owner's audit log records only the owner's runs.
    """
    allowlist = folder / "allowlist.yaml"
    allowlist.write_text(listed, encoding="utf-8")
    allowlist.chmod(0o600)
    settings = replace(
        given.settings,
        allowlist=allowlist,
        awaited_allowlist=None,
        policy=None,
        narrowing=None,
        learn=None,
        confdir=folder / "confdir",
        cadir=None,
        statedir=folder / "statedir",
        resolve=tuple(
            (Authority.of(name, port), IPv4Address("127.0.0.1")) for name in (_ALLOWED, _BOUND)
        ),
        gateway=None,
        upstream_ca=folder / "server.pem",
        upstream_proxy=None,
        jsonl=None,
    )
    interpreter = Path(sys.executable).resolve()
    above, files = _script()
    spec = replace(
        given.sandbox,
        command=(str(interpreter), *_PYTHON_OPTIONS, START, str(above)),
        project=project or given.sandbox.project,
        hide=given.sandbox.hide if project is None else (HIDDEN,),
        project_id=given.sandbox.project_id if project is None else None,  # it is new
        shell=False,
        extra_ro=(Path(sys.base_prefix).resolve(), interpreter, *files),
    )
    return replace(given, sandbox=spec, settings=settings, join=None, verify=False)


def _script() -> tuple[Path, tuple[Path, ...]]:
    """Return the directory of packages, and the files there that the probes need."""
    package = Path(claude_proxy.__file__).resolve().parent
    doctor = package / "doctor"
    attack = doctor / "attack"
    files = (
        *(place / "__init__.py" for place in (package, doctor, attack)),
        attack / "probes",
    )
    return package.parent, files


def attack_allowlist(policy: Policy, port: int) -> str:
    """Return an allowlist with a policy's rules, and one for each of the two test hosts."""
    allowed = {"host": _ALLOWED, "ports": [port], "addresses": ["127.0.0.1/32"]}
    bound = {**allowed, "host": _BOUND}
    rules = policy.allow
    default = "deny"
    if policy.allows_by_default:
        # The rule for every host is the default, and beside it no limit would be kept.
        default = "allow"
        every = PatternKind.EVERY
        rules = tuple(r for r in rules if r.pattern.kind is not every and not r.limited)
    else:
        allowed |= {"methods": ["GET", "POST"], "paths": [f"{_HONEST_PATH}**"]}
        bound |= {"methods": ["GET", "POST"], "paths": ["/**"]}
    facts = [facts_of(rule) for rule in policy.deny]
    deny = [json.dumps({key: each[key] for key in _DENY_KEYS if each[key]}) for each in facts]
    names = {"host": f"*.{_NAMES}", "ports": [port]}  # looked up only, if at all
    allow = [*map(entry_of, rules), *map(json.dumps, (allowed, bound, names))]
    lines = [f"default: {default}", "allow:", *map(_item, allow)]
    return "\n".join([*lines, "deny:" if deny else "", *map(_item, deny), ""])


def _item(entry: str) -> str:
    return f"  - {entry}"


@dataclass(frozen=True, slots=True)
class _AttackSetup:
    """Everything that the attacks are run with."""

    target: AttackTarget
    run_spec: RunSpec  # the run that was started
    canaries: Canaries
    server: ProbeServer
    sandbox: Sandbox
    key: ProbeKey
    host: HostSide | None

    def parameters(self, guarded: Mapping[str, list[int]]) -> dict[str, Any]:
        """Return the parameters of the probes."""
        owner, ours = self.target.run_spec.settings, self.run_spec.settings
        hidden = [
            *self.canaries.files,
            self.key.file,
            self.sandbox.run_directory,
            ours.confdir,
            ours.statedir,
            *protected(self.target.home, self.target.environ, owner.confdir, owner.statedir),
        ]
        return {
            "attacks": catalogue.names(
                network=self.run_spec.sandbox.has_proxy, project=self.host is not None
            ),
            "replace": self._replaced(),
            "proxy": ["127.0.0.1", HTTP_PORT],
            "socks": ["127.0.0.1", SOCKS_PORT],
            "ca": str(CERTIFICATE),
            "allowed": [_ALLOWED, self.server.port],
            "denied_host": _DENIED,
            "names": _NAMES,
            "transparent": self.run_spec.sandbox.transparent,
            "bound": [_BOUND, self.server.port],
            "placeholder": self.key.placeholder,
            "key": self.key.value,
            "canaries": self.canaries.facts(),
            "sockets": [
                *usual_sockets(self.target.home, self.target.environ),
                str(self.sandbox.run_directory / SOCKET),
            ],
            "control": control_places(self.target.environ),
            "processes": list(self._processes()),
            "secret": self.canaries.token,
            "hidden": identities(hidden),
            "guarded": guarded,
            "shown": [str(path) for path in (CERTIFICATE, BUNDLE, ALLOWLIST)],
            "own_ports": sorted(
                {at.port for at in owner.listen if isinstance(at, TcpListen) and at.port}
            ),
        }

    def guarded(self) -> list[Path]:
        """Return the files that must not be writable inside."""
        found = [self.sandbox.run_directory, *_script()[1]]
        for settings in (self.target.run_spec.settings, self.run_spec.settings):
            found += [settings.allowlist, settings.confdir, settings.place_of_ca / AUTHORITY_FILE]
            found += [settings.statedir, database_in(settings.statedir)]
        return found

    def _replaced(self) -> dict[str, Any]:
        if self.host is None:
            return {}
        project = self.run_spec.sandbox.project
        return {
            "request": str(project / REQUEST),
            "entries": self.host.protected,
            "hidden": self.host.hidden,
        }

    def _processes(self) -> Iterator[tuple[str, int, str]]:
        pids = {"the launcher": os.getpid()}
        for helper in (self.sandbox.proxy_process, *self.sandbox.helpers):
            if helper is not None:
                pids[f"the {helper.what}"] = helper.pid
        if self.canaries.process is not None:
            pids["the canary"] = self.canaries.process.pid
        return ((what, pid, str(start_time_of(pid))) for what, pid in pids.items())


def identities(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Return the device and inode of each file that exists."""
    found = {}
    for path in paths:
        with suppress(OSError):
            seen = path.stat()
            found[str(path)] = [seen.st_dev, seen.st_ino]
    return found


def changed(guarded: Mapping[str, list[int]]) -> tuple[str, ...]:
    """Name the files that were replaced, and those that were created from inside."""
    now = identities(Path(name) for name in guarded)
    changed = [f"{name} was replaced" for name in guarded if now.get(name) != guarded[name]]
    for name in guarded:
        with suppress(OSError):
            changed += [str(path) for path in Path(name).glob(".claude-proxy-doctor-*")]
    return tuple(changed)


def usual_sockets(home: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the usual paths of sockets that lead out."""
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    bus = environ.get("DBUS_SESSION_BUS_ADDRESS", "").partition("unix:path=")[2]
    named = [
        environ.get("SSH_AUTH_SOCK", ""),
        bus.partition(",")[0],
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        "/run/containerd/containerd.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/snapd.socket",
        "/nix/var/nix/daemon-socket/socket",
        "/tmp/.X11-unix/X0",  # noqa: S108 - looked for, not made
        *(f"{runtime}/{name}" for name in ("bus", "docker.sock", "podman/podman.sock")),
        *(f"{runtime}/{name}" for name in ("wayland-0", "gnupg/S.gpg-agent", "keyring/ssh")),
        f"{home}/.gnupg/S.gpg-agent",
        str(base_of(dict(environ))),
    ]
    return list(dict.fromkeys(name for name in named if name))


def control_places(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return where the control sockets of this user's proxies are, and all that there are now."""
    bases = bases_of(environ)
    sockets = []
    for base in bases:
        with suppress(OSError, ClaudeProxyError):
            sockets += [
                str(found.path / places.socket_name(worker))
                for found in places.living(base)
                for worker in found.workers
            ]
    return {"directories": identities(base / CONTROL for base in bases), "sockets": sockets}


def _reports_of(sandbox: Sandbox, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the attacks to their end and return their reports."""
    try:
        done = sandbox.finish(json.dumps(parameters).encode(), _LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ClaudeProxyError(
            f"the attacks did not end in {_LIMIT_S:.0f} s",
            fix="try again; report it if it happens again",
        ) from None
    reports = []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        with suppress(ValueError):
            reports.append(json.loads(line))
    if not reports:
        said = last_words_of(done.stderr.decode("utf-8", "replace"))
        raise ClaudeProxyError(
            f"nothing was tried: Python ended with {done.returncode} in the sandbox ({said})",
            where=str(Path(sys.executable).resolve()),
            fix="check that it can be run: claude-proxy run -- python3 --version",
        )
    return [report for report in reports if isinstance(report, dict) and "attack" in report]


def _unexpected(requests: Iterable[ReceivedRequest], key: ProbeKey) -> tuple[str, ...]:
    """Return the requests that reached the servers and are not allowed.

    The proxy may connect ahead of a request: that is a TLS handshake with the right name.
    """
    return tuple(
        f"{request.method or 'no request'} {request.path or request.alert} for {request.name!r}"
        for request in requests
        if not _is_allowed(request, key)
    )


def _is_allowed(request: ReceivedRequest, key: ProbeKey) -> bool:
    if not request.method:
        return request.secured and request.name in {_ALLOWED, _BOUND}
    line = (request.method, request.path)
    if request.name == _BOUND:
        wanted = {("POST", _MESSAGES), *(("GET", path) for path in _ECHOES)}
        return line in wanted and key.is_alone_in(request)
    return line == ("GET", _HONEST_PATH) and not key.shows_in(request)
