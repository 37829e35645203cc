"""The keys stay outside: what the client has is worth nothing, and nobody else's key goes out."""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.audit import Row
from tests.support.processes import has_ended
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.claude_code import ClaudeCode, written_below
from .rig.git_host import git_host
from .rig.internet import Internet, Seen
from .rig.leaky_host import WAYS, leaky_host
from .rig.messages_api import (
    BROKEN,
    BUSY,
    OVERLOADED,
    SPOKEN,
    MessagesApi,
    Turn,
    break_off,
    messages_api,
    using_tool,
)
from .rig.origin import Exchange
from .rig.proxy import LOOPBACK, Proxy

API = "api.anthropic.com"
CONSOLE_KEY = "sk-ant-api03-0123-the-real-value-of-the-console-key-4567"
OAUTH_TOKEN = "sk-ant-oat01-0123-the-real-value-of-the-oauth-token-4567"
PLACEHOLDER = "sk-ant-claude-proxy-placeholder-anthropic"
OAUTH_BETA = "oauth-2025-04-20"

INJECTING = """\
allow: [preset: claude]
credentials:
  - host: api.anthropic.com
    name: anthropic
    inject: auto
    from: {from}
"""

type Asking = Callable[..., ClaudeCode]


@pytest.fixture
def claude(program: FindProgram) -> Asking:
    """Return a function that lends a Claude Code behind a proxy."""
    found = program("claude")

    def lend(proxy: Proxy, **variables: str) -> ClaudeCode:
        keys = [value for name, value in variables.items() if name == "ANTHROPIC_API_KEY"]
        return ClaudeCode.settled(found, proxy.place, {**proxy.env(), **variables}, *keys)

    return lend


@pytest.fixture
def api(internet: Internet) -> Iterator[Callable[..., None]]:
    """Return a function that writes down what the imitated API answers next."""

    def write(*turns: Turn) -> None:
        internet.site(API, MessagesApi(*turns))

    yield write
    internet.site(API, messages_api)


