"""What the first version of this program promised its users still holds, to the letter."""

from collections.abc import Iterator

import pytest

from tests.support.waiting import until

from .rig.internet import Internet
from .rig.proxy import Proxy

CURL = (
    "curl --proxy http://127.0.0.1:9051"
    " --cacert ~/.config/claude-proxy/mitmproxy-ca-cert.pem --head https://"
)


@pytest.fixture(scope="module")
def alone(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """`claude-proxy` without a word, at its own port, in a home that has never seen it."""
    # Our internet's root is told by the environment, so that the command line stays empty.
    variables = {"CLAUDE_PROXY_UPSTREAM_CA": str(internet.pki.root_file)}
    directory = tmp_path_factory.mktemp("alone")
    proxy = Proxy(internet, directory, [], port=9051, variables=variables)
    try:
        proxy.wait_until_listening()
        yield proxy
    finally:
        proxy.stop()
    proxy.check_calm()


def test_an_allowed_host_answers(alone: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = alone.place.run("sh", "-c", CURL + "api.anthropic.com")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\r\n\r\n")[1].split()[1] == "200", ran.stdout
    assert [(exchange.method, exchange.target) for exchange in seen.exchanges] == [("HEAD", "/")]


def test_another_host_is_denied_and_nothing_leaves(alone: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = alone.place.run("sh", "-c", CURL + "mozilla.org")

    assert ran.returncode != 0
    assert "403" in ran.stdout + ran.stderr
    assert seen.nothing()
    (row,) = alone.decisions("mozilla.org:443")
    assert (row.allowed, row.reason) == (False, "no-rule")


def test_the_banner_tells_where_everything_is(alone: Proxy) -> None:
    banner = alone.stdout()

    assert "127.0.0.1:9051" in banner
    assert str(alone.ca_file) in banner
    assert "allowlist.yaml" in banner


def test_each_request_is_a_line(alone: Proxy) -> None:
    alone.place.run("sh", "-c", CURL + "api.anthropic.com/v1/models/a-line")
    alone.place.run("sh", "-c", CURL + "a-denied-line.test")

    for line in (
        "Allowed: HEAD https://api.anthropic.com/v1/models/a-line",
        "Denied: CONNECT a-denied-line.test:443 (no-rule)",
    ):
        until(lambda line=line: line in alone.stdout().splitlines(), line)  # type: ignore[misc]


def test_the_key_is_nobody_elses(alone: Proxy) -> None:
    assert alone.confdir.stat().st_mode & 0o777 == 0o700
    assert (alone.confdir / "mitmproxy-ca.pem").stat().st_mode & 0o777 == 0o600
    assert {file.name for file in alone.confdir.glob("mitmproxy-ca*")} == {
        "mitmproxy-ca.pem",
        "mitmproxy-ca.p12",
        "mitmproxy-ca-cert.pem",
        "mitmproxy-ca-cert.cer",
        "mitmproxy-ca-cert.p12",
    }


def test_a_restart_takes_the_same_port_and_the_same_ca(alone: Proxy) -> None:
    certificate = alone.ca_file.read_bytes()

    alone.restart()
    ran = alone.place.run("sh", "-c", CURL + "api.anthropic.com")

    assert ran.returncode == 0, ran.stderr
    assert alone.ca_file.read_bytes() == certificate
