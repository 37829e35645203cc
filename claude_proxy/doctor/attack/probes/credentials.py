"""Tries to use another login than the one that is put in, to learn that one, and to ask for more.

The site is one of ours, and so is the key that the proxy puts in there. It is narrowed as a host of
the Messages API is.
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
_MODELS: Final = "/v1/models"  # where any query is allowed, so that it is the login that is denied
_OTHER: Final = "sk-ant-api03-somebody-elses"
_LIMIT: Final = 64 * 1024

type _Fields = tuple[str, ...]


def message(spec: Spec, fields: _Fields, body: str = "", target: str = _MESSAGES) -> bytes:
    """Return a request to the site that has a key."""
    host, port = spec["bound"]
    text = (body or json.dumps(_asked())).encode()
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
    """Return the field that stands for the key."""
    return f"x-api-key: {spec['placeholder']}"


def _asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 1, "messages": [], **more}


def foreign_keys(spec: Spec) -> Iterator[Try]:
    """Send logins of somebody else's to the host that has one bound to it."""
    basic = b64encode(f"user:{_OTHER}".encode()).decode()
    placeholder = own(spec)
    for what, fields in (
        ("another key", (f"x-api-key: {_OTHER}",)),
        ("another key, with an underscore", (f"X_Api_Key: {_OTHER}",)),
        ("a bearer token", (f"Authorization: Bearer {_OTHER}",)),
        ("a bearer token beside the own", (placeholder, f"Authorization: Bearer {_OTHER}")),
        ("another key beside the own", (placeholder, f"x-api-key: {_OTHER}")),
        ("another key before the own", (f"x-api-key: {_OTHER}", placeholder)),
        ("both in one field", (f"{placeholder}, {_OTHER}",)),
        ("a name and password", (f"Authorization: Basic {basic}",)),
        ("a cookie", (f"Cookie: sessionKey={_OTHER}",)),
        ("a field of another API's", (f"api-key: {_OTHER}",)),
    ):
        yield _inside(spec, what, message(spec, fields))
    for name in ("api_key", "access_token", "x-api-key", "token", "%61pi_key"):
        target = f"{_MODELS}?{name}={_OTHER}"
        yield _inside(spec, f"?{name}=", message(spec, (), target=target))


def misplaced_placeholders(spec: Spec) -> Iterator[Try]:
    """Send the placeholder where no value may take its place."""
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
        ("its own query", f"{_MODELS}?a={text}", own(spec)),
        ("its own query, escaped", f"{_MODELS}?a={coded}", own(spec)),
        ("its own path", f"{_MODELS}/{text}", own(spec)),
        ("a field that is no login", _MESSAGES, f"User-Agent: {text}"),
    ):
        yield _inside(spec, what, message(spec, (field,), target=target))
    bound = "{}:{}".format(*spec["bound"])
    yield get(spec, f"http://{bound}/v1/messages?a={text}")
    yield get(spec, f"http://{spec['denied_host']}/{text}")
    yield connect(spec, f"{text}.{spec['denied_host']}:443")


def other_endpoints(spec: Spec) -> Iterator[Try]:
    """Ask for what the API keeps for its account: files, batches, skills."""
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
    """Have the API itself reach a host that this sandbox may not."""
    url = f"https://{spec['denied_host']}/"
    document = {"type": "document", "source": {"type": "url", "url": url}}
    image = {"type": "image", "source": {"type": "url", "url": url}}
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch"}
    server = {"type": "url", "url": url, "name": "x"}
    said = _asked(messages=[{"role": "user", "content": [image]}])
    for what, body in (
        ("mcp_servers", json.dumps(_asked(mcp_servers=[server]))),
        ("web_fetch", json.dumps(_asked(tools=[fetch]))),
        ("an image by URL", json.dumps(said)),
        (
            "a document by URL",
            json.dumps(_asked(messages=[{"role": "user", "content": [document]}])),
        ),
        ("an image in a result", json.dumps(_asked(messages=[_result(image)]))),
        ("a key with an escape", json.dumps(said).replace('"url":', '"\\u0075rl":')),
        ("a key twice", json.dumps(_asked())[:-1] + f', "messages": [], "m": "{url}"}}'),
        ("two texts", json.dumps(_asked()) + json.dumps(said)),
        ("UTF-16", json.dumps(said).encode("utf-16-le").decode("latin-1")),
        ("deep nesting", json.dumps(_asked(system=0)).replace("0", "[" * 5000 + "]" * 5000)),
        ("no JSON", f"url={url}"),
    ):
        yield _inside(spec, what, message(spec, (own(spec),), body))
    coded = "Content-Encoding: gzip"
    yield _inside(spec, "a compressed body", message(spec, (own(spec), coded)))


def _result(image: dict[str, Any]) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    return {"role": "user", "content": [block]}


def echoed_keys(spec: Spec) -> Iterator[Try]:
    """Have the site say which key it was sent."""
    key, (host, port) = spec["key"].encode(), spec["bound"]
    for what, target in (("in the answer", _MODELS), ("in its head", f"{_MODELS}/head")):
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
