"""The service's files are what systemd and the kernel take them for, and the proxy runs by them."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, override

import pytest

from claude_proxy.server.service.plan import Firewall, Scope, ServicePlan
from claude_proxy.server.service.systemd import files_of, firewall_of
from tests.conftest import FindProgram
from tests.server.service import plans
from tests.support.waiting import PATIENCE_S, until

from .conftest import SHARED_ALLOWLIST
from .rig.client import CannotConnectError, Tunnel
from .rig.internet import Internet
from .rig.messages_api import SPOKEN
from .rig.namespaces import HOST_ADDRESS, Cabled, Namespace
from .rig.proxy import Proxy, Workplace

RIG = Path(__file__).parent / "rig"
RUNNABLE = (sys.executable, "-m", "claude_proxy")
# In a user namespace of one's own there is one user, whom the rules are about, or are not.
AS_ROOT = os.geteuid() == 0
UID = 64_001 if AS_ROOT else 0
OTHERS = (0, 64_002) if AS_ROOT else (0,)
NOBODYS = UID if AS_ROOT else 64_001

HIGHEST_SCORE = 1.5


def put(plan: ServicePlan, directory: Path, program: tuple[str, ...] = RUNNABLE) -> dict[str, Path]:
    """Write a plan's files into one directory; return each by its name."""
    plan = replace(plan, program=program)
    found = {}
    for unit in files_of(plan):
        found[unit.name] = directory / unit.name
        found[unit.name].write_text(unit.text)
    return found


# --- systemd's own opinion


