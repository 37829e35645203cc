"""Programs that ignore the proxy reach what is allowed by its name, and nothing else."""

import re
import shutil

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import Launch
from .rig.internet import Internet
from .rig.launch import Launches

ALLOWLIST = """\
allow:
  - origin.test
  - "*.wild.test"
  - {host: plain.test, scheme: http, ports: [80]}
  - {host: ports.test, ports: [8443]}
  - {host: self-signed.test}
"""
ON = ("--transparent", "on")
FAKE = r"198\.1[89]\.\d+\.\d+"

# Each says nothing to its resolver or TLS library about a proxy.
TLS_BY_SOCKETS = """
import socket, ssl, sys
name, shown, port = sys.argv[1:]
host = name if port == "443" else f"{name}:{port}"
with socket.create_connection((name, int(port)), 20) as plain:
    print(plain.getpeername()[0])
    with ssl.create_default_context().wrap_socket(plain, server_hostname=shown) as tls:
        request = f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n"
        tls.sendall(request.encode())
        print(tls.recv(100).split()[1].decode())
"""
OLD_NODE = (
    "require('https').get('https://origin.test/', (got) => {"
    "console.log(got.statusCode); process.exit(0); })"
)


@pytest.fixture(params=["the tests' own user", "an ordinary user"])
def anybody(request: pytest.FixtureRequest, launch: Launch) -> Launches:
    """Each kind of user in turn."""
    return launch(ALLOWLIST, ordinary=request.param == "an ordinary user")


@pytest.fixture
def runs(launch: Launch) -> Launches:
    """The tests' own user."""
    return launch(ALLOWLIST)


def test_a_client_that_ignores_the_proxy_reaches_an_allowed_host(
    anybody: Launches, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = anybody.run(
            *(
                "curl",
                "-sS",
                "--noproxy",
                "*",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{remote_ip}",
            ),
            "https://origin.test/",
            options=ON,
        )

    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(rf"200 {FAKE}", ran.stdout)
    assert [exchange.target for exchange in seen.exchanges] == ["/"]
    assert [row.allowed for row in anybody.audit("--host", "origin.test")] == [True]


def test_plain_http_and_other_ports_work_as_well(runs: Launches) -> None:
    script = (
        "curl -sS --noproxy '*' -o /dev/null -w '%{http_code} ' http://plain.test/; "
        f"python3 -c '{TLS_BY_SOCKETS}' ports.test ports.test 8443"
    )
    ran = runs.run("sh", "-c", script, options=ON)

    assert re.fullmatch(rf"200 {FAKE}\s200\s", ran.stdout), ran.stderr


def test_a_denied_name_does_not_exist_and_nobody_is_asked(
    runs: Launches, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = runs.run("curl", "-sS", "--noproxy", "*", "https://denied.test/", options=ON)

    assert ran.returncode == 6, ran.stderr  # it could not resolve the host
    assert "denied.test" in ran.stderr
    assert seen.nothing()
    rows = runs.audit("--host", "denied.test")  # a resolver that is in doubt asks again
    assert {(row.method, row.reason) for row in rows} == {("LOOKUP", "no-rule")}


def test_tls_must_name_what_was_looked_up(runs: Launches, internet: Internet) -> None:
    script = f"python3 -c '{TLS_BY_SOCKETS}' origin.test one.wild.test 443"
    with internet.watch() as seen:
        ran = runs.run("sh", "-c", script, options=ON)

    assert ran.returncode != 0
    assert seen.exchanges == []
    assert "sni-mismatch" in [row.reason for row in runs.audit("--denied")]


def test_a_lookup_alone_leaves_nothing_on_the_cable(runs: Launches, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = runs.run("getent", "ahosts", "some-data.wild.test", options=ON)

    assert re.match(FAKE, ran.stdout), ran.stderr
    assert seen.nothing()


def test_an_address_that_was_given_to_no_name_is_refused(
    runs: Launches, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = runs.run(
            "sh",
            "-c",
            "curl -sS -m 5 --noproxy '*' http://198.18.77.7/; curl -sS -m 5 --noproxy '*' "
            "https://198.19.255.1/; curl -sS -m 5 --noproxy '*' http://93.190.1.1/",
            options=ON,
        )

    assert ran.returncode == 7, ran.stderr
    assert ran.stdout == ""
    assert seen.nothing()


def test_the_ports_of_the_sandbox_are_all_its_own(runs: Launches) -> None:
    script = (
        "import socket\n"
        "socket.getaddrinfo('ports.test', 8443)\n"
        "for host in ('127.0.0.1', '0.0.0.0'):\n"
        "    with socket.create_server((host, 8443)): print(host)\n"
        "with socket.create_server(('0.0.0.0', 8443)):\n"
        "    with socket.socket() as own:\n"
        "        own.connect(('127.0.0.1', 8443))\n"
        "        print('own')\n"
    )
    ran = runs.run("python3", "-c", script, options=ON)

    assert ran.stdout.split() == ["127.0.0.1", "0.0.0.0", "own"], ran.stderr


def test_programs_with_resolvers_of_their_own_find_the_addresses(
    runs: Launches, program: FindProgram
) -> None:
    busybox = program("busybox")
    node = shutil.which("node") or program("node")
    script = (
        f"{busybox} wget -q -O /dev/null -Y off http://plain.test/ && echo busybox; "
        f"{busybox} nslookup one.wild.test 127.0.0.1 | grep -c '198.1[89]' ; "
        f'env -u NODE_USE_ENV_PROXY {node} -e "{OLD_NODE}"'
    )
    ran = runs.run("sh", "-c", script, options=ON)

    assert ran.stdout.split() == ["busybox", "1", "200"], ran.stderr


def test_a_policy_that_is_reloaded_counts_for_names(runs: Launches) -> None:
    script = (
        "getent ahosts later.wild.test >/dev/null && echo allowed; echo go >&3; "
        "until ! getent ahosts origin.test >/dev/null; do sleep 0.2; done; "
        "getent ahosts denied.test >/dev/null && echo denied is allowed now"
    )
    fifo = runs.project / "go"
    fifo.touch()
    runs.give(fifo)
    process = runs.popen(runs.words(["sh", "-c", f"exec 3>{fifo}; {script}"], *ON))
    until(lambda: fifo.read_text() == "go\n", "the first names")
    runs.allowlist.write_text("allow: [denied.test]\n", encoding="utf-8")
    out, err = process.communicate(timeout=120)

    assert out.decode().splitlines() == ["allowed", "denied is allowed now"], err


def test_a_proxy_that_is_not_ours_cannot_be_asked(runs: Launches) -> None:
    ran = runs.run("true", options=[*ON, "--no-network"])

    assert ran.returncode == 2
    assert "there is no proxy" in ran.stderr


def test_without_the_option_the_end_names_it(runs: Launches) -> None:
    ran = runs.run("curl", "-sS", "--noproxy", "*", "https://origin.test/")

    assert ran.returncode == 6
    assert "--transparent on" in ran.stderr


def test_the_plan_says_nothing_new_without_it(runs: Launches) -> None:
    ran = runs.run("cat", "/proc/net/route", "/etc/resolv.conf")

    assert len(ran.stdout.splitlines()) == 1 + 3


def test_plain_http_that_is_denied_is_answered_with_the_reason(runs: Launches) -> None:
    ran = runs.run("curl", "-sS", "--noproxy", "*", "http://origin.test/", options=ON)

    assert "reason: port-not-allowed" in ran.stdout, ran.stderr
    assert [row.reason for row in runs.audit("--denied")] == ["port-not-allowed"]
