"""The real Claude Code in a container with nothing but `lo`: it answers, and stays as it was."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import Launch
from .rig.claude_code import PROMPT
from .rig.containers import Containers
from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet, Seen
from .rig.messages_api import SPOKEN, MessagesApi, Turn, messages_api, using_tool
from .rig.origin import Exchange
from .rig.terminal import Terminal

API = "api.anthropic.com"
KEY = "sk-ant-api03-canary-of-the-owners-9b1f0c6e"
PLACEHOLDER = "sk-ant-claude-proxy-placeholder-anthropic"
HOSTS = f"allow: [{API}, origin.test]\n"
INJECTING = f"""{HOSTS}credentials:
  - {{host: {API}, name: anthropic, inject: auto, from: {{env: MY_KEY}}}}
"""
PASSWD = b"root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n"
GATEWAY = ("--gateway", "--gateway-provider", "anthropic")
CARRIERS = ("x-api-key", "authorization", "cookie")
LOOK = """
ip -o link | cut -d: -f2 | tr -d ' '
env
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'
cat /run/claude-proxy/* 2>/dev/null
"""
ROOTS = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    programs = [program(name) for name in ("claude", "bash", "curl", "git")]
    files = [("/etc/passwd", PASSWD), (ROOTS, b"")]
    storage.add(image_of(program("busybox"), programs, files), "agent")
    yield storage
    storage.close()


@pytest.fixture
def containers(launch: Launch, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(launch(INJECTING), storage)
    yield containers
    containers("rm", "--all", "--force")


def run(
    containers: Containers, *words: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a container that is removed at its end."""
    return containers("run", "--image", "agent", "--rm", *words, **(variables or {"MY_KEY": KEY}))


def messages(seen: Seen) -> list[Exchange]:
    return [one for one in seen.exchanges if one.target.startswith("/v1/messages?")]


def sent_credentials(seen: Seen) -> set[tuple[str, str]]:
    """Return everything that authenticated at the API."""
    found = ((name, one.header(name)) for one in seen.exchanges for name in CARRIERS)
    return {(name, value) for name, value in found if value is not None}


@pytest.fixture
def answers(internet: Internet) -> Iterator[Callable[..., None]]:
    """Return a function that writes down what the imitated API answers next."""

    def write(*turns: Turn) -> None:
        internet.site(API, MessagesApi(*turns))

    yield write
    internet.site(API, messages_api)


def test_claude_code_answers_with_nothing_but_loopback_around_it_and_no_key(
    containers: Containers, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = run(containers, "--name", "asking", "--", "claude", "-p", "hi")
        looked = run(containers, "--preset", "claude", "--", "sh", "-c", LOOK)

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert messages(seen)
    assert {arrival.server_name for arrival in seen.arrivals} == {API}
    assert sent_credentials(seen) == {("x-api-key", KEY)}
    assert looked.stdout.startswith("lo\n")
    assert PLACEHOLDER in looked.stdout
    assert KEY not in looked.stdout
    # It sends no telemetry, so that nothing had to be denied.
    assert [row.host for row in containers.runs.audit("--denied")] == []
    row = next(row for row in containers.runs.audit("--host", API) if row.path == "/v1/messages")
    assert (row.status, row.credential, "asking" in row.client) == (200, "anthropic", True)


def test_claude_code_answers_through_the_gateway_of_its_container(
    containers: Containers, internet: Internet
) -> None:
    containers.runs.allowlist.write_text(HOSTS)
    with internet.watch() as seen:
        ran = run(containers, *GATEWAY, "--", "claude", "-p", "hi", PROXY_API_KEY=KEY)

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert sent_credentials(seen) == {("x-api-key", KEY)}


@pytest.mark.parametrize("options", [[], ["--yolo"]], ids=["asking", "yolo"])
def test_only_with_yolo_does_claude_code_use_a_tool_without_asking(
    containers: Containers, internet: Internet, answers: Callable[..., None], options: Sequence[str]
) -> None:
    answers(
        using_tool("Bash", {"command": "curl -sS https://origin.test/from-a-tool; id -u >made"})
    )
    os.chown(containers.runs.project, 1000, 1000)

    with internet.watch() as seen:
        ran = run(containers, *options, "--", "claude", "-p", "hi")

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    made = containers.runs.project / "made"
    assert made.exists() == bool(options)
    assert ("/from-a-tool" in seen.targets()) == bool(options)
    if options:
        assert made.read_text() == "1000\n"


def test_claude_code_continues_its_conversation_after_stop_and_start(
    containers: Containers, internet: Internet
) -> None:
    started = ("run", "--image", "agent", "--name", "kept", "--preset", "claude", "--detach")
    containers(*started, "--", "sleep", "1000", MY_KEY=KEY)
    first = containers("exec", "kept", "--", "claude", "-p", "a word to remember")
    containers("stop", "kept", "--time", "0")
    again = containers("start", "kept", MY_KEY=KEY)
    assert again.returncode == 0, again.stderr

    with internet.watch() as seen:
        ran = containers("exec", "kept", "--", "claude", "--continue", "-p", "and now")

    assert (first.stdout.strip(), first.returncode) == (SPOKEN, 0), first.stderr
    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    (asked,) = messages(seen)
    assert b"a word to remember" in asked.body
    assert sent_credentials(seen) == {("x-api-key", KEY)}


# --- at a terminal

# Past its first questions, in a new home.
ANSWERED = {
    "hasCompletedOnboarding": True,
    "customApiKeyResponses": {"approved": [PLACEHOLDER[-20:]], "rejected": []},
    "theme": "dark",
    "projects": {"/workspace": {"hasTrustDialogAccepted": True}},
}


AT_WORK = "esc to interrupt"  # else Ctrl-C interrupts, and is no wish to leave


@pytest.fixture
def terminal(
    containers: Containers, tmp_path: Path, program: FindProgram
) -> Iterator[Callable[..., Terminal]]:
    """Return a function that opens Claude Code in the container "talk", in a terminal."""
    program("tmux")
    terminal = Terminal(tmp_path / "tmux", containers.environment(MY_KEY=KEY))

    def talk(*words: str) -> Terminal:
        run = containers.words("run", "--image", "agent", "--name", "talk", "--", "claude", *words)
        terminal.start(containers.argv(run))
        terminal.shows(PROMPT)
        return terminal

    write = ("run", "--image", "agent", "--name", "talk", "--", "sh", "-c", "cat >~/.claude.json")
    wrote = containers(*write, given=json.dumps(ANSWERED), MY_KEY=KEY)
    assert wrote.returncode == 0, wrote.stderr
    yield talk
    terminal.close()


def test_claude_code_holds_a_conversation_at_a_terminal_and_continues_it_in_the_next_container(
    containers: Containers, internet: Internet, terminal: Callable[..., Terminal]
) -> None:
    window = terminal()
    window.resize(90, 30)
    until(
        lambda: any(len(line) == 90 for line in window.screen().splitlines()),
        "a line as wide as the new window",
    )
    window.type("what is the answer")
    window.shows(SPOKEN)
    window.shows_no_more(AT_WORK)
    window.press("C-c")
    window.shows("again to exit")
    window.type("/exit")
    until(window.ended, f"the end of Claude Code:\n{window.screen()}")
    assert containers.listed() == {"talk": "stopped"}

    with internet.watch() as seen:
        terminal("--continue").shows(SPOKEN)
        window.type("and why is that")
        window.shows(SPOKEN, 2)
        window.shows_no_more(AT_WORK)
        window.press("C-c")
        window.shows("again to exit")
        window.press("C-c")
        until(window.ended, f"the end of Claude Code:\n{window.screen()}")

    bodies = [one.body for one in messages(seen)]
    assert any(b"what is the answer" in body and b"and why is that" in body for body in bodies)
    assert sent_credentials(seen) == {("x-api-key", KEY)}
