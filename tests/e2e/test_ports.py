"""Ports of a run lead where they were asked to lead: out by the judge, in from here alone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.waiting import until

from .conftest import Launch
from .rig.git_host import git_host
from .rig.internet import Internet
from .rig.launch import Launches
from .rig.raw_server import FAREWELL, GREETING, RawServer

ALLOWLIST = """\
allow:
  - origin.test
  - {host: forwarded-db.test, scheme: tcp, ports: [5433]}
"""
# Says a word to a port of its own loopback, and prints all that comes back.
TALK = """\
import socket, sys
with socket.create_connection(("localhost", int(sys.argv[1])), 30) as sock:
    sock.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := sock.recv(4096):
        answer += piece
    print(answer.decode("latin-1"), end="")
"""
# Serves one client on port 3000.
SERVE_ONE = """\
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 3000), family=family)
print("ready", flush=True)
with server.accept()[0] as client:
    client.sendall(client.recv(9).upper())
"""
# As a tool that signs in by the browser: listens, names where it is to return to, and waits for it.
SIGN_IN = """\
import http.server, os, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"you may close this window")
        print("code:", self.path.partition("code=")[2], flush=True)
        threading.Thread(target=server.shutdown).start()
    def log_message(self, *_): pass
server = http.server.HTTPServer((sys.argv[1], 0), Handler)
print(f"https://login.test/authorize?redirect_uri=http://localhost:{server.server_port}/callback",
      flush=True)
server.serve_forever()
"""


class Echo:
    """A server of this machine's loopback that says what it was told, after its name."""

    def __init__(self, internet: Internet, address: str = "127.0.0.1") -> None:
        self.listener = internet.host.listen(address, 0)
        self.port: int = self.listener.getsockname()[1]
        self.clients = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.clients += 1
                with client:
                    said = b""
                    while piece := client.recv(4096):
                        said += piece
                    client.sendall(b"host service: " + said)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def service(internet: Internet) -> Iterator[Echo]:
    with closing(Echo(internet)) as echo:
        yield echo


@pytest.fixture(scope="module")
def database(internet: Internet) -> Iterator[RawServer]:
    internet.site("forwarded-db.test")
    with closing(RawServer(internet.namespace, "0.0.0.0", 5433)) as server:
        yield server


@pytest.fixture(params=["the tests' own user", "an ordinary user"])
def user(request: pytest.FixtureRequest, launch: Launch) -> Launches:
    return launch(ALLOWLIST, ordinary=request.param == "an ordinary user")


@pytest.fixture
def runs(launch: Launch) -> Launches:
    return launch(ALLOWLIST)


def notices(runs: Launches, kind: str) -> list[str]:
    return [str(row.text) for row in runs.audit("--kind", kind)]


def read_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


# --- out


@pytest.mark.usefixtures("database")
def test_a_client_that_knows_of_no_proxy_reaches_a_server_that_speaks_first(user: Launches) -> None:
    options = ["--forward", "5432=forwarded-db.test:5433", "--name", "forwarded"]

    ran = user.run("python3", "-c", TALK, "5432", "select", options=options)

    assert ran.stdout.encode("latin-1") == GREETING + b"SELECT" + FAREWELL, ran.stderr
    (row,) = user.audit("--run", "forwarded", "--allowed")
    assert (row.host, row.port, row.scheme) == ("forwarded-db.test", 5433, "tcp")
    assert notices(user, "forwarded-port") == [
        "run forwarded: 127.0.0.1:5432 inside leads to forwarded-db.test:5433"
    ]


def test_a_forward_that_no_rule_allows_is_said_before_and_after(runs: Launches) -> None:
    options = ["--forward", "5432=denied.test:5432"]

    ran = runs.run("python3", "-c", TALK, "5432", "select", options=options)

    assert "ConnectionResetError" in ran.stderr
    assert ran.stdout == ""
    first, *_, last = ran.stderr.splitlines()
    assert "--forward 5432=denied.test:5432 leads nowhere until a rule allows it" in first
    assert "claude-proxy allow tcp://denied.test:5432" in first
    assert "claude-proxy allow tcp://denied.test:5432" in last


@pytest.mark.parametrize("said", ["GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n", "\\x00raw"])
def test_a_service_of_this_machine_is_reached_in_whatever_protocol(
    user: Launches, service: Echo, said: str
) -> None:
    options = ["--forward", f"8099=host:{service.port}", "--name", "given"]

    ran = user.run("python3", "-c", TALK, "8099", said, options=options)

    assert ran.stdout.startswith("host service: "), ran.stderr
    (row,) = user.audit("--run", "given", "--allowed")
    assert (row.host, row.port) == ("localhost", service.port)
    assert row.rule_source == "--forward:1"


def test_a_service_that_listens_on_ipv6_alone_is_reached_too(
    runs: Launches, internet: Internet
) -> None:
    with closing(Echo(internet, "::1")) as service:
        options = ["--forward", f"8099=host:{service.port}"]

        ran = runs.run("python3", "-c", TALK, "8099", "x", options=options)

    assert ran.stdout == "host service: x", ran.stderr


