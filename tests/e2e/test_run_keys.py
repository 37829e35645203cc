"""A run's credentials stay outside: Claude Code itself works with a placeholder in their place."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import Launch
from .rig.claude_code import PROMPT
from .rig.internet import Internet, Seen
from .rig.launch import Launches, trusted
from .rig.messages_api import SPOKEN
from .rig.origin import Exchange
from .rig.proxy import REPOSITORY
from .rig.terminal import Terminal

API = "api.anthropic.com"
KEY = "sk-ant-api03-canary-of-the-owners-9b1f0c6e"
TOKEN = "sk-ant-oat01-canary-of-the-owners-3d2a7755"
OTHER = "sk-ant-api03-of-somebody-elses"
PLACEHOLDER = "sk-ant-claude-proxy-placeholder-anthropic"
LOGIN = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-canary-of-a-login",
        "refreshToken": "sk-ant-ort01-canary-of-a-login",
        "expiresAt": 4102444800000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
}
CANARIES = (KEY, TOKEN, "canary-of-a-login")

HOSTS = "allow: [api.anthropic.com, origin.test]\n"
ENTRY = "  - {{host: api.anthropic.com, name: anthropic, {}}}\n"

# What of a run can be seen from inside: environment, command lines and files.
LOOK = """
env
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'
find "$HOME" "$PWD" /run /tmp /etc -type f -size -1000k -exec cat {} + 2>/dev/null
mount; cat /proc/self/mountinfo
true
"""


def with_credentials(*uses: str) -> str:
    """Return an allowlist with one entry for each use."""
    return HOSTS + "credentials:\n" + "".join(ENTRY.format(use) for use in uses)


def injecting(source: str) -> str:
    return with_credentials(f"inject: auto, from: {source}")


def logged_in(launches: Launches) -> Launches:
    """Give the user a login of Claude Code's own."""
    folder = launches.place.home / ".claude"
    folder.mkdir(exist_ok=True)
    file = folder / ".credentials.json"
    file.write_text(json.dumps(LOGIN), encoding="utf-8")
    file.chmod(0o600)
    launches.give(launches.place.home)
    return launches


def messages(seen: Seen) -> list[Exchange]:
    return [one for one in seen.exchanges if one.target.startswith("/v1/messages")]


def sent_credentials(seen: Seen) -> set[tuple[str, str]]:
    """Return everything that authenticated at the API."""
    names = ("x-api-key", "authorization", "cookie")
    found = ((name, one.header(name)) for one in seen.exchanges for name in names)
    return {(name, value) for name, value in found if value is not None}


def reasons(launches: Launches) -> dict[str, set[str]]:
    """Return why requests to the API were denied, by path."""
    found: dict[str, set[str]] = {}
    for row in launches.audit("--host", API):
        if row.fields.get("action") == "deny":
            found.setdefault(str(row.path), set()).add(str(row.reason))
    return found


# --- injected


@pytest.mark.parametrize(
    ("value", "sent"), [(KEY, ("x-api-key", KEY)), (TOKEN, ("authorization", f"Bearer {TOKEN}"))]
)
def test_claude_code_works_with_a_placeholder_and_the_api_sees_the_key_alone(
    launch: Launch, internet: Internet, program: FindProgram, value: str, sent: tuple[str, str]
) -> None:
    runs = logged_in(trusted(launch(injecting("{env: MY_KEY}"))))

    with internet.watch() as seen:
        ran = runs.run(program("claude"), "-p", "hi", variables={"MY_KEY": value})

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert messages(seen)
    assert sent_credentials(seen) == {sent}
    assert all(PLACEHOLDER.encode() not in one.head for one in seen.exchanges)
    assert reasons(runs) == {}
    row = next(row for row in runs.audit("--host", API) if row.path == "/v1/messages")
    assert row.credential == "anthropic"


