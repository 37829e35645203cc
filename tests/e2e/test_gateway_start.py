"""The gateway starts as its user was promised, tells where it is, and shows the key to nobody."""

import re
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from .rig.internet import Internet
from .rig.messages_api import SPOKEN
from .rig.proxy import Proxy

KEY = "sk-ant-api03-CANARY-of-the-test"
UPSTREAM = "https://api.anthropic.com"
BODY = '{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"CANARY-prompt"}]}'
CURL = f"curl -sS -H content-type:application/json --data '{BODY}'"
READY = "Press Ctrl+C to stop"


class StartGateway(Protocol):
    """Starts `claude-proxy` in a home of its own; `prepare` puts files there before."""

    def __call__(
        self,
        *arguments: str | Path,
        prepare: Callable[[Path], object] | None = None,
        ready: str | None = READY,
        **variables: str,
    ) -> Proxy: ...


@pytest.fixture
def start(internet: Internet, tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways that only this test uses; each that is still there must end calmly."""
    started: list[Proxy] = []

    def run(
        *arguments: str | Path,
        prepare: Callable[[Path], object] | None = None,
        ready: str | None = READY,
        **variables: str,
    ) -> Proxy:
        directory = tmp_path / f"gateway-{len(started)}"
        directory.mkdir()
        if prepare is not None:
            (directory / "home").mkdir()
            prepare(directory / "home")
        trusted = {"CLAUDE_PROXY_UPSTREAM_CA": str(internet.pki.root_file)}
        one = Proxy(internet, directory, arguments, port=9000, variables=trusted | variables)
        started.append(one)
        if ready is not None:
            one.wait_until_listening(ready)
        return one

    yield run
    for one in started:
        one.stop()
        assert "Traceback" not in one.stdout() + one.stderr()


def said_by(proxy: Proxy) -> str:
    return proxy.stdout() + proxy.stderr()


def asked(proxy: Proxy, where: str = "http://127.0.0.1:9000/v1/messages") -> str:
    """Return what a message is answered with."""
    ran = proxy.place.run("sh", "-c", f"{CURL} {where}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def environment_of(proxy: Proxy) -> bytes:
    return Path(f"/proc/{proxy.process.pid}/environ").read_bytes()


def ports_of(proxy: Proxy) -> set[int]:
    """Return the TCP ports that a process listens on."""
    mine = set()
    for link in Path(f"/proc/{proxy.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                mine.add(found[1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{proxy.process.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in mine:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def files_that_hold(word: str, directory: Path) -> list[Path]:
    """Return the files below a directory that have a word in them."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if word.encode() in path.read_bytes()]


def test_the_seeds_quick_start_works(start: StartGateway, internet: Internet) -> None:
    gateway = start("gateway", PROXY_UPSTREAM_BASE=f"{UPSTREAM}//", PROXY_API_KEY=KEY)

    with internet.watch() as seen:
        answer = asked(gateway)

    assert SPOKEN in answer
    assert ports_of(gateway) == {9000}
    [exchange] = seen.exchanges
    assert (exchange.method, exchange.target) == ("POST", "/v1/messages")
    assert exchange.header("x-api-key") == KEY
    assert exchange.header("authorization") is None
    for part in ("http://127.0.0.1:9000", "api.anthropic.com", "passthrough", "timeout 600 s"):
        assert part in gateway.stdout()


@pytest.mark.parametrize("level", ["--quiet", "--verbose", "--log-format=json"])
def test_the_key_and_the_prompt_are_nowhere(start: StartGateway, level: str) -> None:
    ready = {"--verbose": READY}.get(level)
    gateway = start(
        *("gateway", level, "--uds", "g.sock", "--jsonl", "events.jsonl"),
        ready=ready,
        PROXY_UPSTREAM_BASE=UPSTREAM,
        PROXY_API_KEY=KEY,
        CLAUDE_PROXY_DEBUG="1",
    )
    curl = f"{CURL} --retry 60 --retry-delay 1 --retry-all-errors --unix-socket g.sock"
    ran = gateway.place.run("sh", "-c", f"{curl} http://any.example/v1/messages")
    assert SPOKEN in ran.stdout, ran.stderr

    assert b"CANARY" not in environment_of(gateway)
    gateway.stop()
    assert "CANARY" not in said_by(gateway)
    assert files_that_hold("CANARY", gateway.place.home) == []


def test_dotenv_is_enough_and_the_environment_wins(start: StartGateway) -> None:
    def write(home: Path) -> None:
        (home / ".env").write_text(
            f"PROXY_UPSTREAM_BASE={UPSTREAM}\nPROXY_API_KEY={KEY}\nPROXY_PORT=9001\nOTHER=é\n"
        )
        (home / ".env").chmod(0o644)

    alone = start("gateway", prepare=write)
    assert ports_of(alone) == {9001}
    assert "OTHER USERS CAN READ THE KEY" in alone.stderr()
    assert SPOKEN in asked(alone, "http://127.0.0.1:9001/v1/messages")
    assert b"CANARY" not in environment_of(alone)

    told = start("gateway", prepare=write, PROXY_PORT="9002", PROXY_HOST="127.0.0.2")
    assert ports_of(told) == {9002}
    assert "http://127.0.0.2:9002" in told.stdout()

    typed = start("gateway", "--port", "9003", prepare=write, PROXY_PORT="9002")
    assert ports_of(typed) == {9003}


def test_a_unix_socket_is_all_there_is(start: StartGateway) -> None:
    gateway = start(
        *("gateway", "--uds", "run/g.sock"),
        PROXY_UPSTREAM_BASE=UPSTREAM,
        PROXY_API_KEY=KEY,
        PROXY_PORT="9000",
    )

    path = gateway.place.home / "run" / "g.sock"
    assert SPOKEN in asked(gateway, f"--unix-socket {path} http://nginx.example/v1/messages")
    assert ports_of(gateway) == set()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_start_is_a_clear_error_and_a_stale_socket_is_replaced(
    start: StartGateway,
) -> None:
    named = ("--upstream", UPSTREAM)
    port = start("gateway", *named, PROXY_API_KEY=KEY)
    again = port.place.claude_proxy("gateway", *named, PROXY_API_KEY=KEY)
    assert again.returncode == 2
    assert "address already in use" in again.stderr

    unix = start("gateway", *named, "--uds", "g.sock", PROXY_API_KEY=KEY)
    path = unix.place.home / "g.sock"
    again = unix.place.claude_proxy("gateway", *named, "--uds", path, PROXY_API_KEY=KEY)
    assert again.returncode == 2
    assert "another process already listens on this socket" in again.stderr
    assert SPOKEN in asked(unix, f"--unix-socket {path} http://localhost/v1/messages")

    unix.signal(signal.SIGKILL)
    unix.process.wait()
    assert path.is_socket()
    after = start("gateway", *named, "--uds", path, PROXY_API_KEY=KEY)
    assert SPOKEN in asked(after, f"--unix-socket {path} http://localhost/v1/messages")


def test_a_provider_of_ones_own_with_its_key_in_a_file(
    start: StartGateway, internet: Internet
) -> None:
    internet.site("llm.corp.test", internet.origin.sites["api.anthropic.com"])

    def write(home: Path) -> None:
        confdir = home / ".config" / "claude-proxy"
        confdir.mkdir(parents=True, mode=0o700)
        (confdir / "gateway.yaml").write_text(
            "provider: corp\n"
            "providers:\n"
            "  corp: {endpoint: https://llm.corp.test/, from: {file: ~/key}, form: bearer,\n"
            "    models: corp-large}\n"
        )
        (home / "key").write_text(f"{KEY}\n")
        (home / "key").chmod(0o600)

    gateway = start("gateway", prepare=write, PROXY_API_KEY="sk-of-somebody-else")

    with internet.watch() as seen:
        assert SPOKEN in asked(gateway)
    [exchange] = seen.exchanges
    assert exchange.header("host") == "llm.corp.test"
    assert exchange.header("authorization") == f"Bearer {KEY}"
    assert b'"model":"corp-large"' in exchange.body
    assert b"somebody-else" not in environment_of(gateway)


def test_a_key_file_that_others_can_read_stops_the_start(start: StartGateway) -> None:
    def write(home: Path) -> None:
        (home / "key").write_text(KEY)
        (home / "key").chmod(0o640)

    gateway = start(
        *("gateway", "--provider", "anthropic", "--key-file", "key"), prepare=write, ready=None
    )

    assert gateway.process.wait() == 2
    assert "others have access to the file (mode 0640)" in gateway.stderr()
    assert "CANARY" not in said_by(gateway)


def test_a_command_gives_the_key(start: StartGateway, internet: Internet) -> None:
    gateway = start("gateway", "--provider", "anthropic", "--key-command", f"printf %s '{KEY}'")

    with internet.watch() as seen:
        assert SPOKEN in asked(gateway)
    assert [exchange.header("x-api-key") for exchange in seen.exchanges] == [KEY]
    assert KEY not in said_by(gateway)


def test_who_has_the_printed_token_gets_through_and_nobody_else(
    start: StartGateway, internet: Internet
) -> None:
    gateway = start("gateway", "--new-token", "--provider", "anthropic", ANTHROPIC_API_KEY=KEY)
    exports = "; ".join(re.findall("^export .*$", gateway.stdout(), re.MULTILINE))
    status = "-o /dev/null -w '%{http_code}' $ANTHROPIC_BASE_URL/v1/messages"

    with internet.watch() as seen:
        for field in ("x-nothing: at-all", "x-api-key: wrong", "authorization: Bearer wrong"):
            ran = gateway.place.run("sh", "-c", f"{exports}; {CURL} -H '{field}' {status}")
            assert ran.stdout == "401", ran.stderr
    assert seen.nothing()

    with internet.watch() as seen:
        for field in (
            "x-api-key: $ANTHROPIC_AUTH_TOKEN",
            "authorization: Bearer $ANTHROPIC_AUTH_TOKEN",
        ):
            ran = gateway.place.run("sh", "-c", f'{exports}; {CURL} -H "{field}" {status}')
            assert ran.stdout == "200", ran.stderr
    assert [exchange.header("x-api-key") for exchange in seen.exchanges] == [KEY, KEY]
    assert "ANTHROPIC_AUTH_TOKEN" not in environment_of(gateway).decode()


def test_serve_has_a_gateway_in_the_same_process(start: StartGateway, internet: Internet) -> None:
    both = start(
        *("serve", "--port", "9000", "--gateway", "127.0.0.1:9053", "--gateway", "unix:g.sock"),
        *("--gateway-provider", "anthropic", "--gateway-model", "m=other"),
        ANTHROPIC_API_KEY=KEY,
    )
    assert ports_of(both) == {9000, 9053}

    with internet.watch() as seen:
        assert SPOKEN in asked(both, "http://127.0.0.1:9053/v1/messages")
        path = both.place.home / "g.sock"
        assert SPOKEN in asked(both, f"--unix-socket {path} http://localhost/v1/messages")
    assert [exchange.header("x-api-key") for exchange in seen.exchanges] == [KEY, KEY]
    assert all(b'"other"' in exchange.body for exchange in seen.exchanges)

    with internet.watch() as seen, both.tunnel("api.anthropic.com:443") as tunnel:
        json = "Content-Type: application/json"
        answer = tunnel.request("POST", "/v1/messages", json, body=BODY.encode())
        assert answer.status == 200
    assert [exchange.header("x-api-key") for exchange in seen.exchanges] == [None]
    assert b"CANARY" not in environment_of(both)
