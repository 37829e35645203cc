"""Another program on the address of the proxy is recognised, and no socket stays open."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claude_proxy.config.settings import InheritedListen, Listen, Settings, TcpListen, UnixListen
from claude_proxy.doctor import listeners
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level
from claude_proxy.doctor.listeners import check_listeners

OURS = b"HTTP/1.1 403 Forbidden\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n"
SOMEBODY = b"HTTP/1.1 200 OK\r\nServer: other\r\n\r\n"


def look(place: Listen, **environ: str) -> Finding:
    settings = Settings(Path("/a"), Path("/c"), Path("/s"), listen=(place,))
    [found] = check_listeners(Subject(settings, environ, "linux"))
    return found


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[None]:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch, listener:
        patch.setattr(listeners, "_LIMIT_S", 60.0)  # it does answer, on a busy machine too
        yield
        thread.join()


@contextmanager
def tcp(answer: bytes) -> Iterator[TcpListen]:
    listener = socket.create_server(("127.0.0.1", 0))
    place = TcpListen("127.0.0.1", listener.getsockname()[1])
    with answering(listener, answer):
        yield place


@contextmanager
def unix(path: Path, answer: bytes) -> Iterator[UnixListen]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with answering(listener, answer):
        yield UnixListen(path)


@pytest.fixture
def free() -> TcpListen:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return TcpListen("127.0.0.1", taken.getsockname()[1])


def test_a_running_claude_proxy_is_ok() -> None:
    with tcp(OURS) as place:
        found = look(place)

    assert (found.level, found.fix) == (Level.OK, None)
    assert "(yours)" in found.what


@pytest.mark.parametrize("answer", [SOMEBODY, b"", b"x" * 70_000])
def test_another_program_that_answers_is_an_error(answer: bytes) -> None:
    with tcp(answer) as place:
        found = look(place)

    assert found.level is Level.ERROR
    assert found.fix == f"stop it, or choose another port: --port {place.port + 1}"


def test_another_users_proxy_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with tcp(OURS) as place:
        found = look(place)

    assert found.level is Level.WARNING
    assert f"(uid {os.getuid()})" in found.what


def test_a_free_port_is_ok(free: TcpListen) -> None:
    assert look(free).level is Level.OK


def test_a_free_port_that_the_shells_variables_name_is_a_warning(free: TcpListen) -> None:
    found = look(free, HTTPS_PROXY=f"http://{free}")

    assert (found.level, found.fix) == (Level.WARNING, "claude-proxy serve")
    assert "claude-proxy is not running" in found.what


def test_an_address_of_another_machine_is_an_error() -> None:
    assert look(TcpListen("127.0.0.1", 0)).level is Level.OK
    found = look(TcpListen("240.0.0.1", 9051))

    assert found.level is Level.ERROR


def test_a_port_that_cannot_be_listened_on_is_an_error(free: TcpListen) -> None:
    with socket.socket() as taken:  # bound, and not listening: nobody answers
        taken.bind(("127.0.0.1", free.port))

        found = look(free)

    assert found.level is Level.ERROR
    assert "cannot be listened on" in found.what


def test_a_socket_of_a_running_claude_proxy_is_ok(tmp_path: Path) -> None:
    with unix(tmp_path / "s", OURS) as place:
        assert look(place).level is Level.OK


def test_a_socket_of_another_program_is_an_error(tmp_path: Path) -> None:
    with unix(tmp_path / "s", SOMEBODY) as place:
        assert look(place).level is Level.ERROR


def test_a_socket_of_another_user_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with unix(tmp_path / "s", OURS) as place:
        assert look(place).level is Level.WARNING


def test_a_missing_or_stale_socket_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    assert look(UnixListen(path)).level is Level.OK
    assert look(UnixListen(tmp_path / "none")).level is Level.OK


def test_a_path_that_cannot_be_one_of_a_socket_is_an_error(tmp_path: Path) -> None:
    assert look(UnixListen(tmp_path / "n" / ("x" * 90) / ("y" * 90))).level is Level.ERROR
    (tmp_path / "file").write_text("")
    assert look(UnixListen(tmp_path / "file" / "s")).level is Level.ERROR


def test_an_inherited_socket_is_not_checked() -> None:
    assert "inherited" in look(InheritedListen(3, "systemd")).what


def test_the_owner_of_a_listener_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_TABLES", (Path("/nonexistent"),))
    with tcp(OURS) as place:
        assert "owner unknown" in look(place).what


def test_a_listener_on_every_ipv6_address_is_found() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as listener:
        place = TcpListen("::1", listener.getsockname()[1])

        assert listeners._owner_of(place) == os.geteuid()


def test_an_address_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", unreachable)

    found = look(TcpListen("127.0.0.1", 1))

    assert (found.level, found.what) == (Level.ERROR, "127.0.0.1:1: timeouterror")


def test_without_peer_credentials_a_socket_counts_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with unix(tmp_path / "s", OURS) as place:
        assert look(place).level is Level.OK


def test_a_user_without_a_name_is_shown_by_number() -> None:
    assert listeners._name_of(4_000_000_001) == "uid 4000000001"