def test_an_ordinary_user_has_it_too(
    launch: Launch, internet: Internet, program: FindProgram
) -> None:
    runs = launch(injecting("{env: ANTHROPIC_API_KEY}"), ordinary=True)
    logged_in(trusted(runs))

    with internet.watch() as seen:
        ran = runs.run(
            program("claude"),
            "-p",
            "hi",
            options=["--profile", "claude", "--allow-ro", program("claude")],
            variables={"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_AUTH_TOKEN": OTHER},
        )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert sent_credentials(seen) == {("x-api-key", KEY)}
    assert "not passed on" in ran.stderr
    assert "ANTHROPIC_API_KEY" in ran.stderr


def test_claude_code_asks_nothing_about_the_placeholder_in_a_terminal(
    launch: Launch, program: FindProgram
) -> None:
    program("tmux")
    runs = trusted(launch(injecting("{env: ANTHROPIC_API_KEY}")))
    terminal = Terminal(runs.directory / "tmux", runs.environment(ANTHROPIC_API_KEY=KEY))
    try:
        terminal.start(runs.argv(runs.words([program("claude")])))
        terminal.shows(PROMPT)
        terminal.type("what is the answer")
        terminal.shows(SPOKEN)
        terminal.type("/exit")
        until(terminal.ended, f"the end of Claude Code:\n{terminal.screen()}")
    finally:
        terminal.close()


def test_another_key_of_the_sandboxs_own_is_denied(launch: Launch, internet: Internet) -> None:
    runs = launch(injecting("{env: MY_KEY}"))
    ask = f"curl -sS -o /dev/null -w '%{{http_code}} ' https://{API}/v1/models"
    script = (
        f"{ask} -H 'x-api-key: {OTHER}'; {ask} -H 'Authorization: Bearer {OTHER}'; "
        f"{ask} -H 'Cookie: sessionKey={OTHER}'; {ask}?api_key={OTHER}; "
        f'{ask} -H "x-api-key: $ANTHROPIC_AUTH_TOKEN"; {ask}; '
        f"curl -sS -o /dev/null -w '%{{http_code}}' https://origin.test/ "
        f'-H "x-api-key: $ANTHROPIC_AUTH_TOKEN"'
    )

    with internet.watch() as seen:
        ran = runs.run("sh", "-c", script, variables={"MY_KEY": KEY})

    assert ran.stdout.split() == ["403", "403", "403", "403", "404", "404", "403"], ran.stderr
    assert sent_credentials(seen) == {("x-api-key", KEY)}
    assert len(seen.exchanges) == 2


# --- where it must not be


SOURCES = ("env", "file", "json", "command", "login", "systemd", "keyring")
# Stands for the package of that name, and for a keyring behind it.
KEYRING = "def get_password(service, user): return open({!r}).read()"


def source_of(kind: str, launches: Launches) -> tuple[str, dict[str, str]]:
    """Keep the key somewhere; return what an allowlist says of that, and the user's variables."""
    folder = launches.directory / "keys"
    folder.mkdir(mode=0o700)
    file = folder / "key"
    file.touch(mode=0o600)
    variables = {"KEY_OF_NOBODY": "harmless"}
    match kind:
        case "env":
            return "{env: MY_KEY}", {"MY_KEY": KEY, "A_COPY": f"the key is {KEY}"}
        case "file":
            file.write_text(KEY)
            source = f"{{file: {file}}}"
        case "json":
            file.write_text(json.dumps({"a": {"b": KEY}}))
            source = f"{{file: {file}, key: a.b}}"
        case "command":
            file.write_text(KEY)
            source = f"{{command: [cat, {file}]}}"
        case "systemd":
            file.write_text(KEY)
            source = "{systemd: key}"
            variables["CREDENTIALS_DIRECTORY"] = str(folder)
        case "keyring":
            file.write_text(KEY)
            (folder / "keyring.py").write_text(KEYRING.format(str(file)))
            source = "{keyring: anthropic, user: ann}"
            variables["PYTHONPATH"] = f"{folder}:{REPOSITORY}"
        case _:
            logged_in(launches)
            path = launches.place.home / ".claude/.credentials.json"
            source = f"{{file: {path}, key: claudeAiOauth.accessToken}}"
    launches.give(folder)
    return source, variables


