"""Name constraints: what a constrained CA covers, and that clients enforce it."""

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.trust import certificate_authority, constraints
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.trust.authorities import LONG, contexts, handshake

ALLOWED = ("api.example.com", "*.good.example", "10.0.0.0/8")


@pytest.mark.parametrize("host", ["api.example.com", "x.y.good.example", "10.1.2.3"])
def test_a_client_accepts_what_the_constraints_cover(confdir: Path, host: str) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority

    assert handshake(authority, host) == "TLSv1.3"


@pytest.mark.parametrize(
    "host", ["example.com", "evil.example", "apixexample.com", LONG, "192.0.2.7", "2001:db8::7"]
)
def test_a_client_refuses_what_the_constraints_do_not_cover(confdir: Path, host: str) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority

    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        handshake(authority, host)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["api.example.com"], "192.0.2.7"),
        (["api.example.com"], "2001:db8::7"),
        (["192.0.2.0/24"], "api.example.com"),
        (["192.0.2.0/24"], "2001:db8::7"),
        (["2001:db8::/32"], "192.0.2.7"),
    ],
)
def test_a_form_of_name_that_is_not_allowed_is_not_open(
    confdir: Path, allowed: list[str], host: str
) -> None:
    authority = certificate_authority.rotate(confdir, allowed).authority

    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        handshake(authority, host)


@contextmanager
def tls_server(authority: CertificateAuthority, host: str, directory: Path) -> Iterator[int]:
    """Answer one HTTPS request for `host` on a loopback port, and yield the port."""
    _, context = contexts(authority, host, directory)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        try:
            with listener.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as tls:
                tls.recv(65536)
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        except OSError:
            pass  # a client that refuses the certificate hangs up

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


NODE = """
const [port, host, ca] = process.argv.slice(1)
const tls = require('tls')
const verified = () => { console.log('ok'); socket.end() }
const socket = tls.connect({ host: '127.0.0.1', port, servername: host }, verified)
socket.on('error', error => { console.log(error.message); process.exit(1) })
"""


def ask_curl(program: Callable[[str], str], port: int, host: str, bundle: Path) -> int:
    line = [program("curl"), "-sS", "--noproxy", "*", "--cacert", str(bundle), "--connect-to"]
    line += [f"{host}:{port}:127.0.0.1:{port}", f"https://{host}:{port}/"]
    return subprocess.run(line, capture_output=True, check=False).returncode


def ask_node(program: Callable[[str], str], port: int, host: str, certificate: Path) -> int:
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate)}
    line = [program("node"), "-e", NODE, str(port), host]
    return subprocess.run(line, env=environment, capture_output=True, check=False).returncode


def ask_openssl(program: Callable[[str], str], leaf: Path, certificate: Path) -> int:
    line = [program("openssl"), "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]
    line += [str(certificate), str(leaf)]
    return subprocess.run(line, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("host", "codes"), [("api.example.com", (0, 0, 0)), ("evil.example", (60, 1, 2))]
)
def test_curl_node_and_openssl_keep_to_the_constraints(
    confdir: Path,
    tmp_path: Path,
    program: Callable[[str], str],
    host: str,
    codes: tuple[int, int, int],
) -> None:
    authority = certificate_authority.rotate(confdir, ALLOWED).authority
    certificate = authority.certificate_path

    with tls_server(authority, host, tmp_path) as port:
        curl = ask_curl(program, port, host, authority.bundle_path)
    with tls_server(authority, host, tmp_path) as port:
        node = ask_node(program, port, host, certificate)
    openssl = ask_openssl(program, tmp_path / "leaf.pem", certificate)

    assert (curl, node, openssl) == codes


# Name constraints


def form_of(
    patterns: list[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = constraints.constraints_for(patterns)
    return (
        constraints.spelled(found.permitted_subtrees),
        constraints.spelled(found.excluded_subtrees),
    )


NO_ADDRESS = ("0.0.0.0/0", "::/0")


@pytest.mark.parametrize(
    ("patterns", "permitted", "excluded"),
    [
        (["api.x.com"], ("api.x.com",), NO_ADDRESS),
        (["*.x.com"], ("x.com",), NO_ADDRESS),
        ([".x.com"], ("x.com",), NO_ADDRESS),
        ([".x.com", "a.b.x.com", "ax.com", "x.com"], ("ax.com", "x.com"), NO_ADDRESS),
        (["x.com", "192.0.2.1"], ("x.com", "192.0.2.1/32"), ("::/0",)),
        (["2001:db8::1"], ("2001:db8::1/128",), ("every name", "0.0.0.0/0")),
        (["10.0.0.0/9", "10.128.0.0/9"], ("10.0.0.0/8",), ("every name", "::/0")),
        (["x.com", "192.0.2.1", "2001:db8::/32"], ("x.com", "192.0.2.1/32", "2001:db8::/32"), ()),
    ],
)
def test_patterns_become_the_narrowest_constraints_that_hold_them(
    patterns: list[str], permitted: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    assert form_of(patterns) == (permitted, excluded)


LABELS = st.sampled_from(["a", "b", "example", "com", "org"])


NAMES = st.builds(
    lambda prefix, labels: prefix + ".".join(labels),
    st.sampled_from(["", ".", "*."]),
    st.lists(LABELS, min_size=1, max_size=4),
)


RANGES = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "2001:db8::/32", "::1"])


PATTERNS = st.lists(NAMES | RANGES, min_size=1, max_size=8)


@given(patterns=PATTERNS)
def test_what_a_ca_was_constrained_to_is_never_outside(patterns: list[str]) -> None:
    assert constraints.outside(constraints.constraints_for(patterns), patterns) == ()


@given(patterns=PATTERNS, other=st.sampled_from(["net", "x.net", "172.16.0.0/12", "fd00::/8"]))
def test_what_a_ca_was_not_constrained_to_is_outside(patterns: list[str], other: str) -> None:
    assert constraints.outside(constraints.constraints_for(patterns), [other]) == (other,)


@pytest.mark.parametrize("pattern", ["10.0.0.0/7", "0.0.0.0/0", "com", "*.com"])
def test_a_pattern_wider_than_the_constraints_is_outside(confdir: Path, pattern: str) -> None:
    authority = certificate_authority.rotate(confdir, ["10.0.0.0/8", "x.com"]).authority

    assert authority.outside(["x.com", pattern]) == (pattern,)


def test_an_exclusion_of_a_part_puts_the_whole_pattern_outside() -> None:
    found = x509.NameConstraints(None, [x509.DNSName("a.x.com")])

    assert constraints.outside(found, ["x.com", "b.x.com", "a.x.com", "10.0.0.1"]) == (
        "x.com",
        "a.x.com",
    )


def test_nothing_is_outside_a_ca_without_constraints(confdir: Path) -> None:
    authority = CertificateAuthority.load_or_create(confdir)

    assert authority.outside(["x.com", "10.0.0.1"]) == ()
