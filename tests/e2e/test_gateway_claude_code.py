"""The real Claude Code behind the gateway: as with the API itself, but without its key."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.claude_code import PROMPT, ClaudeCode, written_below
from .rig.internet import Internet, Seen
from .rig.messages_api import (
    BROKEN,
    BUSY,
    INVALID,
    OVERLOADED,
    SPOKEN,
    MessagesApi,
    Turn,
    break_off,
    pausing,
    using_tool,
)
from .rig.origin import Exchange
from .rig.proxy import LOOPBACK, Proxy, Workplace
from .rig.terminal import Terminal

API = "llm.test"
KEY = "sk-ant-api03-0123-the-real-value-of-the-console-key-4567"
TOKEN = "the-token-of-this-run-0123456789"


@dataclass
class Gateway:
    """A running gateway, and the Claude Code that is led to it."""

    proxy: Proxy
    claude: ClaudeCode


class Start:
    """Starts gateways, each in a home of its own, and sees that they end calmly."""

    def __init__(self, internet: Internet, ports: Iterator[int], place: Path, claude: str) -> None:
        self._internet, self._ports, self._place, self._claude = internet, ports, place, claude
        self._token = place / "token"
        self._token.write_text(TOKEN)
        self._token.chmod(0o600)
        self.started: list[Proxy] = []

    def __call__(self, *options: str | Path) -> Gateway:
        """Start a gateway alone, that wants the token of its callers."""
        port = next(self._ports)
        told = ("--port", str(port), "--token-file", self._token, "--upstream", f"https://{API}")
        proxy = self.proxy(("gateway", *told, *options), port)
        return Gateway(proxy, self.claude(proxy, proxy.url))

    def by_socket(self, path: Path) -> Gateway:
        """Start a gateway at a Unix socket, which knows its callers without a token."""
        told = ("gateway", "--uds", path, "--upstream", f"https://{API}")
        proxy = self.proxy(told, next(self._ports))
        # No manual of the client names this variable, but it is there; the URL says: without TLS.
        way = {"ANTHROPIC_UNIX_SOCKET": str(path)}
        return Gateway(proxy, self.claude(proxy, "http://localhost", **way))

    def beside(self, allowlist: str) -> Gateway:
        """Start a proxy with a gateway in the same process."""
        port, other = next(self._ports), next(self._ports)
        file = self._place / "allowlist.yaml"
        file.write_text(allowlist)
        place = f"{LOOPBACK}:{other}"
        told: list[str | Path] = ["serve", "--port", str(port), "--allowlist", file]
        told += ["--gateway", place, "--gateway-token-file", self._token]
        told += ["--gateway-upstream", f"https://{API}"]
        proxy = self.proxy(told, port)
        return Gateway(proxy, self.claude(proxy, f"http://{place}", **proxy.env()))

    def proxy(self, arguments: Sequence[str | Path], port: int) -> Proxy:
        """Start `claude-proxy`, which has the key."""
        directory = self._place / f"gateway-{len(self.started)}"
        directory.mkdir()
        variables = {"PROXY_API_KEY": KEY}
        words = [*arguments, "--upstream-ca", self._internet.pki.root_file, "--verbose"]
        proxy = Proxy(self._internet, directory, words, port=port, variables=variables)
        self.started.append(proxy)
        proxy.wait_until_listening()
        return proxy

    def claude(self, proxy: Proxy, url: str, **variables: str) -> ClaudeCode:
        """Return the Claude Code of one gateway."""
        return led_to(url, self._claude, proxy.place, ANTHROPIC_AUTH_TOKEN=TOKEN, **variables)

    def direct(self) -> ClaudeCode:
        """Return a Claude Code that knows the key, and asks the API itself."""
        place = Workplace(self._internet, self._place / "direct")
        trust = {"NODE_EXTRA_CA_CERTS": str(self._internet.pki.root_file)}
        key = {"ANTHROPIC_AUTH_TOKEN": KEY}
        return led_to(f"https://{API}", self._claude, place, **trust, **key)


def led_to(url: str, program: str, place: Workplace, **variables: str) -> ClaudeCode:
    """Return a Claude Code that takes a URL for the API's."""
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "ANTHROPIC_BASE_URL": url}
    return ClaudeCode.settled(program, place, place.environment(**quiet, **variables))


@pytest.fixture
def start(
    internet: Internet, ports: Iterator[int], tmp_path: Path, program: FindProgram
) -> Iterator[Start]:
    """Start gateways that only this test uses."""
    internet.site(API, MessagesApi())
    start = Start(internet, ports, tmp_path, program("claude"))
    yield start
    for proxy in start.started:
        proxy.stop()
    for proxy in start.started:
        proxy.check_calm()


@pytest.fixture
def answers(internet: Internet) -> Callable[..., None]:
    """Return a function that writes down what the imitated API answers next."""

    def write(*turns: Turn) -> None:
        internet.site(API, MessagesApi(*turns))

    return write


