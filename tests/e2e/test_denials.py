"""A denial comes at once, says what an agent can act on, and lets nothing out."""

import json

import pytest

from .conftest import StartProxy
from .rig.client import CannotConnectError
from .rig.internet import Internet
from .rig.proxy import Proxy

PLAIN_REQUEST = (
    b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n"
)


def denied_connect(proxy: Proxy, target: str) -> CannotConnectError:
    """Return how a CONNECT was refused."""
    with pytest.raises(CannotConnectError) as caught:
        proxy.tunnel(target)
    return caught.value


def test_a_denied_host_is_refused_at_connect_and_nothing_leaves(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        answer = denied_connect(proxy, "denied.test:443").answer

    assert (answer.status, answer.reason) == (403, "no-rule")
    assert seen.nothing()


def test_the_status_phrase_says_why(proxy: Proxy) -> None:
    assert "no-rule" in denied_connect(proxy, "denied.test:443").answer.phrase


def test_a_denial_says_what_to_do(proxy: Proxy) -> None:
    text = denied_connect(proxy, "denied.test:443").answer.text()

    assert "denied.test" in text
    assert "no-rule" in text
    assert "useless" in text


def test_the_command_that_a_denial_names_exists(proxy: Proxy) -> None:
    text = denied_connect(proxy, "denied.test:443").answer.text()
    commands = [line.split() for line in text.splitlines() if "claude-proxy " in line]
    (command,) = [words for words in commands if words[0] == "claude-proxy"]

    ran = proxy.place.claude_proxy(command[1], "--help")

    assert ran.returncode == 0, f"{command}: {ran.stderr}"


def test_a_denial_does_not_tell_the_rules(proxy: Proxy) -> None:
    texts = [
        denied_connect(proxy, "denied.test:443").answer.text(),
        denied_connect(proxy, "allowed.test:22").answer.text(),
        proxy.ask(PLAIN_REQUEST).decode(),
    ]

    for text in texts:
        assert "wild" not in text
        assert "allowlist.yaml" not in text
        assert "/ok" not in text


def test_whoever_asks_for_json_gets_json(proxy: Proxy) -> None:
    with proxy.tunnel("read-only.test:443") as tunnel:
        answer = tunnel.request("DELETE", "/", "Accept: application/json")

    assert (answer.status, answer.headers["content-type"]) == (403, "application/json")
    assert json.loads(answer.body)["error"]["reason"] == "method-not-allowed" == answer.reason


def test_whoever_asks_for_nothing_gets_plain_text(proxy: Proxy) -> None:
    with proxy.tunnel("read-only.test:443") as tunnel:
        answer = tunnel.request("DELETE", "/")

    assert answer.headers["content-type"].startswith("text/plain")
    assert "method-not-allowed" in answer.text()


def test_a_denial_does_not_wait_for_the_body(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("read-only.test:443") as tunnel:
        tunnel.send(
            b"POST /x HTTP/1.1\r\nHost: read-only.test\r\nContent-Length: 1000000000\r\n\r\n"
        )
        answer = tunnel.read("POST")

    assert (answer.status, answer.reason) == (403, "method-not-allowed")
    assert seen.exchanges == []


def test_the_body_of_a_denied_request_is_not_taken_for_the_next_request(
    proxy: Proxy, internet: Internet
) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: read-only.test\r\n\r\n"
    head = b"POST /x HTTP/1.1\r\nHost: read-only.test\r\nContent-Length: %d\r\n\r\n"

    with internet.watch() as seen, proxy.tunnel("read-only.test:443") as tunnel:
        tunnel.send(head % len(smuggled) + smuggled)
        answer = tunnel.read("POST")
        tunnel.ended()

    assert answer.status == 403
    assert "/smuggled" not in seen.targets()


def test_denied_unreachable_and_bad_are_told_apart(proxy: Proxy) -> None:
    answers = {}
    with proxy.tunnel("allowed.test:443") as tunnel:
        answers["denied"] = tunnel.get("/forbidden/x")
    with proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(b"GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: allowed.test\r\n\r\n")
        answers["bad"] = tunnel.read()
    for name, target in (
        ("unresolved", "no-such-name.test:443"),
        ("refused", "refusing.test:9999"),
    ):
        try:
            with proxy.tunnel(target) as tunnel:
                answers[name] = tunnel.get("/")
        except CannotConnectError as refusal:
            answers[name] = refusal.answer

    statuses = {name: answer.status for name, answer in answers.items()}
    assert statuses == {"denied": 403, "bad": 400, "unresolved": 502, "refused": 502}
    reasons = {name: answer.reason for name, answer in answers.items()}
    assert len(set(reasons.values())) == len(reasons)
    assert None not in reasons.values()


def test_an_upstream_that_does_not_answer_is_a_504(
    start_proxy: StartProxy, internet: Internet
) -> None:
    internet.names.answer("silent.test", ["93.200.0.1"])
    internet.namespace.run(["ip", "route", "replace", "blackhole", "93.200.0.0/24"])
    proxy = start_proxy("allow: [silent.test]\n", "--connect-timeout", "500ms")

    try:
        with proxy.tunnel("silent.test:443") as tunnel:
            answer = tunnel.get("/")
    except CannotConnectError as refusal:
        answer = refusal.answer

    assert answer.status == 504


@pytest.mark.parametrize(
    "request_line", ["GET / HTTP/1.1", "HEAD / HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
def test_the_proxy_itself_serves_nothing(
    proxy: Proxy, internet: Internet, request_line: str
) -> None:
    host = f"127.0.0.1:{proxy.port}"

    with internet.watch() as seen:
        answer = proxy.ask(f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert answer.split()[1] in {b"400", b"403"}
    assert seen.nothing()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "10.99.0.2", "mitm.it"])
def test_the_proxy_is_not_reached_through_itself(
    proxy: Proxy, internet: Internet, name: str
) -> None:
    plain = (
        f"GET http://{name}:{proxy.port}/ HTTP/1.1\r\nHost: {name}:{proxy.port}\r\n\r\n".encode()
    )

    with internet.watch() as seen:
        tunnel = denied_connect(proxy, f"{name}:{proxy.port}").answer
        answer = proxy.ask(plain.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    assert tunnel.status == 403
    assert answer.split()[1] == b"403"
    assert seen.nothing()


LOOPS = {
    "a name": ("myself.test", "{host: myself.test, ports: [$PORT], addresses: [127.0.0.0/8]}"),
    "an address": ("10.99.0.2", "{host: 10.99.0.2, ports: [$PORT]}"),
}


@pytest.mark.parametrize(("host", "rule"), LOOPS.values(), ids=LOOPS.keys())
def test_what_leads_back_to_the_proxy_makes_no_loop_although_it_is_listed(
    start_proxy: StartProxy, internet: Internet, host: str, rule: str
) -> None:
    internet.names.answer("myself.test", ["127.0.0.1"])
    # Everywhere, so that each of this host's addresses is the proxy.
    proxy = start_proxy(f"allow: [{rule}]\n", "--host", "0.0.0.0", "--allow-remote")

    try:
        with proxy.tunnel(f"{host}:{proxy.port}") as tunnel:
            answer = tunnel.get("/")
    except CannotConnectError as refusal:
        answer = refusal.answer

    assert (answer.status, answer.reason) == (403, "proxy-loop")


DOH = ["dns.google", "cloudflare-dns.com", "one.one.one.one", "dns.quad9.net", "doh.opendns.com"]


def test_the_shipped_list_opens_no_tunnel_for_dns(
    start_proxy: StartProxy, internet: Internet
) -> None:
    proxy = start_proxy(None)

    with internet.watch() as seen:
        reasons = [denied_connect(proxy, f"{host}:443").answer.reason for host in DOH]

    assert reasons == ["no-rule"] * len(DOH)
    assert seen.nothing()


def test_no_error_page_holds_a_header_value(proxy: Proxy) -> None:
    secret = "sk-ant-very-secret"
    field = f"Authorization: Bearer {secret}"

    with proxy.tunnel("read-only.test:443") as tunnel:
        denied = tunnel.request("DELETE", "/", field)
    with proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(f"GET / HTTP/1.1\r\nHost: allowed.test\r\n{field}\r\n folded\r\n\r\n".encode())
        bad = tunnel.read()
    with proxy.tunnel("broken.test:443") as tunnel:
        garbage = tunnel.get("/garbage", field)

    assert [answer.status for answer in (denied, bad, garbage)] == [403, 400, 502]
    assert not any(secret in answer.text() for answer in (denied, bad, garbage))