@pytest.fixture
def analyze(
    program: FindProgram, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(plan: ServicePlan, *words: str | Path) -> subprocess.CompletedProcess[str]:
        user = ["--user"] if plan.scope is Scope.USER else []
        return subprocess.run(
            [program("systemd-analyze"), *user, *words],
            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_systemd_finds_nothing_wrong_with_a_unit(
    plan: ServicePlan, analyze: Callable[..., Any], tmp_path: Path, program: FindProgram
) -> None:
    for used in ("kill", "nft"):
        program(used)
    units = [
        path for name, path in put(plan, tmp_path).items() if name.endswith((".service", ".socket"))
    ]

    done = analyze(plan, "verify", "--man=no", *units)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("odd", ["a b", "%h", "100%", "$HOME", "ü;#{}*"])
def test_systemd_finds_the_program_whatever_its_path(
    odd: str, analyze: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / odd / "claude-proxy"
    program.parent.mkdir()
    unit = put(plans.SERVE, tmp_path, (str(program),))["claude-proxy.service"]

    missing = analyze(plans.SERVE, "verify", "--man=no", unit)
    program.touch(mode=0o755)
    found = analyze(plans.SERVE, "verify", "--man=no", unit)

    assert missing.returncode != 0
    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_would_make_the_user(tmp_path: Path, program: FindProgram) -> None:
    directory = tmp_path / "etc" / "sysusers.d"
    directory.mkdir(parents=True)
    file = put(plans.SERVE, directory)["claude-proxy.conf"]

    told = [program("systemd-sysusers"), "--dry-run", f"--root={tmp_path}", file.name]
    done = subprocess.run(told, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Creating user 'claude-proxy'" in done.stderr


@pytest.mark.parametrize("plan", plans.ALL.values(), ids=plans.ALL)
def test_a_unit_leaves_little_to_whoever_takes_the_proxy_over(
    plan: ServicePlan, analyze: Callable[..., Any], tmp_path: Path
) -> None:
    unit = put(plan, tmp_path)[plan.names.service]

    done = analyze(plan, "security", "--offline=true", "--no-pager", unit)

    [score] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(score) <= HIGHEST_SCORE, done.stdout


# --- the proxy below the unit's own limits


class Confined(Proxy):
    """A proxy below the system call filters and limits of a unit."""

    def __init__(self, unit: Path, *arguments: Any, **more: Any) -> None:
        self._unit = unit
        super().__init__(*arguments, **more)

    @override
    def _started(self) -> subprocess.Popen[bytes]:
        limits = [sys.executable, str(RIG / "confined.py"), str(self._unit), "--"]
        self._command = [*limits, *self._command]
        return super()._started()


def seccomp_of(proxy: Proxy) -> str:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    [mode] = re.findall(r"^Seccomp:\s+(\d)", status, re.MULTILINE)
    return str(mode)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_proxy_runs_below_the_units_own_filter(
    workers: str, internet: Internet, ports: Iterator[int], tmp_path: Path, program: FindProgram
) -> None:
    program("systemd-analyze")
    unit = put(plans.SERVE, tmp_path)["claude-proxy.service"]
    port, uds = next(ports), tmp_path / "p.sock"
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text(SHARED_ALLOWLIST)
    words = ["serve", "--port", str(port), "--listen", f"unix:{uds}", "--workers", workers]
    words += ["--allowlist", str(allowlist), "--upstream-ca", str(internet.pki.root_file)]
    (tmp_path / "place").mkdir()
    proxy = Confined(unit, internet, tmp_path / "place", words, port=port)
    try:
        proxy.wait_until_listening()
        assert seccomp_of(proxy) == "2"
        trusted = ["--cacert", str(proxy.ca_file), "-sS"]
        for way in (f"http://127.0.0.1:{port}", f"socks5h://localhost{uds}"):
            for version in ("--http1.1", "--http2"):
                got = proxy.place.run("curl", *trusted, version, "-x", way, "https://h2.test/x")
                assert got.returncode == 0, got.stderr
        with pytest.raises(CannotConnectError):
            proxy.tunnel("denied.test:443")
        allowlist.write_text(SHARED_ALLOWLIST.replace("  - allowed.test\n", ""))
        proxy.signal(signal.SIGHUP)
        until(lambda: "Allowlist applied" in proxy.stdout(), "the list to be read again")
    finally:
        proxy.stop()
    proxy.check_calm()


# --- what it goes by is apart from what it writes


def test_a_service_writes_nothing_where_its_policy_is(
    internet: Internet, ports: Iterator[int], tmp_path: Path
) -> None:
    configuration, state = tmp_path / "etc", tmp_path / "place" / "home" / ".config/claude-proxy"
    configuration.mkdir()
    (tmp_path / "place").mkdir()
    (configuration / "allowlist.yaml").write_text(SHARED_ALLOWLIST)
    configuration.chmod(0o555)
    port = next(ports)
    words = ["serve", f"--port={port}", f"--confdir={configuration}", f"--cadir={state}"]
    words += [f"--statedir={state}", f"--upstream-ca={internet.pki.root_file}"]
    proxy = Proxy(internet, tmp_path / "place", words, port=port)
    try:
        proxy.wait_until_listening()
        trusted = ["--cacert", str(proxy.ca_file), "-sS"]
        got = proxy.place.run("curl", *trusted, "-x", proxy.url, "https://h2.test/x")
        assert got.returncode == 0, got.stderr
    finally:
        proxy.stop()
    assert [path.name for path in configuration.iterdir()] == ["allowlist.yaml"]
    assert {"mitmproxy-ca.pem", "audit.sqlite3"} <= {path.name for path in state.iterdir()}
    assert any(path.name.startswith("upstream-roots-") for path in state.iterdir())


# --- the key


@dataclass(frozen=True)
class Printed:
    """A service as `claude-proxy service print` has it, to be run without a service manager."""

    command: list[str]
    streams: list[str]
    text: str


def printed(place: Workplace, *words: str | Path) -> Printed:
    ran = place.claude_proxy("service", "print", "--user", *words)
    assert ran.returncode == 0, ran.stderr
    [line] = re.findall(r"^ExecStart=:(.*)$", ran.stdout, re.MULTILINE)
    # These words need no more than what a shell's quotes are.
    command = shlex.split(line.replace("%%", "%"))
    at = next(at for at, word in enumerate(command) if word in {"serve", "gateway"})
    streams = re.findall(r"^ListenStream=(.*)$", ran.stdout, re.MULTILINE)
    return Printed([*RUNNABLE, *command[at:]], streams, ran.stdout)


KEY = "sk-ant-api03-CANARY-of-the-service"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The directory in which a service manager hands credentials over."""
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o500)
    directory.chmod(0o700)
    (directory / "anthropic").write_text(KEY + "\n")
    # Where the service is not root, systemd gives access by an ACL, whose mask is the group's mode.
    (directory / "anthropic").chmod(0o440)
    directory.chmod(0o500)
    return directory


def test_a_gateway_gets_its_key_from_systemd_and_shows_it_nowhere(
    internet: Internet, tmp_path: Path, credentials: Path, program: FindProgram
) -> None:
    program("systemd-analyze")
    place = Workplace(internet, tmp_path / "describing")
    uds = tmp_path / "g.sock"
    options = ["--uds", str(uds), "--provider", "anthropic"]
    options += ["--upstream-ca", str(internet.pki.root_file)]
    key_file = tmp_path / "llm.key"
    service = printed(
        place, "--kind", "gateway", "--key-file", key_file, "--", *options, "--verbose"
    )
    assert f"LoadCredential=anthropic:{key_file}" in service.text
    unit = put(plans.ALL["gateway for a user"], tmp_path)["claude-proxy-gateway.service"]
    (tmp_path / "place").mkdir()
    proxy = Confined(
        unit,
        internet,
        tmp_path / "place",
        service.command[3:],
        port=0,
        variables={"CREDENTIALS_DIRECTORY": str(credentials)},
    )
    try:
        until(uds.is_socket, "the gateway to listen")
        with internet.watch() as seen:
            body = '{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
            curl = [
                "curl",
                "-sS",
                "--unix-socket",
                str(uds),
                "-H",
                "content-type: application/json",
            ]
            got = proxy.place.run(*curl, "-d", body, "http://localhost/v1/messages")
        assert SPOKEN in got.stdout, got.stderr + proxy.stdout() + proxy.stderr()
        [exchange] = seen.exchanges
        assert exchange.header("x-api-key") == KEY
        shown = Path(f"/proc/{proxy.process.pid}/environ").read_bytes()
        shown += Path(f"/proc/{proxy.process.pid}/cmdline").read_bytes()
        assert KEY.encode() not in shown
        assert seccomp_of(proxy) == "2"
    finally:
        proxy.stop()
    said = proxy.stdout() + proxy.stderr() + service.text
    assert KEY not in said
    assert "Traceback" not in said


# --- sockets that systemd makes


@dataclass
class Activation:
    """Stands in for systemd's sockets: listens as a socket unit says, and starts its service."""

    program: str
    place: Workplace
    out: Path

    def start(self, service: Printed, **variables: str) -> subprocess.Popen[bytes]:
        """Listen; the service is started when a client comes."""
        [name] = re.findall(r"^FileDescriptorName=(.*)$", service.text, re.MULTILINE) or ["unknown"]
        command = [self.program, "--fdname=" + ":".join(name for _ in service.streams)]
        command += [f"--listen={stream}" for stream in service.streams]
        environment = self.place.environment(**variables)
        command += [f"--setenv={variable}" for variable in environment]
        with self.out.open("wb") as file:
            return subprocess.Popen(
                self.place.internet.host.argv([*command, *service.command], cwd=self.place.home),
                env=environment,
                stdout=file,
                stderr=file,
            )

    def wait_until_listening(self, sockets: int) -> None:
        """Wait until it says so of all: a socket is there before it is listened on."""
        until(lambda: self.out.read_text().count("Listening on ") == sockets, "systemd to listen")


@pytest.fixture
def activation(place: Workplace, tmp_path: Path, program: FindProgram) -> Activation:
    return Activation(program("systemd-socket-activate"), place, tmp_path / "out")


def test_the_socket_unit_starts_the_service_when_a_client_comes(
    place: Workplace, tmp_path: Path, ports: Iterator[int], activation: Activation
) -> None:
    uds, port = tmp_path / "p.sock", next(ports)
    listen = ["--listen", f"127.0.0.1:{port}", "--listen", f"unix:{uds}"]
    service = printed(place, "--socket-activated", "--", *listen)
    assert service.streams == [f"127.0.0.1:{port}", str(uds)]
    running = activation.start(service)
    try:
        activation.wait_until_listening(len(service.streams))
        for family, address in ((socket.AF_UNIX, str(uds)), (socket.AF_INET, ("127.0.0.1", port))):
            with place.internet.host.new_socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(PATIENCE_S)
                client.connect(address)
                client.sendall(b"CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test:443\r\n\r\n")
                answer = Tunnel(client, "denied.test:443").read("CONNECT")
            assert answer.reason == "no-rule"
    finally:
        running.terminate()
        running.wait(PATIENCE_S)
    assert "Traceback" not in activation.out.read_text()


def test_the_gateways_socket_unit_starts_the_gateway(
    place: Workplace, tmp_path: Path, activation: Activation
) -> None:
    uds = tmp_path / "g.sock"
    words = ["--uds", str(uds), "--provider", "anthropic"]
    service = printed(place, "--kind", "gateway", "--socket-activated", "--", *words)
    assert service.streams == [str(uds)]
    running = activation.start(service, PROXY_API_KEY=KEY)
    try:
        activation.wait_until_listening(len(service.streams))
        got = place.run("curl", "-sS", "--unix-socket", uds, "http://localhost/health")
    finally:
        running.terminate()
        running.wait(PATIENCE_S)
    assert '"ok"' in got.stdout, got.stderr + activation.out.read_text()
    assert KEY not in activation.out.read_text()


# --- the packet filter


PUBLIC = ("93.184.215.14", "2600:1f18::77")
NAME_SERVER = "9.9.9.9"


@dataclass(frozen=True)
class Walled:
    """A machine of two namespaces, on which the service's user has a number."""

    cabled: Cabled
    directory: Path

    @property
    def users(self) -> Path:
        """The list of users."""
        return self.directory / "passwd"

    def give_number(self, uid: int) -> None:
        """Let the service's user be this one."""
        line = f"claude-proxy:x:{uid}:{uid}::/var/lib/claude-proxy:/usr/sbin/nologin\n"
        self.users.write_text(Path("/etc/passwd").read_text() + line)

    def nft(self, *words: str | Path) -> str:
        """Run nft inside; it must succeed."""
        command = self.cabled.host.argv(["nft", *map(str, words)])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def load(self, plan: ServicePlan, wall: Firewall) -> None:
        """Check the rules of a plan, then load them."""
        rules = self.directory / "egress.nft"
        rules.write_text(firewall_of(plan, wall))
        self.nft("-c", "-f", rules)
        self.nft("-f", rules)

    def probe(self, uid: int, *what: str | int, patience_s: float = PATIENCE_S) -> str:
        """Return what a user's attempt comes to."""
        words = [sys.executable, "-I", str(RIG / "probe.py"), uid, *what, patience_s]
        command = self.cabled.host.argv([str(word) for word in words])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def dropped(self) -> int:
        """Return how many packets were dropped."""
        listed = json.loads(self.nft("-j", "list", "chain", "inet", "claude_proxy", "service"))
        [rule] = [
            entry["rule"]["expr"]
            for entry in listed["nftables"]
            if "rule" in entry and {"drop": None} in entry["rule"]["expr"]
        ]
        return int(next(part["counter"]["packets"] for part in rule if "counter" in part))


@pytest.fixture
def walled(tmp_path: Path, program: FindProgram) -> Iterator[Walled]:
    program("nft")
    one = Walled(Cabled(tmp_path), tmp_path)
    one.give_number(UID)
    one.cabled.host.run(["mount", "--bind", str(one.users), "/etc/passwd"])
    try:
        yield one
    finally:
        one.cabled.close()


@pytest.fixture
def answering(walled: Walled) -> Iterator[None]:
    """Let the internet answer on some ports, and take datagrams for name servers."""
    internet: Namespace = walled.cabled.internet
    listening = [internet.listen("::", port) for port in (443, 80, 53, 8080)]
    datagrams = internet.new_socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", 53))
    yield
    for sock in (*listening, datagrams):
        sock.close()


@pytest.mark.usefixtures("answering")
def test_the_services_user_reaches_this_machine_name_servers_and_its_ports_alone(
    walled: Walled,
) -> None:
    walled.load(plans.SERVE, Firewall())
    loopback = walled.cabled.host.listen("::", 7777)

    for address in PUBLIC:
        assert walled.probe(UID, "tcp", address, 443) == "ok"
        assert walled.probe(UID, "tcp", address, 53) == "ok"
        assert walled.probe(UID, "udp", address, 53) == "ok"
        before = walled.dropped()
        # A datagram that is dropped is refused at once, a connection waits in vain.
        assert walled.probe(UID, "udp", address, 443) == "PermissionError"
        assert walled.probe(UID, "tcp", address, 80, patience_s=0.5) == "TimeoutError"
        assert walled.dropped() >= before + 2
    for address in ("127.0.0.1", "::1"):
        assert walled.probe(UID, "tcp", address, 7777) == "ok"
    loopback.close()


@pytest.mark.usefixtures("answering")
def test_no_other_user_is_looked_at(walled: Walled) -> None:
    walled.give_number(NOBODYS)
    walled.load(plans.SERVE, Firewall())

    for address in PUBLIC:
        for uid in OTHERS:
            assert walled.probe(uid, "tcp", address, 80) == "ok"
            assert walled.probe(uid, "tcp", address, 8080) == "ok"
            assert walled.probe(uid, "udp", address, 443) in {"ok", "ConnectionRefusedError"}
    assert walled.dropped() == 0


@pytest.mark.usefixtures("answering")
def test_ports_and_name_servers_are_those_that_were_named(walled: Walled) -> None:
    walled.load(plans.SERVE, Firewall())
    named = Firewall(frozenset({443, 80}), (ip_address(NAME_SERVER), ip_address(PUBLIC[1])))

    walled.load(plans.SERVE, named)  # in the place of the former rules

    assert walled.probe(UID, "tcp", PUBLIC[0], 80) == "ok"
    assert walled.probe(UID, "udp", NAME_SERVER, 53) == "ok"
    assert walled.probe(UID, "udp", PUBLIC[1], 53) == "ok"
    assert walled.probe(UID, "udp", PUBLIC[0], 53) == "PermissionError"
    assert walled.probe(UID, "tcp", PUBLIC[0], 8080, patience_s=0.5) == "TimeoutError"


def test_clients_on_other_machines_are_answered_if_there_may_be_any(walled: Walled) -> None:
    walled.load(replace(plans.SERVE, remote=True), Firewall())
    words = [sys.executable, "-I", RIG / "probe.py", UID, "serve", HOST_ADDRESS, 9051, PATIENCE_S]
    serving = subprocess.Popen(
        walled.cabled.host.argv([str(word) for word in words]), stdout=subprocess.PIPE, text=True
    )
    assert serving.stdout is not None
    assert serving.stdout.readline() == "listens\n"

    with walled.cabled.internet.connect(HOST_ADDRESS, 9051) as client:
        heard = client.recv(100)

    assert heard == b"hello"
    assert serving.wait(PATIENCE_S) == 0
    serving.stdout.close()


def test_the_table_is_taken_away_whole(walled: Walled) -> None:
    walled.load(plans.SERVE, plans.WALL)
    assert "claude_proxy" in walled.nft("list", "tables")

    walled.nft("delete", "table", "inet", plans.SERVE.names.table)

    assert walled.nft("list", "ruleset") == ""
