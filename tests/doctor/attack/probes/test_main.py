"""Each attack sees a hole where there is one, and says what stops it where there is none."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.doctor.attack.probes.__main__ import ATTACKS
from claude_proxy.doctor.probe_server import Identity, ProbeServer
from claude_proxy.sandbox.run_directory import birth_of
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.doctor.cage import (
    ALLOWED,
    FakeProxy,
    carry_out,
    got_through,
    lonely,
    outcomes,
    reports,
    routed,
    tight,
    weak,
)

OF_THE_PROXY = [
    "denied-hosts",
    "documentation",
    "metadata",
    "host-listeners",
    "proxy-itself",
    "odd-ports",
    "socks",
    "broken-names",
    "forged-origin",
    "names-as-letters",
]
A_LISTENER = {"tcp": [["127.0.0.1", 9]]}
IN_A_TUNNEL = ["fronting-by-sni", "fronting-by-host", "other-requests", "smuggling", "plain-bytes"]
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    with Canaries(tmp_path, None) as found:
        yield found


def test_a_route_to_other_machines_is_seen() -> None:
    tcp = carry_out("direct-tcp", around=routed())
    udp = carry_out("direct-udp", around=routed())

    assert got_through(tcp)[:3] == ["192.0.2.1:443", "198.51.100.1:80", "203.0.113.1:53"]
    assert outcomes(udp) == {"through"}


def test_a_resolver_that_can_be_asked_is_seen() -> None:
    tries = carry_out("name-lookups", around=routed())

    assert "a query to 192.0.2.53" in got_through(tries)


def test_a_resolver_that_answers_is_seen() -> None:
    answering = (
        "import os, signal, socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 53))\n"
        "if os.fork():\n"
        "    os.execvp(sys.argv[1], sys.argv[1:])\n"
        "signal.alarm(60)\n"  # nobody may ask; it holds the pipes that the test reads
        "data, who = s.recvfrom(512); s.sendto(data, who)\n"
    )

    around = [*routed(), sys.executable, "-c", answering]
    tries = carry_out("name-lookups", around=around, change="dns.DIRECT_S = 3")

    assert "a query to 127.0.0.1" in got_through(tries)


def test_raw_sockets_are_seen() -> None:
    assert "raw IP" in got_through(carry_out("raw-ip", around=routed()))
    assert "AF_PACKET raw" in got_through(carry_out("packet-sockets", around=routed()))


def test_a_network_that_can_be_changed_is_seen() -> None:
    assert "an address" in got_through(carry_out("netlink", around=routed()))


def test_listeners_of_the_host_that_can_be_reached_are_seen(canaries: Canaries) -> None:
    # All of them answer, however late on a busy machine.
    patient = "network.DIRECT_S = 60"
    tries = carry_out("host-loopback", canaries=canaries.facts(), change=patient)

    assert outcomes(tries) == {"through"}
    assert any("UDP" in what for what in got_through(tries))
    assert canaries.seen("loopback")


def test_unix_sockets_that_can_be_reached_are_seen(canaries: Canaries, tmp_path: Path) -> None:
    around, facts = lonely(tmp_path), canaries.facts()

    abstract = carry_out("unix-abstract", around=around, canaries=facts)
    paths = carry_out("unix-paths", around=around, canaries=facts)

    assert {"canary 1", "canary 2"} <= set(got_through(abstract))
    assert got_through(paths) == [str(tmp_path / "canary.sock")]
    assert len(canaries.seen("unix")) > 1


def test_a_socket_that_only_a_walk_finds_is_seen(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "found.sock"))
        listener.listen()

        tries = carry_out("unix-paths", around=lonely(tmp_path), sockets=["/nonexistent"])

    assert got_through(tries) == [str(tmp_path / "found.sock")]


def test_what_a_filter_denies_is_seen_where_there_is_none() -> None:
    """Two or three of each, as kernels differ in what they know."""
    assert "io_uring_setup" in got_through(carry_out("io-uring", around=weak()))
    assert "the user's keyring" in got_through(carry_out("keyring", around=weak()))
    assert "user + network" in " ".join(got_through(carry_out("nested-namespaces", around=weak())))
    assert "stopped" in outcomes(carry_out("foreign-calls", around=weak()))
    carry_out("other-families", around=weak())
    carry_out("vsock", around=weak(), canaries={"vsock": 1})


def test_what_capabilities_allow_is_seen_where_they_are_left() -> None:
    apart = ("--unshare-pid", "--unshare-uts", "--unshare-ipc", "--cap-add", "ALL")
    around = weak("--unshare-user", "--uid", "0", "--gid", "0", *apart)

    assert "a tmpfs" in got_through(carry_out("mounts", around=around))
    assert "sethostname" in got_through(carry_out("kernel-interfaces", around=around))


def test_a_terminal_that_can_be_typed_into_is_seen(tmp_path: Path) -> None:
    """The weak place has a terminal of its own, that of `script`."""
    out = tmp_path / "reports"
    spec = tmp_path / "spec"
    spec.write_text(json.dumps({"attacks": ["terminal"]}))
    command = f"{sys.executable} -m claude_proxy.doctor.attack.probes <{spec} >{out}"
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

    subprocess.run(
        [sys.executable, "-c", script, "sh", "-c", command],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )

    tries = [tuple(row) for row in json.loads(out.read_text())["tries"]]
    assert {what for what, *_ in tries} == {"TIOCSTI", "TIOCSTI with a high bit", "TIOCLINUX"}
    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if not legacy.exists() or legacy.read_text().strip() == "1" or AS_ROOT:
        assert "TIOCSTI" in got_through(tries)


def test_without_a_terminal_and_a_filter_there_is_nothing_to_type_into() -> None:
    [(_, outcome, by, _)] = carry_out("terminal", around=["setsid", "--wait"])

    assert (outcome, by) == ("stopped", "terminal")


def test_processes_outside_that_can_be_reached_are_seen(canaries: Canaries) -> None:
    assert canaries.process is not None
    pid = canaries.process.pid
    facts = [["the canary", pid, str(birth_of(pid))]]
    told: dict[str, Any] = {"processes": facts, "secret": canaries.token}

    traced = carry_out("ptrace", around=["env"], **told)
    signalled = carry_out("kill", **told)
    seen = carry_out("host-processes", **told)

    if AS_ROOT:
        assert outcomes(traced) == {"through"}
    assert outcomes(signalled) == {"through"}
    assert outcomes(seen) == {"through"}
    assert canaries.process.poll() is None


def test_a_process_that_only_has_the_number_of_one_outside_is_none_of_it() -> None:
    tries = carry_out("kill", processes=[["the proxy", os.getpid(), "1"]])

    assert [by for _, _, by, _ in tries] == ["namespace"]


def test_variables_and_open_files_that_were_handed_on_are_seen() -> None:
    [report] = reports(["environment"], environ={"X": "the secret"}, secret="the secret")
    with socket.socket() as left:
        left.set_inheritable(True)
        handed_on = carry_out("descriptors", around=["env"], pass_fds=[left.fileno()])
        assert f"descriptor {left.fileno()}" in got_through(handed_on)

    assert ["the canary in /proc/self/environ", "through", "", "it is there"] in report["tries"]


def test_files_that_can_be_read_or_written_are_seen(tmp_path: Path) -> None:
    file, folder, pipe = tmp_path / "file", tmp_path / "folder", tmp_path / "pipe"
    file.write_text("x")
    folder.mkdir()
    os.mkfifo(pipe)
    found = {str(each): identity_of(each) for each in (file, folder, pipe)}
    other = {str(file): [1, 1]}

    read = carry_out("host-files", hidden=found)
    written = carry_out("write-policy", guarded=dict(list(found.items())[:2]), shown=[str(file)])

    assert set(found) <= set(got_through(read))
    assert got_through(written) == [str(file), str(folder), f"{file} (as shown here)"]
    assert list(folder.iterdir()) == []
    assert outcomes(carry_out("host-files", hidden=other)) == {"stopped"}
    assert outcomes(carry_out("write-policy", guarded=other)) == {"stopped"}


def identity_of(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino]


def test_settings_and_devices_that_can_be_written_are_seen(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("")
    around = weak("--bind", str(ours), "/etc/passwd", "--bind", str(ours), "/dev/kmsg")

    assert "/etc/passwd" in got_through(carry_out("system-settings", around=around))
    assert "/dev/kmsg" in got_through(carry_out("devices", around=around))


@pytest.mark.parametrize("name", OF_THE_PROXY)
def test_a_proxy_that_allows_everything_is_seen(name: str) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", socks=0) as proxy:
        tries = carry_out(
            name, proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER, own_ports=[9051]
        )

    assert outcomes(tries) == {"through"}


@pytest.mark.parametrize("name", OF_THE_PROXY)
def test_a_proxy_that_denies_is_what_stops(name: str) -> None:
    answer = b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n"

    with FakeProxy(answer, socks=2) as proxy:
        tries = carry_out(name, proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER)

    assert {(outcome, by) for _, outcome, by, _ in tries} == {("stopped", "policy")}


@pytest.mark.parametrize("name", OF_THE_PROXY)
def test_a_relay_without_a_proxy_proves_nothing(name: str) -> None:
    with FakeProxy(b"HTTP/1.1 502 Gone\r\n\r\n", socks=1) as proxy:
        [report] = reports([name], proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER)

    assert "the relay has no proxy behind it" in report["crashed"]


@pytest.mark.parametrize("name", [*OF_THE_PROXY, *IN_A_TUNNEL, "honest"])
def test_a_relay_that_is_gone_proves_nothing(name: str) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # and held, so that nobody else listens there
        nobody = list(gone.getsockname())

        [report] = reports([name], proxy=nobody, socks=nobody, canaries=A_LISTENER)

    assert "Refused" in report["crashed"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def origin(authority: CertificateAuthority) -> Iterator[ProbeServer]:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    with ProbeServer(identify) as found:
        yield found


@pytest.mark.parametrize("name", [name for name in IN_A_TUNNEL if name != "plain-bytes"])
def test_a_tunnel_that_lets_everything_pass_is_seen(
    name: str, origin: ProbeServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(authority.certificate.public_bytes(Encoding.PEM))

    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        told: dict[str, Any] = {"proxy": proxy.place, "socks": proxy.place, "ca": str(certificate)}
        honest = carry_out("honest", allowed=[ALLOWED, origin.port], **told)
        tries = carry_out(name, allowed=[ALLOWED, origin.port], **told)

    assert outcomes(honest) == {"through"}
    assert "through" in outcomes(tries)


def test_bytes_that_are_not_tls_and_are_answered_are_seen() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as far,
        FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, _Told(far)) as proxy,  # type: ignore[arg-type]
    ):
        threading.Thread(target=_echo, args=(far,), daemon=True).start()
        tries = carry_out("plain-bytes", proxy=proxy.place)
        far.shutdown(socket.SHUT_RDWR)

    assert outcomes(tries) == {"through"}


class _Told:
    """Stands for an origin, as far as a fake proxy asks: its port."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(connection.recv(4096))


