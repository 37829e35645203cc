"""The gateway as its users have it: real curl at one end, the tests' internet at the other."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import FindProgram
from tests.support.audit import Row
from tests.support.waiting import PATIENCE_S, away_from_midnight, until

from .rig.internet import Internet
from .rig.messages_api import SPOKEN, speak
from .rig.origin import Exchange, Talk
from .rig.proxy import LOOPBACK, Proxy

API = "provider.test"
KEY = "sk-ant-api03-canary-of-the-owners-key"
TOKEN = "canary-of-the-callers-token"
PROMPT = "canary-of-the-prompt"
TOLD = "canary-of-the-provider"
MODEL = "claude-test"

_PATIENT = ["--silent", "--show-error", "--max-time", str(int(PATIENCE_S))]
_STATUS = ["--write-out", "\n%{http_code}"]


def body(model: str = MODEL, **more: Any) -> str:
    asked = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]}
    return json.dumps(asked | more)


# --- a provider, which is told by the model how to behave


def provider(exchange: Exchange, talk: Talk) -> None:
    raw = b"".join(talk.body(exchange))
    asked = json.loads(raw)
    model = asked["model"]
    if model.startswith("status-"):
        _fails(talk, model.removeprefix("status-"))
    elif model == "redirects":
        talk.answer("302 Found", b"", "Location: https://denied.test/v1/messages")
    elif model == "html":
        talk.answer("200 OK", f"<p>{TOLD}</p>".encode(), "Content-Type: text/html")
    elif model == "echoes":
        said = json.dumps({"you": exchange.header("x-api-key")}).encode()
        talk.answer("200 OK", said, "Content-Type: application/json")
    elif model == "silent":
        talk.wait("gateway-never")
    elif model in {"pauses", "drops"}:
        _trickles(talk, drops=model == "drops")
    else:
        speak(asked, talk)


def _fails(talk: Talk, status: str) -> None:
    error = {"type": "error", "error": {"type": "of_the_provider", "message": TOLD}}
    told = (f"request-id: {TOLD}", "retry-after: 17", f"anthropic-ratelimit-limit: {TOLD}")
    talk.answer(f"{status} {TOLD}", json.dumps(error).encode(), *told)


def _trickles(talk: Talk, *, drops: bool) -> None:
    fields = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    talk.send("\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode())
    for name in ("message_start", "ping", "message_stop"):
        event = f"event: {name}\ndata: {{}}\n\n".encode()
        talk.send(b"%x\r\n%b\r\n" % (len(event), event))
        if drops:
            raise ConnectionAbortedError
        talk.wait(f"gateway-{name}")
    talk.send(b"0\r\n\r\n")


# --- gateways


@dataclass
class Gateway:
    """A running gateway, and curl in front of it."""

    proxy: Proxy
    curl: str
    socket: Path | None = None

    def says(self, *arguments: str, token: str | None = None) -> tuple[int, str]:
        """Run curl; return the status and the content."""
        shown = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
        ran = self.proxy.place.run(self.curl, *_PATIENT, *_STATUS, *shown, *arguments)
        content, _, status = ran.stdout.rpartition("\n")
        assert ran.returncode == 0, ran.stderr
        return int(status), content

    def url(self, path: str = "/v1/messages") -> str:
        """Return what curl is given, for whichever door there is."""
        return f"{self.proxy.url if self.socket is None else 'http://localhost'}{path}"

    def post(
        self, data: str, path: str = "/v1/messages", token: str | None = None
    ) -> tuple[int, str]:
        """Post a body as the seed's examples do."""
        door = [] if self.socket is None else ["--unix-socket", str(self.socket)]
        kind = ["--header", "Content-Type: application/json"]
        return self.says(*door, *kind, "--data", data, self.url(path), token=token)

    def error(self, data: str, token: str | None = None) -> tuple[int, dict[str, str]]:
        """Post a body that is answered by an error in the API's shape."""
        status, content = self.post(data, token=token)
        value = json.loads(content)
        assert value["type"] == "error"
        return status, value["error"]

    def rows(self) -> list[Row]:
        """Return what was decided, without what is told of the proxy itself."""
        return [row for row in self.proxy.audit() if "action" in row.fields]


