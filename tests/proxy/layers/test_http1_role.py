"""Both roles fit the lane, and a body is known by its head."""

import pytest
from mitmproxy.connection import Client

from claude_proxy.proxy.gateway.role import GatewayRole
from claude_proxy.proxy.gateway.state import gateway_state
from claude_proxy.proxy.layers.http1_proxy import ProxyRole
from claude_proxy.proxy.layers.http1_role import Role, has_body
from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.responses import bad_request
from claude_proxy.wire.http1.request import read_request_head
from tests.proxy.gateway.calls import Counts, a_gateway
from tests.proxy.layers.stage import ORIGIN, Ledger, gate_of


@pytest.mark.parametrize(
    ("field", "follows"),
    [
        (b"X: y", False),
        (b"Content-Length: 0", False),
        (b"Content-Length: 1", True),
        (b"Transfer-Encoding: chunked", True),
    ],
)
def test_a_body_follows_where_the_head_says_so(field: bytes, *, follows: bool) -> None:
    text = b"POST / HTTP/1.1\r\nHost: example.com\r\n" + field + b"\r\n\r\n"
    head = read_request_head(bytearray(text), 4096)

    assert head is not None
    assert has_body(head) is follows


@pytest.mark.parametrize("name", ["proxy", "gateway"])
def test_each_role_answers_a_refusal_with_its_status(name: str, ledger: Ledger) -> None:
    session = Session(gate_of("allow: []", ledger), ORIGIN, 65536)
    gateway = a_gateway()
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    role: Role = (
        ProxyRole(session, scheme=gateway.upstream.scheme, target=None)
        if name == "proxy"
        else GatewayRole(client, session, gateway_state(gateway, Counts()), None)
    )

    response = role.response_for(bad_request("the message is malformed"))

    assert response.status == 400
    assert response.http1(close=True).startswith(b"HTTP/1.1 400 ")