def test_an_allowed_site_that_is_denied_is_not_taken_for_working() -> None:
    answer = b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n"
    with FakeProxy(answer, 2) as proxy:
        [report] = reports(["honest"], proxy=proxy.place)

    assert "the allowed tunnel is denied: 403 no-rule" in report["crashed"]


KERNELS = [
    "direct-tcp",
    "direct-udp",
    "raw-ip",
    "packet-sockets",
    "vsock",
    "other-families",
    "netlink",
    "name-lookups",
    "host-loopback",
    "unix-abstract",
    "nested-namespaces",
    "foreign-calls",
    "io-uring",
    "mounts",
    "kernel-interfaces",
    "keyring",
    "terminal",
    "ptrace",
    "kill",
    "host-processes",
    "environment",
]


def test_a_tight_sandbox_stops_them_all(canaries: Canaries) -> None:
    facts: dict[str, Any] = {"canaries": canaries.facts(), "secret": canaries.token}
    processes = [["the launcher", os.getpid(), str(birth_of(os.getpid()))]]

    with tight() as (around, descriptors):
        found = reports(KERNELS, around=around, pass_fds=descriptors, processes=processes, **facts)

    assert [report for report in found if report["crashed"]] == []
    through = [row for report in found for row in report["tries"] if row[1] != "stopped"]
    assert through == []
    assert canaries.seen("loopback") == canaries.seen("unix") == ()