class Start:
    """Starts gateways, each in a home of its own, and sees that they end calmly."""

    def __init__(self, internet: Internet, ports: Iterator[int], place: Path, curl: str) -> None:
        self._internet, self._ports, self._place, self._curl = internet, ports, place, curl
        self.started: list[Proxy] = []

    def __call__(
        self,
        *options: str | Path,
        upstream: str = f"https://{API}",
        command: str = "gateway",
        uds: Path | None = None,
        allowlist: str = "allow: []\n",
        **variables: str,
    ) -> Gateway:
        port = next(self._ports)
        directory = self._place / f"gateway-{len(self.started)}"
        directory.mkdir()
        file = directory / "allowlist.yaml"
        file.write_text(allowlist)
        file.chmod(0o600)
        door: list[str | Path] = ["--port", str(port)] if uds is None else ["--uds", uds]
        arguments = [command, *door, "--allowlist", file, *options]
        arguments += ["--upstream-ca", self._internet.pki.root_file]
        if upstream:
            arguments += ["--upstream", upstream]
        # What waits for a next request would be seen on the cable.
        quiet = {"CLAUDE_PROXY_WARM_UPSTREAMS": "false"}
        given = {"PROXY_API_KEY": KEY, **quiet, **variables}
        proxy = Proxy(self._internet, directory, arguments, port=port, variables=given)
        self.started.append(proxy)
        proxy.wait_until_listening()
        return Gateway(proxy, self._curl, uds)


@pytest.fixture
def start(
    internet: Internet, ports: Iterator[int], tmp_path: Path, program: FindProgram
) -> Iterator[Start]:
    internet.site(API, provider)
    start = Start(internet, ports, tmp_path, program("curl"))
    yield start
    for proxy in start.started:
        proxy.stop()
    for proxy in start.started:
        proxy.check_calm()


# --- the five forms of the seed


@pytest.mark.parametrize("mode", ["claude", "strict"])
def test_curl_posts_json_and_gets_json(start: Start, internet: Internet, mode: str) -> None:
    gateway = start("--mode", mode)

    with internet.watch() as seen:
        status, content = gateway.post(body(), "/v1/messages?beta=true")

    assert status == 200
    assert json.loads(content)["content"] == [{"type": "text", "text": SPOKEN}]
    [exchange] = seen.exchanges
    assert exchange.arrival.server_name == API
    assert exchange.target == "/v1/messages" + ("?beta=true" if mode == "claude" else "")
    assert exchange.header("x-api-key") == KEY
    assert exchange.header("Host") == API
    assert exchange.header("anthropic-version") == "2023-06-01"
    row = gateway.proxy.outcome(f"{API}:443", "/v1/messages")
    assert (row.allowed, row.status, row.credential, row.listener) == (
        True,
        200,
        "gateway",
        f"gateway tcp {LOOPBACK}:{gateway.proxy.port}",
    )


def test_curl_gets_a_stream_event_by_event(start: Start, internet: Internet) -> None:
    gateway = start()
    asked = [gateway.curl, *_PATIENT, "--no-buffer", "--data", body("pauses", stream=True)]
    command = internet.host.argv([*asked, gateway.url()], cwd=gateway.proxy.place.home)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        # Each event is read before the provider may send the next.
        for name in ("message_start", "ping", "message_stop"):
            lines = [curl.stdout.readline() for _ in range(3)]
            assert lines == [f"event: {name}\n".encode(), b"data: {}\n", b"\n"]
            internet.origin.gate(f"gateway-{name}").open()
        assert curl.stdout.read() == b""
        assert curl.wait(PATIENCE_S) == 0


def test_another_method_is_not_allowed(start: Start, internet: Internet) -> None:
    gateway = start("--mode", "strict")

    with internet.watch() as seen:
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            status, content = gateway.says("--request", method, gateway.url())
            assert (status, json.loads(content)) == (405, {"detail": "Method not allowed"})

    assert seen.nothing()


def test_another_path_is_not_found(start: Start, internet: Internet) -> None:
    gateway = start("--mode", "strict")

    with internet.watch() as seen:
        for path in ("/", "/v1/completions", "/docs", "/openapi.json", "/v1/models"):
            status, content = gateway.says("--path-as-is", gateway.url(path))
            assert (status, json.loads(content)) == (404, {"detail": "Not found"})

    assert seen.nothing()


def test_curl_comes_by_a_unix_socket_and_there_is_no_port(start: Start, tmp_path: Path) -> None:
    gateway = start("--mode", "strict", uds=tmp_path / "g.sock")

    status, content = gateway.post(body())

    assert status == 200
    assert json.loads(content)["content"][0]["text"] == SPOKEN
    listening = gateway.proxy.place.run("ss", "--listening", "--tcp", "--no-header", "--processes")
    assert f"pid={gateway.proxy.process.pid}," not in listening.stdout


