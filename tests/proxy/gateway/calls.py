"""Calls of a gateway on the stage: a gateway, its callers and its provider, without sockets."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from mitmproxy.proxy.layer import Layer

from claude_proxy.config.settings import Base, Gateway, GatewayMode
from claude_proxy.events import Usage
from claude_proxy.policy.credentials.binding import Form, Injection
from claude_proxy.policy.credentials.decision import AvailableSecrets
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.gateway.layer import gateway_layer
from claude_proxy.proxy.gateway.policy import policy_of
from claude_proxy.proxy.gateway.state import gateway_state
from claude_proxy.proxy.layers.session import Session
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import Ledger, Stage, a_dialer

KEY = "sk-ant-api03-the-real-key-of-the-owner"


TOKEN = "the-token-of-this-gateway"


PROMPT = "canary-of-the-prompt"


CANARY = "canary-of-the-provider"


BODY = json.dumps(
    {"model": "asked", "max_tokens": 5, "messages": [{"role": "user", "content": PROMPT}]}
).encode()


END = b"\r\n\r\n"
FAILURES = [
    DialError(Failure.REFUSED, "127.0.0.1:8080 refuses connections"),
    DialError(Failure.UNRESOLVED, "no such name"),
    DialError(Failure.TIMEOUT, "no connection within 20 s"),
]


@dataclass
class SecretProvider:
    """Holds the gateway's key, or nothing."""

    secrets: AvailableSecrets = field(default_factory=lambda: {"gateway": Secret(KEY.encode())})
    statuses: list[int] = field(default_factory=list)

    def learn(self, name: str, login: tuple[bytes, bytes]) -> None:
        raise LookupError(name, len(login))

    def answered(self, name: str, status: int) -> None:
        assert name == "gateway"
        self.statuses.append(status)


@dataclass
class Counts:
    """What the audit log would say."""

    requests: int = 0
    tokens: int = 0
    reserved: dict[int, Usage] = field(default_factory=dict)

    def requests_since(self, moment_ns: int, credential: str) -> int:
        assert credential == "gateway"
        assert moment_ns > 0
        return self.requests

    def used_since(self, moment_ns: int, credential: str) -> int:
        assert credential == "gateway"
        assert moment_ns > 0
        return self.tokens + self.reserved_since(moment_ns, credential)

    def reserved_since(self, moment_ns: int, credential: str) -> int:
        assert credential == "gateway"
        assert moment_ns > 0
        return sum(each.tokens_in + each.tokens_out for each in self.reserved.values())

    def reserve(self, decision: int, usage: Usage, moment_ns: int, most: int) -> bool:
        if self.used_since(moment_ns, "gateway") >= most:
            return False
        self.reserved[decision] = usage
        return True


def a_gateway(**changes: Any) -> Gateway:
    gateway = Gateway(
        listen=(),
        upstream=Base(Scheme.HTTP, Authority.of("127.0.0.1", 8080)),
        credential=Injection(EnvironmentSource("KEY"), Form.X_API_KEY, strips=True, plain=True),
    )
    return replace(gateway, **changes)


STRICT = a_gateway(mode=GatewayMode.STRICT)


@dataclass
class Play:
    """A gateway on the stage, and what it recorded."""

    stage: Stage
    ledger: Ledger
    custodian: SecretProvider


def play(
    gateway: Gateway | None = None,
    *,
    policy: Policy | None = None,
    token: str | None = None,
    counts: Counts | None = None,
    connects: bool = True,
    local: bool = False,
    custodian: SecretProvider | None = None,
) -> Play:
    gateway = gateway or a_gateway()
    ledger, custodian = Ledger(), custodian or SecretProvider()
    judged = policy_of(gateway, policy or Policy())
    gate = Gate(judged, ledger.events.append, secret_provider=custodian)
    state = gateway_state(gateway, counts or Counts())

    def make(context: Any, session: Session) -> Layer:
        return gateway_layer(context, session, a_dialer(), state, token)

    return Play(Stage(make, gate, connects=connects, local=local), ledger, custodian)


def ask(
    method: str = "POST",
    target: str = "/v1/messages",
    *fields: str,
    body: bytes = BODY,
    host: str = "localhost:9000",
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def content_of(answer: bytes) -> Any:
    return json.loads(answer.partition(END)[2])


def fields_of(message: bytes) -> dict[str, str]:
    lines = message.partition(END)[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (at.partition(":") for at in lines)}


def an_answer(status: str = "200 OK", body: bytes = b'{"ok":1}', *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def api_error(answer: bytes) -> tuple[int, str]:
    """Return the status, and the kind of error; fail if it has not the API's shape."""
    value = content_of(answer)
    assert value["type"] == "error"
    assert set(value["error"]) == {"type", "message"}
    return status_of(answer), value["error"]["type"]