def asked_of(seen: Seen) -> list[Exchange]:
    """Return the requests for a message, in order."""
    return [each for each in seen.exchanges if each.target.startswith("/v1/messages")]


# --- an answer


def test_claude_code_answers_without_the_key(start: Start, internet: Internet) -> None:
    gateway = start()

    with internet.watch() as seen:
        ran = gateway.claude.prints("hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert {arrival.server_name for arrival in seen.arrivals} == {API}
    (asked,) = seen.exchanges
    assert (asked.method, asked.target) == ("POST", "/v1/messages?beta=true")
    assert asked.header("x-api-key") == KEY
    assert TOKEN.encode() not in asked.head + asked.body
    row = gateway.proxy.outcome(f"{API}:443", "/v1/messages")
    assert (row.status, row.credential) == (200, "gateway")
    used = gateway.proxy.place.claude_proxy("log", "--usage", "--json").stdout
    assert [json.loads(line)["tokens"] for line in used.splitlines()] == [17]
    process = Path(f"/proc/{gateway.proxy.process.pid}")
    shown = [(process / name).read_bytes() for name in ("environ", "cmdline")]
    gateway.proxy.stop()
    shown += [path.read_bytes() for path in written_below(gateway.proxy.place.directory)]
    assert not [text for text in (*shown, ran.stdout.encode()) if KEY.encode() in text]


# What a way of its own has, in each run another.
_OF_THE_WAY = {"host", "authorization", "x-api-key", "connection", "accept-encoding"}
_OF_THE_RUN = {"x-claude-code-session-id", "x-client-request-id", "content-length"}


def test_the_api_is_asked_the_same_with_the_gateway_as_without_it(
    start: Start, internet: Internet
) -> None:
    gateway, direct = start(), start.direct()

    with internet.watch() as seen:
        gateway.claude.prints("hi")
        direct.prints("hi")

    by_gateway, by_itself = asked_of(seen)
    assert by_gateway.target == by_itself.target
    left, right = (
        [(name.lower(), value) for name, value in each.headers] for each in (by_gateway, by_itself)
    )
    passed = {name for name, _ in right} - _OF_THE_WAY
    assert {name for name, _ in left} - _OF_THE_WAY == passed
    assert [each for each in left if each[0] in passed - _OF_THE_RUN] == [
        each for each in right if each[0] in passed - _OF_THE_RUN
    ]
    assert json.loads(by_gateway.body).keys() == json.loads(by_itself.body).keys()


def test_claude_code_holds_a_conversation_in_a_terminal(
    start: Start, internet: Internet, tmp_path: Path, program: FindProgram
) -> None:
    program("tmux")
    claude = start().claude
    terminal = Terminal(tmp_path / "tmux", claude.environment)
    try:
        with internet.watch() as seen:
            terminal.start(internet.host.argv([claude.program], cwd=claude.project))
            until(lambda: PROMPT in terminal.screen(), "Claude Code's prompt")
            terminal.type("what is the answer")
            terminal.shows(SPOKEN)
            terminal.type("and once more")
            terminal.shows(SPOKEN, times=2)
            terminal.type("/exit")
            until(terminal.ended, "the end of Claude Code")
    finally:
        terminal.close()

    assert [each for each in asked_of(seen) if b"and once more" in each.body]
    assert {each.header("x-api-key") for each in seen.exchanges} == {KEY}


def test_claude_code_comes_by_a_unix_socket(
    start: Start, internet: Internet, tmp_path: Path
) -> None:
    claude = start.by_socket(tmp_path / "s").claude

    with internet.watch() as seen:
        ran = claude.prints("hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert [each.header("x-api-key") for each in seen.exchanges] == [KEY]


def test_claude_code_uses_a_tool(start: Start, answers: Callable[..., None]) -> None:
    gateway = start()
    answers(using_tool("Bash", {"command": "echo it ran >made"}))

    ran = gateway.claude.prints("hi", "--allowedTools", "Bash")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert (gateway.claude.project / "made").read_text() == "it ran\n"


def test_claude_code_sends_twenty_megabytes(start: Start, internet: Internet) -> None:
    gateway = start()

    with internet.watch() as seen:
        ran = gateway.claude.prints_with_document(15_000_000)

    assert (ran.returncode, SPOKEN in ran.stdout) == (0, True), ran.stdout + ran.stderr
    (asked,) = asked_of(seen)
    assert asked.body_bytes > 20_000_000
    assert asked.complete


# --- an API that is not well


def course(claude: ClaudeCode, internet: Internet) -> tuple[str, int, list[bool]]:
    """Return what Claude Code says and how it ends, and whether each try wanted a stream."""
    with internet.watch() as seen:
        ran: subprocess.CompletedProcess[str] = claude.prints("hi")
    tries = [b'"stream":true' in each.body for each in asked_of(seen)]
    # Some errors name who gave them.
    host = claude.environment["ANTHROPIC_BASE_URL"].partition("://")[2]
    return ran.stdout.replace(f"({host})", "(the API)"), ran.returncode, tries


@pytest.mark.parametrize(
    ("turns", "retries"),
    [
        ([BUSY, BUSY], None),
        ([BROKEN, BROKEN], None),
        ([OVERLOADED, OVERLOADED], None),
        ([break_off], None),
        ([break_off] * 9, "1"),
    ],
    ids=["429 twice", "500 twice", "529 twice", "drops once", "drops always"],
)
def test_claude_code_gets_over_what_it_would_get_over_without_the_gateway(
    start: Start,
    internet: Internet,
    answers: Callable[..., None],
    turns: Sequence[Turn],
    retries: str | None,
) -> None:
    limit = {} if retries is None else {"CLAUDE_CODE_MAX_RETRIES": retries}
    gateway, direct = start(), start.direct()

    answers(*turns)
    by_gateway = course(gateway.claude.with_variables(**limit), internet)
    answers(*turns)
    by_itself = course(direct.with_variables(**limit), internet)

    assert by_gateway == by_itself
    if retries is None:
        assert by_gateway[:2] == (SPOKEN + "\n", 0)
        assert len(by_gateway[2]) == len(turns) + 1
    else:
        assert by_gateway[1] == 1


@pytest.mark.parametrize(
    ("turn", "wording"),
    [
        (INVALID, "messages.0: as the API worded it"),
        (BUSY, "as the owner worded it"),
        (BROKEN, "as the engineer worded it"),
        (OVERLOADED, "as the crowd worded it"),
    ],
    ids=["400", "429", "500", "529"],
)
def test_an_error_is_told_in_the_words_of_the_api(
    start: Start, internet: Internet, answers: Callable[..., None], turn: Turn, wording: str
) -> None:
    gateway, direct = start(), start.direct()

    answers(*[turn] * 9)
    by_gateway = course(gateway.claude.with_variables(CLAUDE_CODE_MAX_RETRIES="0"), internet)
    answers(*[turn] * 9)
    by_itself = course(direct.with_variables(CLAUDE_CODE_MAX_RETRIES="0"), internet)

    assert by_gateway == by_itself
    assert (by_gateway[1], wording in by_gateway[0]) == (1, True)


def test_pings_beyond_every_limit_on_silence_are_no_reason_to_give_up(
    start: Start, internet: Internet, answers: Callable[..., None]
) -> None:
    gateway = start("--timeout", "3s", "--idle-timeout", "3s")
    answers(pausing(8))

    said, code, tries = course(gateway.claude, internet)

    assert (said, code, tries) == (SPOKEN + "\n", 0, [True])
    row = gateway.proxy.outcome(f"{API}:443", "/v1/messages")
    assert (row.status, row.error) == (200, None)


# --- callers, models, and the proxy beside it


def test_a_wrong_token_leads_nowhere(start: Start, internet: Internet) -> None:
    gateway = start()
    stranger = gateway.claude.with_variables(ANTHROPIC_AUTH_TOKEN=TOKEN + "-not")

    with internet.watch() as seen:
        ran = stranger.prints("hi")

    assert (ran.returncode, "requires its token" in ran.stdout) == (1, True), ran.stdout
    assert seen.nothing()
    denied = gateway.proxy.audit("--denied")
    # Claude Code repeats a 401 for minutes, unless it is told to let it be.
    assert [row.reason for row in denied] == ["client-not-authenticated"]


def test_the_owners_model_is_the_one_that_answers(start: Start, internet: Internet) -> None:
    gateway = start("--model", "the-owners-model")

    with internet.watch() as seen:
        ran = gateway.claude.prints("hi", "--model", "claude-opus-4-1")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert [json.loads(each.body)["model"] for each in asked_of(seen)] == ["the-owners-model"]


def test_gateway_and_proxy_serve_one_claude_code_by_one_list(
    start: Start, internet: Internet, answers: Callable[..., None]
) -> None:
    gateway = start.beside("allow: [allowed.test]\n")
    command = "curl -sS https://allowed.test/from-a-tool; curl -sS https://denied.test/from-a-tool"
    answers(using_tool("Bash", {"command": command}))

    with internet.watch() as seen:
        ran = gateway.claude.prints("hi", "--allowedTools", "Bash")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    hosts = [each.arrival.server_name for each in seen.exchanges]
    assert hosts == [API, "allowed.test", API]
    rows = [row for row in gateway.proxy.audit() if "action" in row.fields and row.path]
    assert {(row.host, row.listener.split()[0], row.credential) for row in rows} == {
        (API, "gateway", "gateway"),
        ("allowed.test", "tcp", None),
    }
    assert [row.reason for row in gateway.proxy.decisions("denied.test:443")] == ["no-rule"]