def test_any_host_is_accepted(start: Start, internet: Internet, tmp_path: Path) -> None:
    gateway = start(uds=tmp_path / "g.sock")

    with internet.watch() as seen:
        status, _ = gateway.says(
            *("--unix-socket", str(gateway.socket), "--header", "Host: nginx.internal:8443"),
            *("--data", body(), gateway.url()),
        )

    assert status == 200
    assert [exchange.header("Host") for exchange in seen.exchanges] == [API]


# --- callers


def test_without_the_token_nothing_leaves(start: Start, internet: Internet, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    gateway = start("--token-file", file)

    with internet.watch() as seen:
        refused = [gateway.error(body()), gateway.error(body(), token=TOKEN + "x")]
    accepted = gateway.post(body(), token=TOKEN)

    assert [(status, error["type"]) for status, error in refused] == [
        (401, "authentication_error")
    ] * 2
    assert seen.nothing()
    assert accepted[0] == 200
    reasons = [row.reason for row in gateway.rows()]
    # Equal denials are one row with a count.
    assert list(dict.fromkeys(reasons)) == ["client-not-authenticated", "rule-matched"]


def test_another_user_is_not_let_in_by_the_socket(start: Start, internet: Internet) -> None:
    with TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o711)
        uds = Path(place) / "g.sock"
        gateway = start("--socket-uid", str(os.geteuid() + 1), uds=uds)

        with internet.watch() as seen:
            status, error = gateway.error(body())
        gateway.proxy.stop()

    assert (status, error["type"]) == (401, "authentication_error")
    assert seen.nothing()
    assert [row.reason for row in gateway.rows()] == ["client-not-allowed"]


# --- an upstream that is not well


def test_claude_mode_gives_an_error_word_for_word(start: Start) -> None:
    gateway = start()

    for status in (400, 429, 500, 529):
        found = gateway.error(body(f"status-{status}"))
        assert found == (status, {"type": "of_the_provider", "message": TOLD})


def test_strict_mode_gives_the_status_and_no_word_of_it(start: Start) -> None:
    gateway = start("--mode", "strict")

    for wanted in (400, 401, 403, 404, 418, 429, 500, 502, 503, 529, 599):
        asked = ("--include", "--data", body(f"status-{wanted}"), gateway.url())
        status, whole = gateway.says(*asked)
        assert status == wanted
        assert TOLD not in whole
        assert "retry-after" not in whole.lower()
        assert json.loads(whole.replace("\r", "").partition("\n\n")[2])["type"] == "error"


def test_a_redirect_is_not_followed(start: Start, internet: Internet) -> None:
    claude, strict = start(), start("--mode", "strict")

    with internet.watch() as seen:
        passed = claude.post(body("redirects"))
        worded = strict.error(body("redirects"))

    assert passed[0] == 302
    assert worded == (502, {"type": "upstream_error", "message": "Unexpected provider response"})
    assert {arrival.server_name for arrival in seen.arrivals} == {API}


def test_what_is_no_json_is_not_given_in_strict_mode(start: Start) -> None:
    status, error = start("--mode", "strict").error(body("html"))

    assert (status, error["type"]) == (502, "proxy_error")


def test_a_stream_that_breaks_off_is_not_taken_for_whole(start: Start) -> None:
    gateway = start()

    ran = gateway.proxy.place.run(
        gateway.curl, *_PATIENT, "--data", body("drops", stream=True), gateway.url()
    )

    assert ran.stdout == "event: message_start\ndata: {}\n\n"
    assert ran.returncode == 18  # CURLE_PARTIAL_FILE
    row = gateway.proxy.outcome(f"{API}:443", "/v1/messages")
    assert row.error == "upstream-cut-short"


