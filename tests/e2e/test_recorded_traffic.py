"""What Claude Code asks of the network is recorded, so that a new version's news are seen.

`make drift` runs this with the newest version and has it write down what it saw.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.audit import Row
from tests.support.waiting import settled, until

from .conftest import StartProxy
from .rig.claude_code import PROMPT, ClaudeCode
from .rig.internet import Internet
from .rig.messages_api import SPOKEN
from .rig.terminal import Terminal

RECORDED = Path(__file__).parent / "recorded" / "claude-code.txt"
WRITTEN_TO = "E2E_TRAFFIC"  # the variable that names a file for what was seen

# Wide, as a request that is denied at its CONNECT does not tell its path.
ALLOWLIST = """\
allow:
  - "*.anthropic.com"
  - claude.ai
  - "*.claude.ai"
  - claude.com
  - "*.claude.com"
  - "*.datadoghq.com"
  - "*.npmjs.org"
  - "*.sentry.io"
  - github.com
  - raw.githubusercontent.com
  - storage.googleapis.com
"""
KEY = "sk-ant-api03-imitation"
LOGINS: dict[str, dict[str, str]] = {
    "a key": {"ANTHROPIC_API_KEY": KEY},
    "a sign-in": {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-imitation"},
}
# What is another one in each session or installation.
_REGISTRY = re.compile(r"^[\w-]+(?=\.npmjs\.org$)")  # it may be another one of the same domain
_VARIABLE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)sdk-\w+|(?<=/)\d+\.\d+\.\d+(?=/|$)")


def requests_in(rows: Iterable[Row]) -> set[str]:
    """Return what was asked for, one line each, without what differs from run to run."""
    lines = set()
    for row in rows:
        if row.phase == "notice" or (row.phase == "connect" and row.allowed):
            continue  # an allowed tunnel is told by the requests in it
        host = _REGISTRY.sub("*", row.host)
        if not row.path:
            lines.add(f"CONNECT {host}:{row.port}")
        else:
            path = _VARIABLE.sub("*", row.path)
            lines.add(f"{row.method} {row.scheme}://{host}{path}")
    return lines


def recorded() -> set[str]:
    """Return what is known of it."""
    lines = RECORDED.read_text("utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("variables", LOGINS.values(), ids=LOGINS)
def test_claude_code_asks_for_nothing_that_is_not_recorded(
    start_proxy: StartProxy,
    internet: Internet,
    program: FindProgram,
    tmp_path: Path,
    variables: Mapping[str, str],
) -> None:
    claude = program("claude")
    program("tmux")
    proxy = start_proxy(ALLOWLIST)
    environment = {**proxy.env(), **variables}
    client = ClaudeCode.settled(claude, proxy.place, environment, KEY)
    terminal = Terminal(tmp_path / "tmux", environment)

    printed = client.prints("hi")
    terminal.start(internet.host.argv([claude], cwd=client.project))
    until(lambda: PROMPT in terminal.screen(), "Claude Code's prompt")
    terminal.type("what is the answer")
    until(lambda: SPOKEN in terminal.screen(), "the answer")
    settled(lambda: len(proxy.audit()), pauses=200)  # what it asks at leisure
    terminal.type("/exit")
    until(terminal.ended, "the end of Claude Code")
    terminal.close()

    assert (printed.stdout.strip(), printed.returncode) == (SPOKEN, 0), printed.stderr
    seen = requests_in(proxy.audit())
    if WRITTEN_TO in os.environ:
        with Path(os.environ[WRITTEN_TO]).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in sorted(seen))
    assert "POST https://api.anthropic.com/v1/messages" in seen
    assert sorted(seen - recorded()) == []