class Curl:
    """curl, as a client behind a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._environment = proxy.env()

    def gets(self, *words: str | Path) -> tuple[int, str]:
        """Return the status and all that curl said: heads, body, complaints."""
        command = ("curl", "-sS", "-i", "-w", "\n%{http_code}", *words)
        ran = self._proxy.place.run(*command, environment=self._environment)
        said, _, status = ran.stdout.rpartition("\n")
        return int(status), said + ran.stderr

    def posts(
        self, url: str, body: object, field: str = "x-api-key: mine", *, http: str = "--http1.1"
    ) -> tuple[int, str]:
        """Post JSON, the same way."""
        content = ("-H", "Content-Type: application/json", "--data-binary", json.dumps(body))
        return self.gets(http, url, "-H", field, *content)


def to_api(seen: Seen) -> list[Exchange]:
    """Return what reached the API, in order."""
    return [each for each in seen.exchanges if each.arrival.server_name == API]


def logins(exchanges: Sequence[Exchange]) -> set[tuple[str, str]]:
    """Return every field that authenticates, of all of them."""
    names = ("authorization", "x-api-key", "cookie", "proxy-authorization")
    return {
        (name.lower(), value)
        for exchange in exchanges
        for name, value in exchange.headers
        if name.lower() in names
    }


def check_nowhere(proxy: Proxy, *values: str, said: str = "") -> None:
    """Fail if a value is in what was said, written, or can be seen of the running proxy."""
    process = Path(f"/proc/{proxy.process.pid}")
    shown = [said, proxy.place.claude_proxy("log", "--json").stdout]
    shown += [(process / name).read_bytes().decode("latin-1") for name in ("environ", "cmdline")]
    proxy.stop()
    written = list(written_below(proxy.place.directory))
    assert proxy.statedir / "audit.sqlite3" in written
    shown += [path.read_bytes().decode("latin-1") for path in written]
    assert not [text for text in shown if any(value in text for value in values)]


def denied(proxy: Proxy, host: str = API) -> list[tuple[str, str]]:
    """Return what was denied: path and reason, oldest first."""
    rows = proxy.decisions(f"{host}:443")
    return [(row.path, row.reason) for row in rows if not row.allowed]


# --- what the client has is a placeholder


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
def test_claude_code_works_with_a_placeholder_for_a_console_key(
    start_proxy: StartProxy, internet: Internet, claude: Asking, variable: str
) -> None:
    rules = INJECTING.replace("{from}", "{env: REAL_KEY}")
    proxy = start_proxy(rules, "--verbose", REAL_KEY=CONSOLE_KEY)

    with internet.watch() as seen:
        ran = claude(proxy, **{variable: PLACEHOLDER}).prints("hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert logins(to_api(seen)) == {("x-api-key", CONSOLE_KEY)}
    row = proxy.outcome(f"{API}:443", "/v1/messages")
    assert (row.status, row.credential) == (200, "anthropic")
    check_nowhere(proxy, CONSOLE_KEY, said=ran.stdout + ran.stderr)


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"])
def test_claude_code_works_with_a_placeholder_for_an_oauth_token(
    start_proxy: StartProxy, internet: Internet, claude: Asking, tmp_path: Path, variable: str
) -> None:
    secret = tmp_path / "token"
    secret.write_text(OAUTH_TOKEN + "\n")
    secret.chmod(0o600)
    proxy = start_proxy(INJECTING.replace("{from}", f"{{file: {secret}}}"), "--verbose")

    with internet.watch() as seen:
        ran = claude(proxy, **{variable: PLACEHOLDER}).prints("hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert logins(to_api(seen)) == {("authorization", f"Bearer {OAUTH_TOKEN}")}
    (asked,) = [each for each in to_api(seen) if each.target.startswith("/v1/messages")]
    betas = [value for name, value in asked.headers if name.lower() == "anthropic-beta"]
    # Merged into the one field that the client sends, and never twice.
    assert [value.split(",").count(OAUTH_BETA) for value in betas] == [1]
    assert len(betas[0].split(",")) > 1
    check_nowhere(proxy, OAUTH_TOKEN, said=ran.stdout + ran.stderr)


def test_a_rotated_value_is_picked_up(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text(CONSOLE_KEY)
    secret.chmod(0o600)
    proxy = start_proxy(INJECTING.replace("{from}", f"{{file: {secret}}}"))
    curl = Curl(proxy)
    asking = (f"https://{API}/v1/models", "-H", f"x-api-key: {PLACEHOLDER}")
    curl.gets(*asking)
    newer = CONSOLE_KEY.replace("0123", "9876")
    secret.write_text(newer)

    def sent() -> set[tuple[str, str]]:
        with internet.watch() as seen:
            curl.gets(*asking)
        return logins(to_api(seen))

    until(lambda: sent() == {("x-api-key", newer)}, "the newer value upstream")


def test_a_source_that_fails_denies_until_it_works_again(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text(CONSOLE_KEY)
    secret.chmod(0o600)
    proxy = start_proxy(INJECTING.replace("{from}", f"{{file: {secret}}}"))
    curl = Curl(proxy)

    def status() -> int:
        return curl.gets(f"https://{API}/v1/models", "-H", f"x-api-key: {PLACEHOLDER}")[0]

    assert status() == 404  # of the imitation
    secret.chmod(0o644)
    until(lambda: status() == 403, "a denial")
    with internet.watch() as seen:
        assert status() == 403
    assert not seen.exchanges
    assert denied(proxy)[-1] == ("/v1/models", "credential-unavailable")
    secret.chmod(0o600)
    until(lambda: status() == 404, "an answer")


def test_credentials_come_and_go_with_the_allowlist(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text(CONSOLE_KEY)
    secret.chmod(0o600)
    proxy = start_proxy("allow: [preset: claude]\n")
    curl = Curl(proxy)

    def sent() -> set[tuple[str, str]]:
        with internet.watch() as seen:
            curl.gets(f"https://{API}/v1/models")
        return logins(to_api(seen))

    assert sent() == set()
    proxy.allowlist.write_text(INJECTING.replace("{from}", f"{{file: {secret}}}"))
    until(lambda: sent() == {("x-api-key", CONSOLE_KEY)}, "the value upstream")
    # One that cannot be had changes nothing, and is told.
    proxy.allowlist.write_text(INJECTING.replace("{from}", f"{{file: {secret}.not-there}}"))
    until(lambda: "not-there" in proxy.stdout() + proxy.stderr(), "the complaint")
    assert sent() == {("x-api-key", CONSOLE_KEY)}
    proxy.allowlist.write_text("allow: [preset: claude]\n")
    until(lambda: sent() == set(), "nothing put in")


def test_no_process_of_several_shows_the_value(start_proxy: StartProxy, internet: Internet) -> None:
    rules = INJECTING.replace("{from}", "{env: REAL_KEY}")
    proxy = start_proxy(rules, "--workers", "2", REAL_KEY=CONSOLE_KEY)
    curl = Curl(proxy)

    with internet.watch() as seen:
        for _ in range(8):
            curl.gets(f"https://{API}/v1/models")

    assert logins(to_api(seen)) == {("x-api-key", CONSOLE_KEY)}
    assert len(to_api(seen)) == 8
    first = proxy.process.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    assert len(children) == 2
    for pid in (first, *children):
        assert CONSOLE_KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    check_nowhere(proxy, CONSOLE_KEY)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_command_that_hangs_ends_with_the_proxy(
    start_proxy: StartProxy, tmp_path: Path, workers: str
) -> None:
    script, hangs, pids = tmp_path / "give", tmp_path / "hangs", tmp_path / "pids"
    text = f"[ ! -e {hangs} ] || {{ echo $$ >>{pids}; sleep 1000; }}"
    script.write_text(f"#!/bin/sh\n{text}\necho {CONSOLE_KEY}\n")
    script.chmod(0o700)
    rules = INJECTING.replace("{from}", f"{{command: [{script}], refresh: 1s}}")
    proxy = start_proxy(rules, "--workers", workers)
    curl = Curl(proxy)
    hangs.touch()

    def is_asked_again() -> bool:
        curl.gets(f"https://{API}/v1/models")
        return pids.exists() and bool(pids.read_text())

    until(is_asked_again, "the command to be asked again")
    proxy.stop()

    begun = [int(pid) for pid in pids.read_text().split()]
    until(lambda: all(map(has_ended, begun)), "the command's end")


def test_a_request_of_twenty_megabytes_is_judged_and_goes_out_with_the_value(
    start_proxy: StartProxy, internet: Internet, claude: Asking
) -> None:
    rules = INJECTING.replace("{from}", "{env: REAL_KEY}")
    proxy = start_proxy(rules, REAL_KEY=CONSOLE_KEY)

    with internet.watch() as seen:
        ran = claude(proxy, ANTHROPIC_AUTH_TOKEN=PLACEHOLDER).prints_with_document(15_000_000)

    assert (ran.returncode, SPOKEN in ran.stdout) == (0, True), ran.stdout + ran.stderr
    (asked,) = [each for each in to_api(seen) if each.target.startswith("/v1/messages")]
    assert asked.body_bytes > 20_000_000
    assert asked.complete
    assert logins([asked]) == {("x-api-key", CONSOLE_KEY)}


def test_claude_code_gets_over_an_api_that_is_not_well(
    start_proxy: StartProxy, internet: Internet, claude: Asking, api: Callable[..., None]
) -> None:
    rules = INJECTING.replace("{from}", "{env: REAL_KEY}")
    proxy = start_proxy(rules, REAL_KEY=CONSOLE_KEY)
    api(BUSY, BROKEN, OVERLOADED, break_off)

    with internet.watch() as seen:
        ran = claude(proxy, ANTHROPIC_AUTH_TOKEN=PLACEHOLDER).prints("hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    tries = [each for each in to_api(seen) if each.target.startswith("/v1/messages")]
    assert len(tries) == 5
    assert logins(to_api(seen)) == {("x-api-key", CONSOLE_KEY)}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([f"https://{API}/v1/models", "-H", "x-api-key: {other}"], "foreign-credential"),
        ([f"https://{API}/v1/models", "-H", "Cookie: sessionKey={other}"], "foreign-credential"),
        ([f"https://{API}/v1/models?api_key={{other}}"], "foreign-credential"),
        (["https://origin.test/", "-H", "x-api-key: {placeholder}"], "placeholder-misplaced"),
        (["https://origin.test/", "-u", "me:{placeholder}"], "placeholder-misplaced"),
        ([f"https://{API}/v1/models?key={{placeholder}}"], "placeholder-misplaced"),
        ([f"http://{API}/v1/models", "-H", "x-api-key: {placeholder}"], "placeholder-misplaced"),
    ],
)
def test_neither_another_key_nor_a_misplaced_placeholder_goes_out(
    start_proxy: StartProxy, internet: Internet, words: list[str], reason: str
) -> None:
    rules = INJECTING.replace("{from}", "{env: REAL_KEY}").replace(
        "[preset: claude]", f"[{API}, origin.test, {{host: {API}, scheme: http, ports: [80]}}]"
    )
    proxy = start_proxy(rules, REAL_KEY=CONSOLE_KEY)
    other = CONSOLE_KEY.replace("0123", "9876")

    with internet.watch() as seen:
        given = [word.format(other=other, placeholder=PLACEHOLDER) for word in words]
        status, said = Curl(proxy).gets(*given)

    assert status == 403, said
    assert reason in said
    assert not seen.exchanges
    assert reason in {row.reason for row in proxy.audit("--denied")}
    assert CONSOLE_KEY not in said
    check_nowhere(proxy, CONSOLE_KEY, other)


# --- an answer that tells the value

VALUE = "the/real+value=of-a-login-0123456789abcdef"
IN_BASE64, IN_HEXADECIMAL = b64encode(VALUE.encode()).decode(), VALUE.encode().hex()
FORMS = (
    *(VALUE, "the%2Freal%2Bvalue", "the\\/real+value", "real\\u002Bvalue", "real&#43;value"),
    *(IN_BASE64[:32], IN_HEXADECIMAL[:32]),
)
ECHOING = """\
allow: [leaky.test, h2.test, origin.test]
credentials:
  - hosts: [leaky.test, h2.test, origin.test]
    name: leaky
    inject: bearer
    from: {env: REAL_KEY}
