"""The law of requests: what may hold a credential is not shown."""

from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

TARGET = Authority("a.test", 443)


def test_a_request_shows_neither_its_query_nor_its_fields() -> None:
    asked = Request(Scheme.HTTPS, TARGET, TARGET, "GET", "/", "key=CANARY", ((b"a", b"CANARY"),))

    assert "CANARY" not in repr(asked)
