"""What asks waits in silence until its owner has answered, and then goes on or is denied."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError
from .rig.internet import Internet
from .rig.messages_api import SPOKEN, MessagesApi, messages_api, using_tool
from .rig.origin import Exchange, Talk
from .rig.proxy import Proxy
from .rig.terminal import Terminal

KEY = "sk-ant-api03-imitation"  # the imitated service takes any
NEW = "denied.test"
LIST = f"""\
allow:
  - preset: claude
  - {{host: {NEW}, ask: true}}
"""
API = "api.anthropic.com"


@pytest.fixture
def runtime(tmp_path: Path) -> str:
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700)
    return str(path)


@pytest.fixture
def asking(start_proxy: StartProxy, runtime: str) -> Proxy:
    """A proxy with two workers that asks about one host."""
    return start_proxy(LIST, "--workers", "2", "--ask-timeout", "10m", XDG_RUNTIME_DIR=runtime)


def questions(proxy: Proxy, runtime: str) -> list[dict[str, Any]]:
    ran = proxy.place.claude_proxy("ask", "--list", "--json", XDG_RUNTIME_DIR=runtime)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def answer(proxy: Proxy, runtime: str, question: Mapping[str, Any], words: str) -> None:
    number = str(question["number"])
    ran = proxy.place.claude_proxy("ask", "--answer", number, words, XDG_RUNTIME_DIR=runtime)
    assert ran.returncode == 0, ran.stderr


def status(proxy: Proxy, path: str = "/") -> int:
    try:
        with proxy.tunnel(f"{NEW}:443") as tunnel:
            return tunnel.get(path).status
    except CannotConnectError as error:
        return error.answer.status


def test_many_tries_are_one_question_and_nothing_leaves_before_its_answer(
    start_proxy: StartProxy, internet: Internet, runtime: str
) -> None:
    proxy = start_proxy(LIST, "--ask-timeout", "10m", XDG_RUNTIME_DIR=runtime)
    with internet.watch() as seen, ThreadPoolExecutor(50) as pool:
        tries = [pool.submit(status, proxy) for _ in range(50)]
        until(lambda: [each["waiting"] for each in questions(proxy, runtime)] == [50])
        assert (list(seen.names), list(seen.arrivals)) == ([], [])

        answer(proxy, runtime, questions(proxy, runtime)[0], "50")

        assert Counter(each.result() for each in tries) == {200: 50}
    assert {row.rule_source for row in proxy.decisions(f"{NEW}:443") if row.path} == {"grant 1"}


def test_each_path_that_waits_for_an_answer_is_shown(start_proxy: StartProxy, runtime: str) -> None:
    proxy = start_proxy(LIST, "--ask-timeout", "10m", XDG_RUNTIME_DIR=runtime)
    paths = [f"/{number}" for number in range(7)]
    with ThreadPoolExecutor(7) as pool:
        tries = [pool.submit(status, proxy, path) for path in paths]
        until(lambda: [each["waiting"] for each in questions(proxy, runtime)] == [7])

        (question,) = questions(proxy, runtime)
        shown = proxy.place.claude_proxy("ask", "--list", XDG_RUNTIME_DIR=runtime).stdout
        answer(proxy, runtime, question, "once")

        assert Counter(each.result() for each in tries) == {200: 7}
    listed = [each["path"] for each in question["requests"]]
    assert (len(set(listed) & set(paths)), question["more_requests"]) == (5, 2)
    assert all(path in shown for path in listed)
    assert "and 2 more" in shown


def test_what_is_refused_is_refused_in_all_workers(asking: Proxy, runtime: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(status, asking)
        (question,) = until(lambda: questions(asking, runtime))

        answer(asking, runtime, question, "never")

        assert one.result() == 403
    assert {status(asking) for _ in range(12)} == {403}
    assert {row.reason for row in asking.decisions(f"{NEW}:443") if row.path} == {"owner-refused"}


def test_a_late_answer_serves_the_next_try(
    start_proxy: StartProxy, internet: Internet, runtime: str
) -> None:
    proxy = start_proxy(LIST, "--ask-timeout", "1s", XDG_RUNTIME_DIR=runtime)
    with internet.watch() as seen:
        assert status(proxy) == 403
    assert list(seen.names) == []

    (question,) = questions(proxy, runtime)
    answer(proxy, runtime, question, "once")

    assert status(proxy) == 200
    assert [row.reason for row in proxy.decisions(f"{NEW}:443") if row.path] == [
        "not-answered",
        "answered",
    ]


# --- the real Claude Code, answered in a second terminal

TOOLS: dict[str, tuple[Mapping[str, object], bytes]] = {
    "Bash": (
        {"command": f"curl -sS -o /dev/null -w 'got %{{http_code}}' https://{NEW}/"},
        b"got 200",
    ),
    "WebFetch": ({"url": f"https://{NEW}/", "prompt": "what is there"}, b"Web page content"),
}


@pytest.fixture
def terminal(
    asking: Proxy, runtime: str, tmp_path: Path, program: FindProgram
) -> Iterator[Terminal]:
    """A terminal in which the owner answers."""
    program("tmux")
    terminal = Terminal(tmp_path / "tmux", asking.place.environment(XDG_RUNTIME_DIR=runtime))
    yield terminal
    terminal.close()


@pytest.mark.parametrize("tool", TOOLS)
def test_claude_code_goes_on_once_its_owner_has_answered_in_another_terminal(
    asking: Proxy, internet: Internet, terminal: Terminal, program: FindProgram, tool: str
) -> None:
    given, told = TOOLS[tool]
    api = MessagesApi(using_tool(tool, given))

    def site(exchange: Exchange, talk: Talk) -> None:
        if exchange.target.startswith("/api/web/domain_info?"):
            kind = "Content-Type: application/json"
            talk.answer("200 OK", b'{"domain": "denied.test", "can_fetch": true}', kind)
        else:
            api(exchange, talk)

    project = asking.place.directory / "project"
    project.mkdir()
    internet.site(API, site)
    terminal.start([sys.executable, "-m", "claude_proxy", "ask"])
    terminal.shows("Waiting for questions of 1 proxy")
    words = (program("claude"), "-p", "hi", "--allowedTools", tool)
    environment = {**asking.env(), "ANTHROPIC_API_KEY": KEY}
    try:
        with internet.watch() as seen, ThreadPoolExecutor(1) as pool:
            running = pool.submit(asking.place.run, *words, environment=environment, cwd=project)
            terminal.shows(f"GET https://{NEW}:443/")
            assert NEW not in set(seen.names)
            terminal.type("run of nobody")
            terminal.shows("that is no answer")
            terminal.type("1h")
            terminal.shows("Allowed: for 1h.")
            ran = running.result()
    finally:
        internet.site(API, messages_api)

    assert (SPOKEN in ran.stdout, ran.returncode) == (True, 0), ran.stderr
    assert any(told in exchange.body for exchange in seen.exchanges)