"""


@pytest.fixture
def leaky(start_proxy: StartProxy, internet: Internet) -> Proxy:
    """A proxy that puts a login in for hosts that tell everybody what it is."""
    internet.site("leaky.test", leaky_host)
    return start_proxy(ECHOING, "--verbose", REAL_KEY=VALUE)


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_an_answer_that_tells_the_value_is_cut_off(
    leaky: Proxy, internet: Internet, tmp_path: Path, http: str
) -> None:
    curl, told = Curl(leaky), dict[str, str]()
    with internet.watch() as seen:
        for way in WAYS:
            body = tmp_path / way
            url = f"https://leaky.test/{way}"
            _, said = curl.gets(http, "--compressed", "-i", "-o", body, url)
            told[way] = said + (body.read_text("latin-1") if body.exists() else "")

    assert logins(seen.exchanges) == {("authorization", f"Bearer {VALUE}")}
    assert {exchange.header("Accept-Encoding") for exchange in seen.exchanges} == {"identity"}
    assert not {way: form for way in WAYS for form in FORMS if form in told[way]}
    errors = {way: leaky.outcome("leaky.test:443", f"/{way}").error for way in WAYS}
    expected: dict[str, str | None] = dict.fromkeys(WAYS, "credential-echoed")
    expected["brotli"] = "answer-unreadable"
    assert errors == expected
    check_nowhere(leaky, VALUE, said="".join(told.values()))


def test_an_origin_that_speaks_http2_does_not_tell_the_value_either(
    leaky: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        _, said = Curl(leaky).gets("--http2", "https://h2.test/echo")

    assert [exchange.version for exchange in seen.exchanges] == ["HTTP/2"]
    assert logins(seen.exchanges) == {("authorization", f"Bearer {VALUE}")}
    assert leaky.outcome("h2.test:443", "/echo").error == "credential-echoed"
    check_nowhere(leaky, VALUE, said=said)


def test_an_answer_that_is_watched_comes_event_by_event(leaky: Proxy, internet: Internet) -> None:
    with leaky.tunnel("origin.test:443") as tunnel:
        tunnel.send(b"GET /events/watched/3 HTTP/1.1\r\nHost: origin.test\r\n\r\n")
        while tunnel.read_line() != b"\r\n":
            pass
        for number in range(3):
            # The origin sends no other before this one is read.
            internet.origin.gate("watched").open()
            size = int(tunnel.read_line(), 16)
            assert tunnel.read_some(size + 2) == b"data: %d\n\n\r\n" % number


# --- the client keeps its own login, and no other passes

PINNING = """\
allow: [api.anthropic.com]
credentials:
  - host: api.anthropic.com
    name: anthropic
    pin: learn
