"""What a peer's kernel has acknowledged is known, so it is known what it cannot have got."""

import socket
import sys

import pytest

from claude_proxy.system.tcp_acknowledged import acknowledged
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def test_it_grows_by_what_arrives_though_nobody_reads_it() -> None:
    near, far = pair()
    with near, far:
        before = acknowledged(near)
        assert before is not None
        near.sendall(b"hello")

        until(lambda: acknowledged(near) == before + 5, "the acknowledgement")


def test_it_does_not_grow_by_what_is_sent_to_a_closed_socket() -> None:
    near, far = pair()
    with near:
        far.close()
        before = acknowledged(near)
        near.sendall(b"hello")
        until(lambda: near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the reset")

        assert acknowledged(near) == before


def test_it_is_unknown_where_the_socket_or_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert acknowledged(near) is None
        monkeypatch.delattr(socket, "TCP_INFO")

        assert acknowledged(near) is None