@pytest.mark.parametrize(
    ("upstream", "word"),
    [
        ("https://refusing.test:9999", "connect-refused"),
        ("https://no-such-name.test", "dns-failed"),
        ("https://self-signed.test", "upstream-certificate-invalid"),
        ("https://expired.test", "upstream-certificate-invalid"),
        ("https://wrong-name.test", "upstream-certificate-invalid"),
    ],
)
def test_an_upstream_that_cannot_be_had_is_told_in_the_apis_words(
    start: Start, internet: Internet, upstream: str, word: str
) -> None:
    claude = start(upstream=upstream)
    strict = start("--mode", "strict", upstream=upstream)

    with internet.watch() as seen:
        told, worded = claude.error(body()), strict.error(body())

    assert (told[0], told[1]["type"]) == (502, "api_error")
    assert worded == (502, {"type": "proxy_error", "message": "Upstream request failed"})
    assert seen.exchanges == []
    for gateway in (claude, strict):
        until(lambda: gateway.rows()[0].duration_ms is not None, "the outcome")  # noqa: B023 - at once
        [row] = gateway.rows()
        assert (row.status, row.error) == (502, word)


def test_an_upstream_that_is_silent_is_not_waited_for_longer_than_was_said(start: Start) -> None:
    claude = start("--timeout", "1s")
    strict = start("--timeout", "1s", "--mode", "strict")

    told, worded = claude.error(body("silent")), strict.error(body("silent"))

    assert (told[0], told[1]["type"]) == (504, "timeout_error")
    assert worded == (502, {"type": "proxy_error", "message": "Upstream request failed"})


def test_an_answer_that_holds_the_key_does_not_reach_the_caller(start: Start) -> None:
    gateway = start()

    ran = gateway.proxy.place.run(gateway.curl, *_PATIENT, "--data", body("echoes"), gateway.url())

    assert KEY not in ran.stdout
    row = gateway.proxy.outcome(f"{API}:443", "/v1/messages")
    assert row.error == "credential-echoed"


# --- what the owner set


def test_the_owners_model_is_asked_for(start: Start, internet: Internet) -> None:
    gateway = start("--model", "the-owners", "--mode", "strict")

    with internet.watch() as seen:
        gateway.post(body())

    assert json.loads(seen.exchanges[0].body)["model"] == "the-owners"


def test_a_ceiling_puts_off_what_is_above_it(start: Start, internet: Internet) -> None:
    gateway = start("--max-tokens-per-day", "17")
    away_from_midnight()

    first = gateway.post(body())
    until(lambda: gateway.rows()[-1].duration_ms is not None, "the outcome")
    with internet.watch() as seen:
        second = gateway.error(body())

    assert first[0] == 200
    assert (second[0], second[1]["type"]) == (429, "rate_limit_error")
    assert seen.nothing()


def test_a_ceiling_of_requests_says_when_there_is_room_again(start: Start) -> None:
    gateway = start("--max-requests-per-minute", "1", "--mode", "strict")

    first = gateway.post(body())
    status, whole = gateway.says("--include", "--data", body(), gateway.url())

    assert first[0] == 200
    assert status == 429
    fields = dict(line.lower().split(": ", 1) for line in whole.splitlines() if ": " in line)
    assert 1 <= int(fields["retry-after"]) <= 60


def test_a_body_of_twenty_megabytes_goes_through_whole(
    start: Start, internet: Internet, tmp_path: Path
) -> None:
    gateway = start()
    file = tmp_path / "body"
    text = body(system="x" * 20_000_000)
    file.write_text(text)

    with internet.watch() as seen:
        status, _ = gateway.says("--data", f"@{file}", gateway.url("/v1/messages?beta=true"))

    assert seen.exchanges[0].body_bytes == len(text)
    assert status == 200


def test_a_body_that_is_too_large_is_refused_here(
    start: Start, internet: Internet, tmp_path: Path
) -> None:
    gateway = start("--max-body", "64K")
    file = tmp_path / "body"
    file.write_text(body(system="x" * 70_000))

    with internet.watch() as seen:
        status, content = gateway.says("--data", f"@{file}", gateway.url())

    assert (status, json.loads(content)["error"]["type"]) == (413, "request_too_large")
    assert seen.nothing()


def test_the_seeds_variables_are_enough(start: Start, internet: Internet) -> None:
    gateway = start(
        *("--mode", "strict"),
        upstream="",
        PROXY_UPSTREAM_BASE=f"https://{API}/",
        PROXY_DEFAULT_MODEL="of-the-seed",
    )

    with internet.watch() as seen:
        status, _ = gateway.post(body())

    assert status == 200
    assert json.loads(seen.exchanges[0].body)["model"] == "of-the-seed"
    said = gateway.proxy.stdout()
    assert f"upstream:       https://{API}" in said
    assert "of-the-seed" in said


NARROWED = f"""\
allow: [allowed.test]
anthropic:
  - host: {API}
    models: ["claude-*"]
    mcp_servers: allowlisted
    server_tools: none
"""