def test_an_attack_that_breaks_off_is_not_taken_for_stopped() -> None:
    [unknown, killed] = [*reports(["unheard-of"]), *reports(["kill"], processes=[["x"]])]

    assert unknown["crashed"].startswith("KeyError")
    assert killed["crashed"].startswith("ValueError")


def test_every_attack_says_what_it_does() -> None:
    assert all(attack.__doc__ for attack in ATTACKS.values())


def test_it_starts_where_there_is_only_the_standard_library() -> None:
    """Nothing else of this project is imported, and nothing that is installed."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import claude_proxy.doctor.attack.probes.__main__; "
        "print([n for n, m in sys.modules.items() if 'site-packages' in str(getattr(m, "
        "'__file__', ''))], [n for n in sys.modules if n.startswith('claude_proxy.') and not "
        "n.startswith('claude_proxy.doctor')])"
    )
    root = str(Path(__file__).resolve().parents[4])

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, root],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["[]", "[]"]


SERVING = (
    "import os, signal, socket, sys\n"
    "s = socket.create_server(('127.0.0.1', 443))\n"
    "if os.fork():\n"
    "    os.execvp(sys.argv[1], sys.argv[1:])\n"
    "signal.alarm(60)\n"
    "s.accept()\n"
)


def test_a_machine_that_answers_or_refuses_has_been_reached() -> None:
    """Where other machines are: here, by loopback, one port is open and one is not."""
    around = [*routed(), sys.executable, "-c", SERVING]
    change = "network.DOCUMENTATION = ('127.0.0.1',) * 3"

    tries = carry_out("direct-tcp", around=around, change=change)

    assert [saw for _, _, _, saw in tries[:2]] == [
        "connected",
        "a packet went out: Connection refused",
    ]


def test_a_name_that_is_known_is_seen() -> None:
    assert "getaddrinfo localhost" in got_through(
        carry_out("name-lookups", denied_host="localhost")
    )


@pytest.mark.parametrize("name", ["denied-hosts", "socks", "broken-names"])
def test_a_proxy_that_hangs_up_is_taken_for_one_that_denies(name: str) -> None:
    with FakeProxy(b"", socks=None) as proxy:
        tries = carry_out(name, proxy=proxy.place, socks=proxy.place)

    assert {(out, by, saw) for _, out, by, saw in tries} == {
        ("stopped", "policy", "closed without a word")
    }


@pytest.mark.parametrize("name", ["documentation", "socks", "fronting-by-host", "plain-bytes"])
def test_a_proxy_that_does_not_deny_in_time_lets_through(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        place = list(silent.getsockname())
        if name in {"fronting-by-host", "plain-bytes"}:
            with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, _Told(silent)) as proxy:  # type: ignore[arg-type]
                told: dict[str, Any] = {
                    "proxy": proxy.place,
                    "ca": "/etc/ssl/certs/ca-certificates.crt",
                }
                tries = carry_out(name, change="proxy_client.PROXY_S = 0.2", **told)
        else:
            tries = carry_out(name, change="proxy_client.PROXY_S = 0.2", proxy=place, socks=place)

    assert {(out, saw) for _, out, _, saw in tries} == {("through", "not denied in time")}


def test_a_place_that_speaks_no_socks_is_an_error() -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0) as proxy:
        [report] = reports(
            ["socks"], socks=proxy.place, change="proxy_client._SOCKS_GREETING = b'x'"
        )

    assert "SOCKS is not spoken there" in report["crashed"]


@pytest.mark.parametrize("name", IN_A_TUNNEL)
def test_a_tunnel_that_is_shut_at_the_first_byte_is_stopped(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as far:
        threading.Thread(target=_shut, args=(far,), daemon=True).start()
        with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, _Told(far)) as proxy:  # type: ignore[arg-type]
            told: dict[str, Any] = {
                "proxy": proxy.place,
                "ca": "/etc/ssl/certs/ca-certificates.crt",
            }
            tries = carry_out(name, **told)
        far.shutdown(socket.SHUT_RDWR)

    assert outcomes(tries) == {"stopped"}


def _shut(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)


def test_on_other_machines_the_calls_of_x86_are_said_to_be_untried() -> None:
    tries = carry_out("foreign-calls", change="kernel.platform.machine = lambda: 'aarch64'")

    assert [saw for _, _, _, saw in tries] == ["aarch64 is not tried"]


def test_an_allowed_site_that_answers_with_an_error_does_not_work(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    with (
        ProbeServer(identify, status=lambda _: 404) as site,
        FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, site) as proxy,
    ):
        tries = carry_out(
            "honest", proxy=proxy.place, ca=str(certificate), allowed=[ALLOWED, site.port]
        )

    assert outcomes(tries) == {"stopped"}


def test_an_attack_that_does_not_end_is_ended_and_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = list(silent.getsockname())
        [report] = reports(["denied-hosts"], proxy=place, change="__main__._ATTACK_S = 0.3")

    assert report["crashed"] == "it did not come to its end"