"""
MINE = "sk-ant-api03-my-own-key-0123456789abcdefghij"
THEIRS = "sk-ant-api03-the-attackers-key-zyxwvut9876543210"
MESSAGE = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "secrets"}]}
EXFILTRATION = ["/v1/messages?beta=true", "/v1/files", "/v1/messages/batches", "/v1/skills", "/any"]


def test_a_run_with_another_key_is_denied_for_good_and_until_it_is_forgotten(
    start_proxy: StartProxy, internet: Internet, claude: Asking
) -> None:
    proxy = start_proxy(PINNING)
    mine, theirs = claude(proxy, ANTHROPIC_API_KEY=MINE), claude(proxy, ANTHROPIC_API_KEY=THEIRS)

    # The first use is learned.
    ran = mine.prints("hi")
    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr

    with internet.watch() as seen:
        ran = theirs.prints("hi")
    assert (ran.returncode, SPOKEN in ran.stdout) == (1, False), ran.stdout
    assert not [value for _, value in logins(to_api(seen)) if THEIRS in value]
    assert not [each for each in to_api(seen) if each.target.startswith("/v1/messages")]
    assert ("/v1/messages", "foreign-credential") in denied(proxy)

    # What was learned outlives the proxy.
    proxy.restart()
    ran = mine.prints("hi")
    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert theirs.prints("hi").returncode == 1

    ran = proxy.place.claude_proxy("credentials", "forget", "anthropic")
    assert ran.returncode == 0, ran.stderr
    ran = until_it_answers(theirs)
    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert mine.prints("hi").returncode == 1
    check_nowhere(proxy, MINE, THEIRS)


def test_what_one_worker_has_learned_the_others_know(
    start_proxy: StartProxy, internet: Internet
) -> None:
    proxy = start_proxy(PINNING, "--workers", "2")
    curl = Curl(proxy)
    status, said = curl.posts(f"https://{API}/v1/messages", MESSAGE, f"x-api-key: {MINE}")
    assert status == 200, said

    with internet.watch() as seen:
        answers = [
            curl.posts(f"https://{API}/v1/messages", MESSAGE, f"x-api-key: {THEIRS}")[0]
            for _ in range(8)
        ]

    assert set(answers) == {403}
    assert not seen.exchanges


def until_it_answers(claude_code: ClaudeCode) -> "subprocess.CompletedProcess[str]":
    """Return its answer, as soon as the proxy has seen what has changed on the disk."""
    found: list[subprocess.CompletedProcess[str]] = []

    def answers() -> bool:
        found.append(claude_code.prints("hi"))
        return found[-1].returncode == 0

    until(answers, "an answer")
    return found[-1]


@pytest.mark.parametrize("way", ["--http1.1", "--http2", "--proxy socks5h://{authority}"])
def test_on_no_path_does_another_key_reach_the_api(
    start_proxy: StartProxy, internet: Internet, way: str
) -> None:
    proxy = start_proxy(PINNING)
    curl, words = Curl(proxy), way.format(authority=f"{LOOPBACK}:{proxy.port}").split()
    status, said = curl.posts(f"https://{API}/v1/messages", MESSAGE, f"x-api-key: {MINE}")
    assert status == 200, said

    with internet.watch() as seen:
        answers = [
            curl.gets(*words, f"https://{API}{path}", "-H", field, "--data", "secrets")
            for field in (f"x-api-key: {THEIRS}", f"Authorization: Bearer {THEIRS}")
            for path in EXFILTRATION
        ]

    assert {status for status, _ in answers} == {403}
    assert not seen.exchanges
    paths = [path.partition("?")[0] for path in EXFILTRATION]
    assert denied(proxy) == [(path, "foreign-credential") for path in (*paths, *paths)]
    check_nowhere(proxy, THEIRS)


# --- what a request for a message may ask for, under the list that users get when they write none


@pytest.fixture
def shipped(start_proxy: StartProxy) -> Proxy:
    """A proxy with the shipped list."""
    return start_proxy(None)


def test_claude_code_uses_its_tools_under_the_shipped_list(
    shipped: Proxy, claude: Asking, api: Callable[..., None], internet: Internet
) -> None:
    claude_code = claude(shipped, ANTHROPIC_API_KEY=MINE)
    (claude_code.project / "notes").write_text("the sky is green\n")
    read = {"file_path": str(claude_code.project / "notes")}
    api(using_tool("Bash", {"command": "echo it ran >made"}), using_tool("Read", read))

    with internet.watch() as seen:
        ran = claude_code.prints("hi", "--allowedTools", "Bash", "Read")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert (claude_code.project / "made").read_text() == "it ran\n"
    asked = [each for each in to_api(seen) if each.target.startswith("/v1/messages")]
    assert len(asked) == 3
    assert b"the sky is green" in asked[-1].body
    assert not [row for row in shipped.decisions(f"{API}:443") if not row.allowed]


def saying(kind: str) -> dict[str, object]:
    """Return a message with something that the API would have to fetch."""
    block = {"type": kind, "source": {"type": "url", "url": "https://denied.test/collect"}}
    return {"messages": [{"role": "user", "content": [block]}]}


SERVER = {"type": "url", "url": "https://denied.test/mcp", "name": "a"}
WISHES: list[tuple[dict[str, object], str]] = [
    ({"mcp_servers": [SERVER]}, "mcp-server-not-allowed"),
    ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "server-tool-not-allowed"),
    (saying("image"), "source-not-allowed"),
    (saying("document"), "source-not-allowed"),
]


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_the_api_is_not_asked_to_reach_places_for_its_client(
    shipped: Proxy, internet: Internet, http: str
) -> None:
    curl = Curl(shipped)
    with internet.watch() as seen:
        answers = [
            curl.posts(f"https://{API}/v1/messages?beta=true", {**MESSAGE, **wish}, http=http)
            for wish, _ in WISHES
        ]

    assert not seen.exchanges
    assert {status for status, _ in answers} == {403}
    reasons = [reason for _, reason in WISHES]
    assert all(reason in said for reason, (_, said) in zip(reasons, answers, strict=True))
    assert denied(shipped) == [("/v1/messages", reason) for reason in reasons]


def test_the_api_stores_nothing_for_its_client(shipped: Proxy, internet: Internet) -> None:
    curl = Curl(shipped)
    paths = ["/v1/files", "/v1/messages/batches", "/v1/skills"]
    with internet.watch() as seen:
        answers = [curl.posts(f"https://{API}{path}", MESSAGE) for path in paths]

    assert not seen.exchanges
    assert {status for status, _ in answers} == {403}
    assert denied(shipped) == [(path, "endpoint-not-allowed") for path in paths]


# --- git

FORGE = """\
allow: [git.test]
credentials:
  - host: git.test
    inject: basic
    user: owner
    from: {env: GIT_PASSWORD}
