"""A list that was learned from one run lets the next one pass, and denies everything else."""

import json
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .conftest import StartProxy
from .rig.claude_code import ClaudeCode
from .rig.internet import Internet
from .rig.messages_api import SPOKEN
from .rig.proxy import Proxy

KEY = "sk-ant-api03-imitation"
OPEN = "default: allow\n"
# What it asks for besides the API, in the order of tests/e2e/recorded.
NAMES = (
    "downloads.claude.ai",
    "github.com",
    "raw.githubusercontent.com",
    "registry" + ".npmjs.org",
    "http-intake.logs.us5.datadoghq.com",
    "platform.claude.com",
)
# What a list that was learned from one prompt must not let through.
OTHERS = (
    ("GET", "https://example.com/"),
    ("POST", "https://api.anthropic.com/v1/files"),
    ("GET", "https://api.anthropic.com/v1/files"),
    ("GET", "https://api.anthropic.com/v1/messages"),
    ("DELETE", "https://api.anthropic.com/v1/messages"),
    ("POST", "https://api.anthropic.com/v1/messages/batches"),
    ("POST", "https://api.anthropic.com/v1/organizations/users"),
    ("GET", "https://api.anthropic.com/admin"),
    ("POST", "https://api.anthropic.com/"),
    ("POST", "https://api.anthropic.com:8443/v1/messages"),
    ("POST", "http://api.anthropic.com/v1/messages"),
    ("GET", "https://console.anthropic.com/"),
    ("GET", "https://raw.githubusercontent.com/evil/x/main/y"),
    ("PUT", "https://registry" + ".npmjs.org/evil"),
    ("POST", "https://github.com/evil/x.git/git-receive-pack"),
    ("GET", "https://gist.github.com/evil/1"),
    ("GET", "https://10.1.2.3/"),
    ("POST", "https://dns.google/dns-query"),
)


@pytest.fixture
def opened(start_proxy: StartProxy, internet: Internet) -> Proxy:
    """A proxy that lets every public host through and records it."""
    for name in NAMES:
        internet.site(name)
    return start_proxy(OPEN)


def test_a_list_learned_from_claude_code_lets_its_next_run_pass_and_nothing_else(
    opened: Proxy, start_proxy: StartProxy, program: FindProgram, tmp_path: Path
) -> None:
    claude = program("claude")
    first = prompt(claude, opened)
    learned = tmp_path / "learned.yaml"

    told = opened.place.claude_proxy("learn", "--allowlist", learned, "--apply", "--json")
    strict = start_proxy(learned.read_text("utf-8"))
    second = prompt(claude, strict)

    assert (first, second) == (SPOKEN, SPOKEN)
    facts = json.loads(told.stdout)
    assert facts["applied"]
    assert all("*" not in entry["host"] for entry in facts["entries"])
    denied = strict.audit("--denied")
    assert [f"{row.method} {row.scheme} {row.host}{row.path} {row.reason}" for row in denied] == []
    allowed = [each for each in OTHERS if not is_denied(strict, learned, *each)]
    assert allowed == []


def test_a_replay_tells_what_the_learned_list_would_have_denied(
    opened: Proxy, program: FindProgram, tmp_path: Path
) -> None:
    prompt(program("claude"), opened)
    learned, nothing = tmp_path / "learned.yaml", tmp_path / "nothing.yaml"
    nothing.write_text("allow: []\n", encoding="utf-8")
    opened.place.claude_proxy("learn", "--allowlist", learned, "--apply", "--include", "all")

    by_learned = opened.place.claude_proxy("replay", "--allowlist", learned, "--json")
    by_nothing = opened.place.claude_proxy("replay", "--allowlist", nothing, "--json")

    assert json.loads(by_learned.stdout)["denied"] == 0, by_learned.stdout
    assert by_nothing.returncode == 1
    facts = json.loads(by_nothing.stdout)
    assert facts["denied"] == facts["attempts"] > 0


def prompt(claude: str, proxy: Proxy) -> str:
    """Have Claude Code answer one prompt; return what it printed."""
    environment = {**proxy.env(), "ANTHROPIC_API_KEY": KEY}
    ran = ClaudeCode.settled(claude, proxy.place, environment, KEY).prints("hi")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def is_denied(proxy: Proxy, allowlist: Path, method: str, url: str) -> bool:
    """Tell whether a list denies a request."""
    ran = proxy.place.claude_proxy("check", "--allowlist", allowlist, "--method", method, url)
    return ran.returncode == 1