def test_what_the_api_may_be_asked_for_is_narrowed_here_too(
    start: Start, internet: Internet
) -> None:
    """The path of the base stands before that of the call; what the list allows may be reached."""
    gateway = start(upstream=f"https://{API}/api/of-the-provider", allowlist=NARROWED)
    tool = [{"type": "web_fetch_20250910", "name": "web_fetch"}]
    server = {"type": "url", "name": "one"}
    denied = {
        "server-tool-not-allowed": body(tools=tool),
        "mcp-server-not-allowed": body(mcp_servers=[server | {"url": "https://denied.test/"}]),
        "model-not-allowed": body("another-model"),
        "body-unreadable": body()[:-1] + ', "model": "claude-twice"}',
    }

    with internet.watch() as seen:
        for reason, asked in denied.items():
            kind = ("--include", "--header", "Content-Type: application/json")
            status, content = gateway.says(*kind, "--data", asked, gateway.url())
            assert status == 403
            assert f"X-Claude-Proxy-Reason: {reason}" in content
            assert '"permission_error"' in content
    allowed = gateway.post(body(mcp_servers=[server | {"url": "https://allowed.test/"}]))

    assert seen.nothing()
    assert allowed[0] == 200


# --- beside the proxy


def test_proxy_and_gateway_share_one_process_and_one_list(
    start: Start, internet: Internet, ports: Iterator[int]
) -> None:
    place = f"{LOOPBACK}:{next(ports)}"
    both = start(
        *("--gateway", place, "--gateway-upstream", f"https://{API}"),
        command="serve",
        upstream="",
        allowlist="allow: [allowed.test]\n",
    )
    proxy = both.proxy

    with internet.watch() as seen:
        by_gateway = both.says("--data", body(), f"http://{place}/v1/messages")
        by_proxy = both.says(
            *("--proxy", proxy.url, "--cacert", str(proxy.ca_file), "https://allowed.test/")
        )
    proxy.allowlist.write_text(f"allow: [allowed.test]\ndeny: [{API}]\n")
    proxy.signal(signal.SIGHUP)
    until(lambda: "Allowlist applied" in proxy.stdout(), "the reload")
    denied = both.says("--data", body(), f"http://{place}/v1/messages")

    assert (by_gateway[0], by_proxy[0], denied[0]) == (200, 200, 403)
    assert [exchange.header("x-api-key") for exchange in seen.exchanges] == [KEY, None]
    assert json.loads(denied[1])["error"]["type"] == "permission_error"


def test_a_gateway_alone_makes_no_ca(start: Start) -> None:
    gateway = start()

    assert not gateway.proxy.ca_file.exists()


# --- what must be nowhere


@pytest.mark.parametrize("mode", ["claude", "strict"])
@pytest.mark.parametrize("loudness", [(), ("--verbose",)])
def test_neither_key_nor_token_nor_prompt_nor_answer_is_kept_anywhere(
    start: Start, tmp_path: Path, loudness: tuple[str, ...], mode: str
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    log = tmp_path / "log.jsonl"
    gateway = start("--token-file", token, "--mode", mode, "--jsonl", log, *loudness)
    for model in (MODEL, "status-500", "html", "drops", "echoes"):
        asked = ("--header", f"x-api-key: {TOKEN}", "--data", body(model), gateway.url())
        gateway.proxy.place.run(gateway.curl, *_PATIENT, *asked)
    gateway.post("no json " + PROMPT, token=TOKEN)
    gateway.post(body(), token=TOKEN + "-wrong")
    with closing(gateway.proxy.connect()) as broken:
        broken.sendall(f"POST /v1/messages HTTP/1.1\r\nHost: a\r\n{PROMPT}\r\n\r\n".encode())
        broken.recv(1000)
    environment = Path(f"/proc/{gateway.proxy.process.pid}/environ").read_bytes()
    arguments = Path(f"/proc/{gateway.proxy.process.pid}/cmdline").read_bytes()
    gateway.proxy.stop()

    said = (gateway.proxy.stdout() + gateway.proxy.stderr()).encode()
    kept = b"".join(path.read_bytes() for path in gateway.proxy.place.home.rglob("*.sqlite3*"))
    kept += log.read_bytes()
    for canary in (KEY, TOKEN, PROMPT, TOLD, SPOKEN):
        for place in (environment, arguments, said, kept):
            assert canary.encode() not in place