"""
PASSWORD = "the-real-password-0123456789"


class Repository:
    """A repository that a forge shows to nobody but its owner."""

    url = "https://git.test/owner/project.git"

    def __init__(self, proxy: Proxy, root: Path) -> None:
        self._proxy = proxy
        self._bare = root / "owner" / "project.git"
        names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.test"}
        names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.test"}
        self._environment = {**proxy.env(), **names, "GIT_TERMINAL_PROMPT": "0"}
        first = root / "first"
        self.git("init", "--quiet", "--initial-branch=main", first)
        self.git("-C", first, "commit", "--quiet", "--allow-empty", "-m", "first")
        self.git("clone", "--quiet", "--bare", first, self._bare)
        self.git("-C", self._bare, "config", "http.receivepack", "true")

    def git(self, *words: str | Path) -> str:
        """Run git, which must succeed; return all that it said."""
        ran = self.tried(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    def tried(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run git, whatever comes of it."""
        return self._proxy.place.run("git", *words, environment=self._environment)

    def head(self) -> str:
        """Return the commit that the forge has."""
        return self.git("-C", self._bare, "rev-parse", "main")


@pytest.fixture
def forge(start_proxy: StartProxy, internet: Internet, tmp_path: Path) -> tuple[Proxy, Repository]:
    """A forge that wants a login, and a proxy that has it."""
    root = tmp_path / "forge"
    internet.site("git.test", git_host(root, login=f"owner:{PASSWORD}"))
    proxy = start_proxy(FORGE, "--verbose", GIT_PASSWORD=PASSWORD)
    return proxy, Repository(proxy, root)


