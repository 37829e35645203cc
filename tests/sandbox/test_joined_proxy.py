"""A join after which every request would be refused is refused, with what would help."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.proxy.layers.client_auth import proof_of
from claude_proxy.sandbox import joined_proxy
from claude_proxy.sandbox.joined_proxy import examine
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.wire.proxy_protocol import SIGNATURE, read

LOGIN = ClientCredentials("ann", "canary-password")
READY, DEMANDS = b"\x05\x00", b"\x05\xff"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"
DEMANDS_HTTP = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"


@contextmanager
def a_proxy(*answers: bytes) -> Iterator[tuple[RelayTarget, list[bytes]]]:
    """A proxy that gives one answer to each connection, and keeps what it heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                client, _ = listener.accept()
                with client:
                    heard.append(client.recv(4096))
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield RelayTarget(f"127.0.0.1:{port}", socket.AF_INET, ("127.0.0.1", port)), heard


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_proxy, "_PATIENCE_S", 60.0)


def refused(target: RelayTarget, login: ClientCredentials | None = None, **how: bool) -> str:
    with pytest.raises(ClaudeProxyError) as error:
        examine(target, login, announces=how.get("announces", True))
    text = "\n".join(error.value.lines())
    assert "canary" not in text
    return text


def test_a_proxy_that_answers_the_announcement_is_ours() -> None:
    with a_proxy(READY) as (target, heard):
        found = examine(target, None, announces=True)

    assert (found.foreign, found.password_proof) == (False, "")
    assert heard[0].startswith(SIGNATURE)
    assert heard[0].endswith(b"\x05\x01\x00")


def test_the_password_is_proved_and_not_sent() -> None:
    with a_proxy(READY) as (target, heard):
        found = examine(target, LOGIN, announces=True)

    announced = read(bytearray(heard[0]))
    assert announced is not None
    assert announced.password_proof == found.password_proof == proof_of(LOGIN)
    assert b"canary" not in heard[0]
    assert found.password_proof not in repr(found)


def test_a_proxy_that_demands_a_password_is_not_joined_without_one() -> None:
    with a_proxy(DEMANDS) as (target, _):
        text = refused(target)

    assert "demands a password" in text
    assert "--proxy-auth-file" in text


def test_a_proxy_that_rejects_the_password_is_not_joined() -> None:
    with a_proxy(DEMANDS) as (target, _):
        assert "does not accept this password" in refused(target, LOGIN)


def test_a_proxy_elsewhere_gets_no_announcement_and_no_proof() -> None:
    with a_proxy(DEMANDS) as (target, heard):
        assert "only prove to one on this machine" in refused(target, LOGIN, announces=False)

    assert heard == [b"\x05\x01\x00"]


@pytest.mark.parametrize("answer", [BAD_REQUEST, b""])
def test_another_program_is_foreign(answer: bytes) -> None:
    with a_proxy(answer, BAD_REQUEST) as (target, heard):
        assert examine(target, None, announces=True).foreign

    assert heard[1].startswith(b"CONNECT claude-proxy.invalid:443 ")


def test_another_program_that_demands_a_password_is_not_joined() -> None:
    with a_proxy(BAD_REQUEST, DEMANDS_HTTP) as (target, _):
        text = refused(target, LOGIN)

    assert "not claude-proxy and demands a password" in text
    assert "--upstream-proxy" in text


def test_a_proxy_that_does_not_answer_is_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_proxy, "_PATIENCE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = RelayTarget("quiet", socket.AF_INET, listener.getsockname())

        assert examine(target, None, announces=True).foreign