def test_no_other_port_of_this_machine_is_let_in_and_a_deny_rule_wins(
    runs: Launches, internet: Internet, service: Echo
) -> None:
    with closing(Echo(internet)) as other:
        ask = "curl -sS -o /dev/null --noproxy '' -p -x 127.0.0.1:3128 http://localhost:{}/"
        options = ["--forward", f"8099=host:{service.port}"]
        ran = runs.run("sh", "-c", ask.format(other.port), options=options)
        assert ran.returncode != 0
        assert other.clients == 0
    runs.allowlist.write_text("deny: [127.0.0.0/8]\n")

    ran = runs.run("python3", "-c", TALK, "8099", "x", options=options)

    assert "the deny rule at" in ran.stderr
    assert (ran.stdout, service.clients) == ("", 0)


# --- in


@pytest.mark.parametrize("address", ["127.0.0.1", "::"])
def test_a_server_inside_is_reached_from_this_machine_alone(
    user: Launches, internet: Internet, address: str
) -> None:
    options = ["--publish", "0:3000", "--no-network", "--name", "published"]
    with user.start("python3", "-c", SERVE_ONE, address, options=options) as process:
        assert read_line(process) == "ready\n"
        port = _published_port(user, 3000)

        with internet.host.connect("127.0.0.1", port) as client:
            client.sendall(b"hello")
            assert client.recv(9) == b"HELLO"
        assert process.wait(60) == 0
    with pytest.raises(ConnectionRefusedError):
        internet.namespace.connect("10.99.0.2", port)
    assert notices(user, "published-port") == [
        f"run published: 127.0.0.1:{port} leads to port 3000 inside",
        f"run published: 127.0.0.1:{port} no longer leads to port 3000 inside, after 1 connection",
    ]


def _published_port(user: Launches, inside: int) -> int:
    (text,) = notices(user, "published-port")
    found = re.search(rf"127\.0\.0\.1:(\d+) leads to port {inside} inside", text)
    assert found is not None
    return int(found[1])


def test_a_port_that_is_taken_stops_the_run_before_command(runs: Launches, service: Echo) -> None:
    ran = runs.run("touch", "begun", options=["--publish", f"{service.port}:3000"])

    assert ran.returncode == 2
    assert f"cannot listen on 127.0.0.1:{service.port}" in ran.stderr
    assert not (runs.project / "begun").exists()


def test_the_browser_returns_to_a_login_inside(user: Launches, internet: Internet) -> None:
    options = ["--publish", "auto", "--name", "login"]
    with user.start("python3", "-c", SIGN_IN, "127.0.0.1", options=options) as process:
        found = re.search(r"localhost:(\d+)/callback", read_line(process))
        assert found is not None
        port = int(found[1])
        until(lambda: _is_open(internet, port), "the published port")

        with internet.host.connect("127.0.0.1", port) as browser:
            browser.sendall(b"GET /callback?code=abc HTTP/1.0\r\n\r\n")
            page = b""
            while piece := browser.recv(4096):
                page += piece
        assert read_line(process) == "code: abc\n"
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read().decode()

    assert b"you may close this window" in page
    assert f"127.0.0.1:{port} leads to port {port} inside (--publish auto)" in said
    assert not _is_open(internet, port)


def _is_open(internet: Internet, port: int) -> bool:
    with suppress(OSError), internet.host.connect("127.0.0.1", port):
        return True
    return False


def test_without_the_option_nothing_is_published(runs: Launches, internet: Internet) -> None:
    with runs.start("python3", "-c", SIGN_IN, "127.0.0.1") as process:
        found = re.search(r"localhost:(\d+)/callback", read_line(process))
        assert found is not None
        assert not _is_open(internet, int(found[1]))
        process.send_signal(signal.SIGTERM)
        process.wait(60)


# --- git over SSH


def test_a_remote_over_ssh_of_an_allowed_host_works_over_https_with_the_bound_credential(
    launch: Launch, internet: Internet, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    _git("init", "-q", "-b", "main", str(source))
    _git("-C", str(source), "commit", "-q", "--allow-empty", "-m", "one")
    root = tmp_path / "repositories"
    _git("clone", "-q", "--bare", str(source), str(root / "owner" / "project.git"))
    login = "x-access-token:the-real-password-0123456789"
    internet.site("forge.test", git_host(root, login=login))
    runs = launch(
        "allow: [forge.test]\n"
        "credentials:\n"
        "  - host: forge.test\n"
        "    inject: basic\n"
        "    user: x-access-token\n"
        "    from: {env: FORGE_TOKEN}\n"
    )

    ran = runs.run(
        *("git", "clone", "-q", "git@forge.test:owner/project.git"),
        variables={"FORGE_TOKEN": "the-real-password-0123456789"},
    )

    assert ran.returncode == 0, ran.stderr
    assert _git("-C", str(runs.project / "project"), "log", "--format=%s") == "one"
    assert {(row.host, row.port) for row in runs.audit("--allowed")} == {("forge.test", 443)}


def _git(*words: str) -> str:
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "safe.directory=*")
    program = shutil.which("git") or "git"
    done = subprocess.run(
        [program, *settings, *words], check=True, capture_output=True, text=True, env=environ
    )
    return done.stdout.strip()