def test_git_clones_and_pushes_by_a_login_that_it_does_not_have(
    forge: tuple[Proxy, Repository], tmp_path: Path
) -> None:
    proxy, repository = forge
    clone, before = tmp_path / "clone", repository.head()

    said = repository.git("clone", repository.url, clone)
    said += repository.git("-C", clone, "commit", "--allow-empty", "-m", "second")
    said += repository.git("-C", clone, "push", "origin", "main")

    assert repository.head() != before

    def finished() -> list[Row]:
        found = [row for row in proxy.decisions("git.test:443") if row.method in {"GET", "POST"}]
        return found if all(row.status is not None for row in found) else []

    # The outcome of the last request is written after git has its response.
    rows = until(finished, "the outcomes of git's requests")
    assert {(row.credential, row.status) for row in rows} == {("git.test", 200)}
    check_nowhere(proxy, PASSWORD, said=said)


def test_git_cannot_push_by_another_login(
    forge: tuple[Proxy, Repository], internet: Internet, tmp_path: Path
) -> None:
    proxy, repository = forge
    clone, before = tmp_path / "clone", repository.head()
    repository.git("clone", "--quiet", repository.url, clone)
    repository.git("-C", clone, "commit", "--quiet", "--allow-empty", "-m", "second")
    login = "http.extraHeader=Authorization: Basic c29tZWJvZHk6ZWxzZQ=="

    with internet.watch() as seen:
        ran = repository.tried("-C", clone, "-c", login, "push", "origin", "main")

    assert (ran.returncode != 0, "403" in ran.stderr) == (True, True), ran.stderr
    assert repository.head() == before
    assert not seen.exchanges
    assert {reason for _, reason in denied(proxy, "git.test")} == {"foreign-credential"}
