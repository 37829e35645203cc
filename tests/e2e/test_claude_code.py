"""The real Claude Code works through the proxy, and only through it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.claude_code import PROMPT
from .rig.internet import Internet
from .rig.messages_api import SPOKEN, MessagesApi, messages_api, using_tool
from .rig.origin import Exchange, Talk
from .rig.proxy import Proxy
from .rig.terminal import Terminal

API = "api.anthropic.com"
TELEMETRY = "http-intake.logs.us5.datadoghq.com"
KEY = "sk-ant-api03-imitation"  # the imitated service takes any

# What the shipped list may lead this client to; everything else must not even be looked up.
ALLOWED_NAMES = {
    API,
    "platform.claude.com",
    "claude.ai",
    "claude.com",
    "code.claude.com",
    "mcp-proxy.anthropic.com",
    "downloads.claude.ai",
    "raw.githubusercontent.com",
}


def strangers(names: Iterable[str]) -> set[str]:
    """Return those names that the list does not allow."""
    # Plug-ins come from the registry of npm, which is allowed with all its subdomains.
    return {name for name in names if not name.endswith(".npmjs.org")} - ALLOWED_NAMES


@pytest.fixture
def shipped(start_proxy: StartProxy, internet: Internet) -> Proxy:
    """A proxy with the list that users get when they write none."""
    # An escape would succeed: the telemetry service is there and answers.
    internet.site(TELEMETRY)
    return start_proxy(None)


def environment(proxy: Proxy) -> dict[str, str]:
    """Return what the client is started with: `claude-proxy env`, and a placeholder token."""
    return {**proxy.env(), "ANTHROPIC_API_KEY": KEY}


@pytest.fixture
def project(shipped: Proxy) -> Path:
    """A directory that Claude Code has been told to trust, past its first-run questions."""
    project = shipped.place.directory / "project"
    project.mkdir()
    settings = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "theme": "dark",
        "projects": {str(project): {"hasTrustDialogAccepted": True}},
    }
    (shipped.place.home / ".claude.json").write_text(json.dumps(settings))
    return project


@pytest.fixture
def terminal(shipped: Proxy, tmp_path: Path, program: FindProgram) -> Iterator[Terminal]:
    """A terminal whose commands have the client's environment."""
    program("tmux")
    terminal = Terminal(tmp_path / "tmux", environment(shipped))
    yield terminal
    terminal.close()


def test_claude_code_answers_a_prompt(
    shipped: Proxy, project: Path, internet: Internet, program: FindProgram
) -> None:
    with internet.watch() as seen:
        ran = shipped.place.run(
            program("claude"), "-p", "hi", environment=environment(shipped), cwd=project
        )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    asked = [exchange for exchange in seen.exchanges if exchange.target.startswith("/v1/messages")]
    assert [(exchange.method, exchange.target) for exchange in asked] == [
        ("POST", "/v1/messages?beta=true")
    ]
    assert asked[0].header("x-api-key") == KEY
    row = shipped.outcome(f"{API}:443", "/v1/messages")
    assert (row.allowed, row.method, row.status, row.reason) == (True, "POST", 200, "rule-matched")


def test_telemetry_is_denied_in_silence_and_claude_code_still_answers(
    shipped: Proxy, project: Path, internet: Internet, program: FindProgram
) -> None:
    with internet.watch() as seen:
        ran = shipped.place.run(
            program("claude"), "-p", "hi", environment=environment(shipped), cwd=project
        )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    denied = shipped.decisions(f"{TELEMETRY}:443")
    assert {(row.allowed, row.method, row.reason) for row in denied} == {
        (False, "CONNECT", "no-rule")
    }
    assert not strangers(seen.names)
    assert not strangers(arrival.server_name or "" for arrival in seen.arrivals)


def test_claude_code_holds_a_conversation_in_a_terminal(
    shipped: Proxy, project: Path, internet: Internet, terminal: Terminal, program: FindProgram
) -> None:
    with internet.watch() as seen:
        terminal.start(internet.host.argv([program("claude")], cwd=project))
        until(lambda: PROMPT in terminal.screen(), "Claude Code's prompt")
        terminal.type("what is the answer")
        until(lambda: SPOKEN in terminal.screen(), f"the answer:\n{terminal.screen()}")
        terminal.type("/exit")
        until(terminal.ended, "the end of Claude Code")

    questions = [exchange for exchange in seen.exchanges if b"what is the answer" in exchange.body]
    assert questions
    assert {exchange.target for exchange in questions} == {"/v1/messages?beta=true"}
    assert not strangers(arrival.server_name or "" for arrival in seen.arrivals)
    assert shipped.outcome(f"{API}:443", "/v1/messages").status == 200


# --- its tools, under the narrowing that the shipped list has

PAGE = "https://code.claude.com/docs/en/overview"
# What each is to do, and what the API is told then.
TOOLS: dict[str, tuple[Mapping[str, object], bytes]] = {
    "Bash": ({"command": "echo it r''an"}, b"it ran"),
    "Read": ({"file_path": "/proc/version"}, b"Linux version"),
    "WebSearch": ({"query": "what is the answer"}, b'"type":"web_search_'),
    "WebFetch": ({"url": PAGE, "prompt": "what is the answer"}, b"Web page content"),
    "Agent": (
        {"description": "ask", "prompt": "of an agent", "subagent_type": "general-purpose"},
        b'"text":"of an agent"',
    ),
}


@pytest.fixture
def answers(internet: Internet) -> Iterator[Callable[[MessagesApi], None]]:
    """Return a function that puts another imitated API in the place of the usual one."""

    def put(api: MessagesApi) -> None:
        def site(exchange: Exchange, talk: Talk) -> None:
            if exchange.target.startswith("/api/web/domain_info?"):
                kind = "Content-Type: application/json"
                talk.answer("200 OK", b'{"domain": "code.claude.com", "can_fetch": true}', kind)
            else:
                api(exchange, talk)

        internet.site(API, site)

    yield put
    internet.site(API, messages_api)


@pytest.mark.parametrize("tool", TOOLS)
def test_claude_code_uses_each_of_its_tools(
    shipped: Proxy,
    project: Path,
    internet: Internet,
    program: FindProgram,
    answers: Callable[[MessagesApi], None],
    tool: str,
) -> None:
    given, told = TOOLS[tool]
    answers(MessagesApi(using_tool(tool, given)))
    internet.site("code.claude.com")

    with internet.watch() as seen:
        words = (program("claude"), "-p", "hi", "--allowedTools", tool)
        ran = shipped.place.run(*words, environment=environment(shipped), cwd=project)

    # What an agent says in the background is printed as well.
    assert (set(ran.stdout.split("\n")) - {""}, ran.returncode) == ({SPOKEN}, 0), ran.stderr
    assert any(told in exchange.body for exchange in seen.exchanges)
    results = list(tool_results(seen.exchanges))
    assert results
    assert not [result for result in results if result.get("is_error")]
    decisions = shipped.decisions(f"{API}:443")
    assert [(row.path, row.reason) for row in decisions if not row.allowed] == []


def tool_results(exchanges: Iterable[Exchange]) -> Iterator[dict[str, object]]:
    """Yield what the client told the API about the uses of tools."""
    for exchange in exchanges:
        if exchange.target.startswith("/v1/messages?"):
            for message in json.loads(exchange.body)["messages"]:
                blocks = message["content"] if isinstance(message["content"], list) else []
                yield from (block for block in blocks if block["type"] == "tool_result")
