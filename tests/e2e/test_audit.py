"""What was decided can be read back, without a secret and without harm."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError, connect_head
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all

RULES = "allow: [origin.test, {host: paths.test, paths: ['/ok/**']}]\n"

SECRETS = ("sk-ant-secret-key", "secret-cookie", "secret-in-the-query", "secret-in-the-body")


@pytest.fixture
def audited(start_proxy: StartProxy) -> Proxy:
    """A proxy with a log of its own."""
    return start_proxy(RULES, "--verbose")


def test_no_secret_of_a_request_is_written_anywhere(audited: Proxy) -> None:
    fields = [f"Authorization: Bearer {SECRETS[0]}", f"Cookie: a={SECRETS[1]}"]
    for host in ("origin.test", "paths.test"):
        with audited.tunnel(f"{host}:443") as tunnel:
            tunnel.request("POST", f"/echo?key={SECRETS[2]}", *fields, body=SECRETS[3].encode())
    plain = f"GET http://denied.test/?k={SECRETS[2]} HTTP/1.1\r\nHost: denied.test\r\n"
    audited.ask(f"{plain}Proxy-Authorization: {SECRETS[0]}\r\nConnection: close\r\n\r\n".encode())
    bad = f"GET / HTTP/1.1\r\nAuthorization: {SECRETS[0]}\r\n folded {SECRETS[1]}\r\n\r\n"
    audited.ask(bad.encode())
    audited.stop()

    written = [path for path in audited.place.directory.rglob("*") if path.is_file()]
    assert audited.statedir / "audit.sqlite3" in written
    for path in written:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path


def test_the_query_is_kept_where_the_owner_asked_for_it(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--record-query")
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/echo?kept=yes")

    assert proxy.outcome("origin.test:443", "/echo?kept=yes").status == 200


def test_the_last_line_is_that_it_has_stopped(audited: Proxy) -> None:
    with audited.tunnel("origin.test:443") as tunnel:
        tunnel.get("/")
    audited.stop()

    lines = audited.stdout().splitlines()
    assert lines[-1] == "Stopped."
    assert any(line.startswith("Allowed: GET https://origin.test/") for line in lines)


HARMFUL = [
    b"\x1b[2J\x1b]0;owned\x07.test",
    b"evil.test\x0d\x0aAllowed: GET https://origin.test/forged",
    "\u202eevil\u2066.test".encode(),
    b"evil\x9b31m.test",
]


def test_what_a_client_sends_cannot_write_on_the_terminal(audited: Proxy) -> None:
    for name in HARMFUL:
        audited.ask(b"CONNECT " + name + b":443 HTTP/1.1\r\n\r\n")
        audited.ask(b"GET http://" + name + b"/ HTTP/1.1\r\nHost: x\r\n\r\n")
    with audited.tunnel("origin.test:443") as tunnel:
        tunnel.get("/%1b[31m/%0d%0aforged")
    shown = (
        audited.place.claude_proxy("log").stdout
        + audited.place.claude_proxy("log", "--json").stdout
    )
    audited.stop()

    for text in (shown, audited.stdout(), audited.stderr()):
        assert all(char.isprintable() or char == "\n" for char in text)
        assert not any(
            line.startswith("Allowed: GET https://origin.test/forged") for line in text.splitlines()
        )


def test_a_decision_survives_the_sudden_death_of_the_proxy(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/last-thing")
        proxy.process.kill()
        proxy.process.wait()

    assert [row.path for row in proxy.decisions("origin.test:443")] == ["/last-thing"]
    with closing(sqlite3.connect(proxy.statedir / "audit.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # It ended as it was made to; the next start is an ordinary one.
    proxy.process.returncode = 0


def test_the_log_follows(audited: Proxy, internet: Internet) -> None:
    command = [sys.executable, "-m", "claude_proxy", "log", "--follow", "--json"]
    follower = subprocess.Popen(
        internet.host.argv(command, cwd=audited.place.home),
        env=audited.place.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    try:
        with pytest.raises(CannotConnectError):
            audited.tunnel("followed.test:443")
        for line in follower.stdout:
            if json.loads(line).get("host") == "followed.test":
                break
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(60)
        follower.stdout.close()


def test_the_log_can_be_narrowed(audited: Proxy) -> None:
    with pytest.raises(CannotConnectError):
        audited.tunnel("denied.test:443")
    with audited.tunnel("origin.test:443") as tunnel:
        tunnel.get("/echo")

    assert {row.host for row in audited.audit("--denied", "--since", "1h")} == {"denied.test"}
    assert {row.host for row in audited.audit("--host", "origin.test")} == {"origin.test"}


def test_check_decides_as_the_proxy_does(audited: Proxy, internet: Internet) -> None:
    urls = [
        "https://origin.test/",
        "https://denied.test/",
        "https://origin.test:8443/",
        "http://origin.test/",
        "https://paths.test/ok/x",
        "https://paths.test/no",
        "https://paths.test/ok/../no",
        "https://origin.test.denied.test/",
        "https://169.254.169.254/",
    ]
    with internet.watch() as seen:
        codes = {
            url: audited.place.claude_proxy(
                "check", "--allowlist", audited.allowlist, url
            ).returncode
            for url in urls
        }
    assert seen.nothing()

    for url, code in codes.items():
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        if scheme == "http":
            request = f"GET {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
            allowed = audited.ask(request.encode()).split()[1] == b"200"
        else:
            target = authority if ":" in authority else f"{authority}:443"
            try:
                with audited.tunnel(target) as tunnel:
                    allowed = tunnel.get(f"/{path}").status == 200
            except CannotConnectError:
                allowed = False
        assert (code == 0) == allowed, url


def test_a_full_disk_denies_and_room_allows_again(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    internet.host.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(disk)])
    proxy = start_proxy(RULES, "--statedir", disk / "state")
    # The file system is mounted on the host only: fill it from there.
    filler = disk / "filler"
    proxy.place.run("sh", "-c", f"dd if=/dev/zero of={filler} bs=1k 2>/dev/null; true")

    with internet.watch() as seen:
        reasons = set()
        for _ in range(30):
            try:
                with proxy.tunnel("origin.test:443") as tunnel:
                    reasons.add(tunnel.get("/while-full").reason)
            except CannotConnectError as refusal:
                reasons.add(refusal.answer.reason)
    assert "audit-failed" in reasons
    allowed_while_full = len(seen.exchanges)
    proxy.place.run("rm", filler)

    def works_again() -> bool:
        try:
            with proxy.tunnel("origin.test:443") as tunnel:
                return tunnel.get("/after").status == 200
        except CannotConnectError:
            return False

    until(works_again, "an allowed request")
    rows = proxy.place.claude_proxy("log", "--json", "--statedir", disk / "state").stdout
    # Not one request went out that is not in the log.
    assert rows.count('"/while-full"') == allowed_while_full


def test_allowing_what_cannot_be_recorded_is_announced(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--audit-failure", "allow")

    assert "--audit-failure allow" in proxy.stderr()


def test_the_log_file_is_nobody_elses(audited: Proxy) -> None:
    for path in audited.statedir.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == os.geteuid()


def test_every_event_can_go_to_a_file_too(start_proxy: StartProxy, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    proxy = start_proxy(RULES, "--jsonl", file)
    with proxy.connect() as connection:
        connection.sendall(connect_head("denied.test:443"))
        read_all(connection)
    proxy.stop()

    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert any(event.get("host") == "denied.test" for event in events)
    assert file.stat().st_mode & 0o777 == 0o600