def tree_of(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from tree_of(int(child))


def shown_of(pid: int) -> bytes:
    """Return what the kernel shows of a process to others."""
    found = b""
    for name in ("environ", "cmdline", "maps", "comm", "status", "mountinfo"):
        try:
            found += Path(f"/proc/{pid}/{name}").read_bytes()
        except OSError:
            continue
    return found


ASK_WITH_PLACEHOLDER = f"""
curl -sS https://{API}/v1/models -H "x-api-key: $ANTHROPIC_AUTH_TOKEN"; cat /run/claude-proxy/*
"""


@pytest.mark.parametrize("kind", SOURCES)
def test_nothing_of_a_run_shows_the_key_while_it_goes_on_or_afterwards(
    launch: Launch, kind: str
) -> None:
    runs = launch()
    source, variables = source_of(kind, runs)
    runs.allowlist.write_text(injecting(source), encoding="utf-8")
    before = set(runs.directory.rglob("*"))
    script = f"echo begun; read line\n{LOOK}{ASK_WITH_PLACEHOLDER}exit 3"
    words = runs.words(["sh", "-c", script], "--profile", "claude", "--verbose")

    process = runs.popen(words, **variables)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"begun\n"
    shown = {pid: shown_of(pid) for pid in tree_of(process.pid)}
    out, err = process.communicate(b"go\n", timeout=120)

    assert process.returncode == 3, err
    # The launcher, its proxy, relay, guard, bwrap, its first process and COMMAND.
    assert len(shown) >= 7
    assert b"sandbox.proxy_process" in b"".join(shown.values())
    for pid, text in shown.items():
        assert not found_in(text), (pid, text.split(b"\0"))
    assert PLACEHOLDER.encode() in out
    assert not found_in(out)
    assert not found_in(err)
    assert_nothing_left_holds_the_key(runs, before)


@pytest.mark.parametrize("kind", SOURCES)
def test_nothing_that_a_run_leaves_holds_the_key_although_its_requests_fail(
    launch: Launch, kind: str
) -> None:
    runs = launch()
    source, variables = source_of(kind, runs)
    listed = f"{{host: {API}, addresses: [192.0.2.0/24]}}"
    runs.allowlist.write_text(injecting(source).replace(API, listed, 1), encoding="utf-8")
    before = set(runs.directory.rglob("*"))
    options = ("--verbose", "--resolve", f"{API}:443:192.0.2.1", "--connect-timeout", "1s")

    ran = runs.run(
        "sh", "-c", f"{ASK_WITH_PLACEHOLDER}exit 3", options=options, variables=variables
    )

    assert ran.returncode == 3, ran.stderr
    assert not found_in((ran.stdout + ran.stderr).encode())
    assert_nothing_left_holds_the_key(runs, before)


def assert_nothing_left_holds_the_key(runs: Launches, before: set[Path]) -> None:
    left = [path for path in runs.directory.rglob("*") if path.is_file() and path not in before]
    assert any(path.name == "audit.sqlite3" or "audit" in path.name for path in left), left
    for path in left:
        assert not found_in(path.read_bytes()), path


def found_in(data: bytes) -> list[str]:
    return [canary for canary in CANARIES if canary.encode() in data]


def test_a_source_that_gives_nothing_ends_the_run_before_it_begins(launch: Launch) -> None:
    runs = launch(injecting("{env: MY_KEY}"))

    ran = runs.run("touch", "ran")

    assert ran.returncode == 2
    assert "MY_KEY" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(runs.project.iterdir()) == []


@pytest.mark.parametrize("name", ["MY_KEY", "A_COPY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_what_stays_outside_cannot_be_asked_in(launch: Launch, name: str) -> None:
    runs = launch(injecting("{env: MY_KEY}"))
    variables = {"MY_KEY": KEY, "A_COPY": f"x{KEY}", "ANTHROPIC_API_KEY": OTHER}
    variables["ANTHROPIC_AUTH_TOKEN"] = OTHER

    ran = runs.run("touch", "ran", options=["--pass-env", name], variables=variables)

    assert ran.returncode == 2, ran.stderr
    assert f"--pass-env {name}" in ran.stderr
    assert not found_in(ran.stderr.encode())
    assert list(runs.project.iterdir()) == []


@pytest.mark.parametrize("source", ["{file: PROJECT/key}", "{command: [PROJECT/key]}"])
def test_a_source_in_the_project_is_refused_and_not_run(launch: Launch, source: str) -> None:
    runs = launch()
    key = runs.project / "key"
    key.write_text(f"#!/bin/sh\ntouch {runs.directory}/was-run\necho {KEY}\n")
    key.chmod(0o700)
    runs.allowlist.write_text(injecting(source.replace("PROJECT", str(runs.project))))

    ran = runs.run("touch", "ran")

    assert ran.returncode == 2, ran.stderr
    assert str(key) in ran.stderr
    assert [path.name for path in runs.project.iterdir()] == ["key"]
    assert not (runs.directory / "was-run").exists()


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize("before", [True, False])
def test_a_login_that_is_renewed_outside_while_the_run_goes_on_is_never_visible(
    launch: Launch, *, ordinary: bool, before: bool
) -> None:
    runs = launch(injecting("{env: MY_KEY}"), ordinary=ordinary)
    folder = runs.place.home / ".claude"
    folder.mkdir()
    runs.give(folder)
    if before:
        logged_in(runs)
    script = "echo begun; while read line; do cat ~/.claude/.cred*; echo looked; done 2>/dev/null"
    words = runs.words(["sh", "-c", script], "--profile", "claude")

    process = runs.popen(words, MY_KEY=KEY)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"begun\n"
    seen = b""
    for _ in range(3):
        new = folder / "new"
        new.write_text(json.dumps(LOGIN), encoding="utf-8")
        new.chmod(0o600)
        runs.give(new)
        new.rename(folder / ".credentials.json")
        seen += _looks(process)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert seen == b"looked\n" * 3
    assert out == b""
    assert "canary-of-a-login" in (folder / ".credentials.json").read_text()


def _looks(process: "subprocess.Popen[bytes]") -> bytes:
    """Have the script look once, and return what it saw."""
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    seen = b""
    while line := process.stdout.readline():
        seen += line
        if line.endswith(b"looked\n"):
            return seen
    raise AssertionError(process.communicate())


# --- pinned


def test_under_a_pin_one_login_works_and_a_second_run_with_another_is_denied(
    launch: Launch, internet: Internet, program: FindProgram
) -> None:
    runs = trusted(launch(with_credentials("pin: learn")), KEY)

    first = claude(runs, program, ANTHROPIC_API_KEY=KEY)
    with internet.watch() as seen:
        other = claude(runs, program, ANTHROPIC_AUTH_TOKEN=OTHER)
    again = claude(runs, program, ANTHROPIC_API_KEY=KEY)

    assert first.stdout.strip() == again.stdout.strip() == SPOKEN, first.stderr + again.stderr
    assert other.returncode != 0
    assert messages(seen) == []
    assert not any(OTHER in value for _, value in sent_credentials(seen))
    assert "foreign-credential" in reasons(runs)["/v1/messages"]


def claude(runs: Launches, program: FindProgram, **variables: str) -> Any:
    return runs.run(
        program("claude"), "-p", "hi", variables={"CLAUDE_CODE_MAX_RETRIES": "0", **variables}
    )


# --- the gateway


def gateway(*more: str) -> Sequence[str]:
    return ("--gateway", "--gateway-provider", "anthropic", *more)


def test_claude_code_works_through_the_runs_gateway(
    launch: Launch, internet: Internet, program: FindProgram
) -> None:
    runs = logged_in(trusted(launch(HOSTS)))
    # Without its key it has nothing to authenticate with but what the run gives it.
    with internet.watch() as seen:
        ran = runs.run(
            program("claude"),
            "-p",
            "hi",
            options=gateway(),
            variables={"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "https://denied.test"},
        )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    asked = messages(seen)
    assert {one.header("x-api-key") for one in asked} == {KEY}
    assert {one.header("authorization") for one in asked} == {None}
    assert {one.header("host") for one in asked} == {API}
    rows = [row for row in runs.audit("--host", API) if row.path == "/v1/messages"]
    assert {row.listener for row in rows} == {"gateway"}
    assert {row.credential for row in rows} == {"gateway"}
    assert all(re.search(r"run claude-\w+: ", row.client) for row in rows)


def test_the_gateway_and_the_proxy_are_both_there(launch: Launch) -> None:
    runs = launch(HOSTS)
    script = (
        "env | grep -c sk-ant-api; curl -sS -o /dev/null -w '%{http_code} ' "
        "$ANTHROPIC_BASE_URL/health; curl -sS -o /dev/null -w '%{http_code} ' "
        "$ANTHROPIC_BASE_URL/v1/files; curl -sS -o /dev/null -w '%{http_code}' https://origin.test/"
    )

    ran = runs.run("sh", "-c", script, options=gateway(), variables={"ANTHROPIC_API_KEY": KEY})

    assert ran.stdout.split() == ["0", "200", "404", "200"], ran.stderr


def test_no_process_shows_the_gateways_key(launch: Launch) -> None:
    runs = launch(HOSTS)
    words = runs.words(["sh", "-c", "echo begun; read line; " + LOOK], *gateway())

    process = runs.popen(words, PROXY_API_KEY=KEY, ANTHROPIC_API_KEY=OTHER)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    shown = {pid: shown_of(pid) for pid in tree_of(process.pid)}
    out, err = process.communicate(b"go\n", timeout=120)

    assert process.returncode == 0, err
    assert not [pid for pid, text in shown.items() if found_in(text)]
    assert not found_in(out)
    assert OTHER.encode() not in out


@pytest.mark.parametrize(
    "options", [("--no-network",), ("--proxy", "127.0.0.1:1")], ids=lambda words: words[0]
)
def test_without_a_proxy_of_its_own_a_run_has_no_gateway(
    launch: Launch, options: tuple[str, ...]
) -> None:
    ran = launch(HOSTS).run("true", options=[*gateway(), *options])

    assert ran.returncode == 2
    assert "--gateway" in ran.stderr


# --- who has joined a proxy


def test_a_run_that_joins_a_proxy_has_the_placeholders_of_the_users_own_list(
    launch: Launch,
) -> None:
    runs = launch()
    confdir = runs.place.home / ".config" / "claude-proxy"
    confdir.mkdir(parents=True)
    own = confdir / "allowlist.yaml"
    own.write_text(injecting("{env: ANTHROPIC_API_KEY}"), encoding="utf-8")
    where = runs.runtime / "proxy.sock"
    words = [*runs.program(), "serve", "--listen", f"unix:{where}", "--quiet"]
    proxy = runs.popen([*words, "--upstream-ca", runs.root_file], ANTHROPIC_API_KEY=KEY)
    try:
        until(where.exists, "the proxy's socket")
        script = (
            f"curl -sS -o /dev/null -w '%{{http_code}} ' https://{API}/v1/models "
            '-H "x-api-key: $ANTHROPIC_AUTH_TOKEN"; env | grep -c sk-ant-api'
        )
        ran = runs.run(
            "sh",
            "-c",
            script,
            options=["--proxy", f"unix:{where}", "--profile", "claude"],
            variables={"ANTHROPIC_API_KEY": KEY},
        )
    finally:
        proxy.terminate()
        proxy.communicate(timeout=60)

    assert ran.stdout.split() == ["404", "0"], ran.stderr
    assert os.WEXITSTATUS(ran.returncode) == 0 or ran.returncode == 1  # of grep, which finds none


def test_claude_code_needs_no_sign_in_where_its_key_is_put_in(
    launch: Launch, internet: Internet, program: FindProgram
) -> None:
    runs = trusted(launch(injecting("{env: MY_KEY}")))

    with internet.watch() as seen:
        ran = runs.run(program("claude"), "-p", "hi", variables={"MY_KEY": KEY})

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert sent_credentials(seen) == {("x-api-key", KEY)}
