"""A closed network has one way out, its proxy, whose rules are the work's own."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.closed_network import (
    ClosedNetwork,
    apt_lines,
    closed_network,
)
from claude_proxy.sandbox.container.plan.build_rules import Source, rules_text
from claude_proxy.wire.authority import Authority

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of root's own")

GET = (
    "import sys, urllib.request as r, urllib.error\n"
    "try: print(r.urlopen(sys.argv[1]).read().decode())\n"
    "except urllib.error.HTTPError as e: print(e.code)\n"
    "except OSError as e: print(e.reason.errno)\n"
)


class Archive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a package")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture
def archive() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Archive) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, archive: int) -> Settings:
    host = Authority.of("archive.test", archive)
    return Settings(
        tmp_path / "none.yaml",
        tmp_path / "conf",
        tmp_path / "state",
        resolve=((host, ip_address("127.0.0.1")),),
    )


@pytest.fixture
def network(settings: Settings, archive: int) -> Iterator[ClosedNetwork]:
    source = Source.parse(f"http://archive.test:{archive}/", "--mirror")
    rules = rules_text([], [source], addresses=["127.0.0.1/32"])
    with closed_network(settings, rules, what="build", say=lambda _: None) as opened:
        yield opened


def run(network: ClosedNetwork, *words: str, **variables: str) -> tuple[int, str]:
    said = bytearray()
    environ = {**os.environ, **network.environment(network.own_trust), **variables}
    code = network.run(words, output=said.extend, environ=environ)
    return code, said.decode()


def test_what_the_rules_name_is_read_and_nothing_else(network: ClosedNetwork, archive: int) -> None:
    named = run(network, "python3", "-c", GET, f"http://archive.test:{archive}/x")
    other = run(network, "python3", "-c", GET, "http://other.test/x")

    assert named == (0, "a package\n")
    assert other == (0, "403\n")


def test_past_the_proxy_there_is_no_network(network: ClosedNetwork, archive: int) -> None:
    gone = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), "")
    code, said = run(network, "python3", "-c", GET, f"http://127.0.0.1:{archive}/x", **gone)

    assert code == 0
    assert said == "111\n"  # ECONNREFUSED: it is the namespace's own loopback


def test_the_exit_code_and_both_streams_are_passed_on(network: ClosedNetwork) -> None:
    assert run(network, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\nerr\n")


def test_one_program_after_another_can_be_run(network: ClosedNetwork) -> None:
    assert [run(network, "sh", "-c", f"exit {code}")[0] for code in (1, 2)] == [1, 2]


def test_programs_of_any_user_may_read_what_they_trust(network: ClosedNetwork) -> None:
    for directory in (network.trust, network.own_trust):
        assert directory.stat().st_mode & 0o777 == 0o755
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}
    assert not network.directory.path.stat().st_mode & 0o077


def test_variables_name_files_where_the_program_sees_them(network: ClosedNetwork) -> None:
    inside, outside = network.environment(), network.environment(network.own_trust)

    assert inside["SSL_CERT_FILE"] == "/run/claude-proxy/bundle.pem"
    assert outside["SSL_CERT_FILE"] == str(network.own_trust / "bundle.pem")
    assert Path(outside["APT_CONFIG"]).read_text() == apt_lines(network.own_trust / "bundle.pem")
    assert str(network.own_trust) in Path(outside["WGETRC"]).read_text()


def test_a_program_that_cannot_be_started_is_an_error(network: ClosedNetwork) -> None:
    with pytest.raises(ClaudeProxyError, match="cannot be started"):
        network.run(["true"], output=print, environ={}, through=["/no/such/program"])


def test_a_program_that_never_enters_is_an_error(network: ClosedNetwork) -> None:
    with pytest.raises(ClaudeProxyError, match=r"namespace cannot be made: not so"):
        network.run(
            ["true"],
            output=print,
            environ={**os.environ},
            through=["sh", "-c", "echo not so; exit 1"],
        )


def test_rules_that_are_wrong_stop_the_start(settings: Settings) -> None:
    with (
        pytest.raises(ConfigError),
        closed_network(settings, "allow: [", what="build", say=lambda _: None),
    ):
        pytest.fail("it has started")


def test_a_named_policy_takes_the_place_of_rules(settings: Settings, archive: int) -> None:
    file = settings.confdir / "policies" / "own.yaml"
    file.parent.mkdir(parents=True, mode=0o700)
    settings.confdir.chmod(0o700)
    file.write_text("allow: [other.test]\n")
    file.chmod(0o600)
    own = replace(settings, policy="own")

    with closed_network(own, None, what="build", say=lambda _: None) as network:
        found = run(network, "python3", "-c", GET, f"http://archive.test:{archive}/x")

    assert found == (0, "403\n")
