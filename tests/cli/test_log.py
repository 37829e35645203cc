"""`claude-proxy log` shows what was recorded, harmlessly, and ends as its reader wishes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.cli import main
from claude_proxy.events import Notice, Phase
from tests.audit.examples import MOMENT, a_decision, a_denial, a_usage, an_outcome

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600 * 1_000_000_000
FOREVER = 1_000_000  # days

type Log = Callable[..., str]


@pytest.fixture
def statedir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(statedir: Path) -> Iterator[AuditStore]:
    with closing(AuditStore(database_in(statedir), retention_days=FOREVER)) as store:
        yield store


@pytest.fixture
def log(statedir: Path, capsys: pytest.CaptureFixture[str]) -> Log:
    """Return a function that runs `log` and returns what it printed."""

    def run(*arguments: str) -> str:
        assert main.main(["log", "--statedir", str(statedir), *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


# The table


@pytest.mark.usefixtures("_utc")
def test_an_attempt_is_a_row(store: AuditStore, log: Log) -> None:
    store.record(Notice(MOMENT - 1000, "start", "listening on 127.0.0.1:9051"))
    store.record(a_decision())
    store.record(an_outcome(bytes_down=5_000_000, duration_ms=61_000))
    store.record(a_denial(MOMENT + HOUR, target="evil.example:443", path="/\x1b[2J\n"))
    store.record(a_denial(MOMENT + 2 * HOUR, phase=Phase.CLIENT, target="", method="", path=""))
    store.record(an_outcome(MOMENT + 2 * HOUR, status=None, error="client-closed"))
    store.flush()

    assert [" ".join(line.split()) for line in log().splitlines()] == [
        "TIME ACTION METHOD TARGET STATUS UP DOWN TOOK REASON RULE",
        (
            "2026-01-02 03:04:05 Allowed GET https://example.com/path"
            " 200 10 4.8M 1m01s rule-matched allowlist.yaml:12"
        ),
        (
            r"2026-01-02 04:04:05 Denied GET https://evil.example/\x1b[2J\x0a"
            " - - - - no-rule -"
        ),
        "2026-01-02 05:04:05 Denied client 127.0.0.1:55555 - 10 2.0K 12ms no-rule -",
    ]


def test_the_newest_fifty_are_shown_unless_asked_otherwise(store: AuditStore, log: Log) -> None:
    for number in range(60):
        store.record(a_denial(MOMENT + number, path=f"/{number}"))

    shown = log().splitlines()[1:]
    fewer = log("--limit", "2").splitlines()[1:]

    assert len(shown) == 50
    assert [line.split()[4] for line in fewer] == [
        "https://example.com/58",
        "https://example.com/59",
    ]


def test_each_choice_narrows(store: AuditStore, log: Log) -> None:
    tunnel = a_decision(MOMENT, phase=Phase.CONNECT, scheme="", method="CONNECT", path="")
    store.record(tunnel)
    store.record(a_decision(MOMENT + 1, path="/old"))
    store.record(a_denial(time.time_ns() - HOUR, path="/denied"))
    store.record(a_decision(time.time_ns(), target="api.example.com:443", path="/new"))

    def paths(*arguments: str) -> list[str]:
        return [json.loads(line)["path"] for line in log("--json", *arguments).splitlines()]

    assert paths() == ["/old", "/denied", "/new"]
    assert paths("--denied") == ["/denied"]
    assert paths("--allowed") == ["/old", "/new"]
    assert paths("--host", "*.example.com") == ["/new"]
    assert paths("--since", "2h") == ["/denied", "/new"]
    assert paths("--steps") == ["", "/old", "/denied", "/new"]


@pytest.mark.usefixtures("_utc")
def test_notices_are_apart(store: AuditStore, log: Log) -> None:
    store.record(Notice(MOMENT, "start", "listening on 127.0.0.1:9051"))
    store.record(Notice(MOMENT + 1, "run-start", "run blue: git", run="blue"))
    store.record(a_denial(MOMENT + 2))

    assert log("--notices").splitlines() == [
        "2026-01-02 03:04:05  Notice   start: listening on 127.0.0.1:9051",
        "2026-01-02 03:04:05  Notice   run-start: run blue: git",
    ]
    assert len(log("--notices", "--run", "blue").splitlines()) == 1
    assert "Notice" not in log()
    assert [json.loads(line)["phase"] for line in log("--json").splitlines()] == [
        *("notice", "notice", "request")
    ]


def test_notices_of_warm_connections_are_left_out_and_counted(
    store: AuditStore, statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kinds(*arguments: str) -> tuple[list[str], list[str]]:
        assert main.main(["log", "--statedir", str(statedir), *arguments]) == 0
        out, err = capsys.readouterr()
        return [line.split()[3].rstrip(":") for line in out.splitlines()], err.splitlines()

    store.record(Notice(MOMENT, "start", "listening"))
    for number in range(1200):
        store.record(Notice(MOMENT + 1 + number, "warm-upstream", "to a.example", run="blue"))
    store.record(Notice(MOMENT + 2000, "stop", "stopped"))
    said = "claude-proxy: 1,200 warm-upstream notices are left out; --kind warm-upstream shows them"

    assert kinds("--notices") == (["start", "stop"], [said])
    assert kinds("--notices", "--run", "blue") == ([], ["claude-proxy: no matching entries", said])
    assert kinds("--notices", "-n", "1")[1][-1] == said
    assert kinds("--kind", "warm-upstream", "-n", "1200") == (["warm-upstream"] * 1200, [])
    assert kinds("--notices", "--kind", "stop") == (["stop"], [])


def test_json_leaves_out_no_notice(store: AuditStore, log: Log) -> None:
    store.record(Notice(MOMENT, "warm-upstream", "to a.example"))
    store.record(Notice(MOMENT + 1, "stop", "stopped"))

    for arguments in (["--json"], ["--json", "--notices"]):
        found = [json.loads(line)["kind"] for line in log(*arguments).splitlines()]
        assert found == ["warm-upstream", "stop"]
    assert json.loads(log("--json", "--kind", "stop"))["kind"] == "stop"


def test_what_is_left_out_is_said_apart(
    store: AuditStore, statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1200):
        store.record(a_decision(MOMENT + number))

    assert main.main(["log", "-n", "5", "--statedir", str(statedir)]) == 0
    assert capsys.readouterr().err == (
        "claude-proxy: showing the last 5 of 1,200; -n 1200 shows all\n"
    )
    assert main.main(["log", "-n", "1200", "--statedir", str(statedir)]) == 0
    assert capsys.readouterr().err == ""


def test_below_the_denials_is_what_would_allow_just_them(
    store: AuditStore, statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.record(a_denial(target="evil.example:443"))
    store.record(a_denial(MOMENT + 1, method="POST", path="/x", reason="method-not-allowed"))
    store.record(a_denial(MOMENT + 2, target="b.example:443", reason="deny-rule"))
    store.flush()

    for options, advised in (["--denied"], True), ([], False), (["--denied", "--json"], False):
        assert main.main(["log", "--statedir", str(statedir), *options]) == 0
        told = capsys.readouterr().err
        assert ("claude-proxy allow evil.example\n" in told) is advised
        assert ("allow example.com --method POST --path /x\n" in told) is advised
        assert ("if the proxy of this log has another" in told) is advised
        assert "b.example" not in told


def test_failures_are_found(store: AuditStore, log: Log) -> None:
    for number, error in enumerate((None, "dns-failed", "address-not-allowed")):
        store.record(a_decision(MOMENT + number, path=f"/{error}"))
        store.record(an_outcome(MOMENT + number, error=error))
    store.flush()

    def paths(*arguments: str) -> list[str]:
        return [json.loads(line)["path"] for line in log("--json", *arguments).splitlines()]

    assert paths("--failed") == ["/dns-failed"]
    assert paths("--denied") == ["/address-not-allowed"]
    assert paths("--allowed") == ["/None", "/dns-failed"]
    assert [json.loads(line)["state"] for line in log("--json").splitlines()] == [
        *("allowed", "failed", "denied")
    ]


def test_the_last_run_can_be_named_so(store: AuditStore, log: Log) -> None:
    for number, run in enumerate(("one", "two")):
        store.record(Notice(MOMENT + number, "run-start", f"run {run}: git", run=run))
        store.record(a_denial(MOMENT + number, run=run))

    (line,) = log("--run", "last", "--json").splitlines()

    assert json.loads(line)["run"] == "two"


def test_attempts_are_counted_by_host(store: AuditStore, log: Log) -> None:
    store.record(a_denial(MOMENT, target="evil.example:443"))
    store.record(a_denial(MOMENT + 1, target="evil.example:443"))
    store.flush()

    heading, row = log("--by", "host").splitlines()
    (line,) = log("--by", "host", "--json").splitlines()

    assert heading.startswith("HOST")
    assert row.split()[:4] == ["evil.example", "2", "0", "0"]
    assert json.loads(line)["denied"] == 2


def test_a_listener_and_a_run_narrow_too(store: AuditStore, log: Log) -> None:
    store.record(a_denial(MOMENT, listener="tcp 127.0.0.1:9051", path="/tcp"))
    store.record(a_denial(MOMENT + 1, listener="unix /a.sock", path="/unix"))
    store.record(a_denial(MOMENT + 2, listener="unix /a.sock", run="build", path="/run"))

    def paths(*arguments: str) -> list[str]:
        return [json.loads(line)["path"] for line in log("--json", *arguments).splitlines()]

    assert paths("--listener", "unix:/a.sock") == ["/unix", "/run"]
    assert paths("--run", "build") == ["/run"]
    assert paths("--run", "build", "--listener", "127.0.0.1:9051") == []


def test_a_process_that_was_turned_away_is_a_row(store: AuditStore, log: Log) -> None:
    facts = {"phase": Phase.CLIENT, "target": "", "method": "", "path": ""}
    store.record(
        a_denial(
            MOMENT,
            **facts,
            client="pid 4711 uid 1001 /usr/bin/curl",
            reason="client-not-allowed",
        )
    )

    (_, row) = log().splitlines()

    assert " ".join(row.split()[2:]) == (
        "Denied client pid 4711 uid 1001 /usr/bin/curl - - - - client-not-allowed -"
    )


def test_json_holds_the_decision_and_its_outcome(store: AuditStore, log: Log) -> None:
    store.record(a_decision())
    store.record(an_outcome())
    store.record(a_denial(MOMENT + 1, path="/\x7f\u202e"))
    store.record(Notice(MOMENT + 2, "stop", "text"))
    store.flush()

    lines = log("--json").splitlines()

    ended, denied, notice = map(json.loads, lines)
    assert (ended["action"], ended["status"], ended["upstream"]) == (
        "allow",
        200,
        "203.0.113.5:443",
    )
    assert (denied["action"], denied["path"], denied["status"]) == ("deny", "/\x7f\u202e", None)
    assert ended.keys() == denied.keys()
    assert (notice["phase"], notice["kind"]) == ("notice", "stop")
    assert all(" " <= character <= "~" for line in lines for character in line)


@pytest.mark.usefixtures("store")
def test_that_nothing_is_found_is_said_apart(
    statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["log", "--statedir", str(statedir)]) == 0

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "claude-proxy: no matching entries\n"


def test_every_option_can_be_a_variable(
    store: AuditStore, statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.record(a_decision(MOMENT))
    store.record(a_denial(MOMENT + 1, target="a.b:443"))
    store.record(a_denial(MOMENT + 2, target="b.c:443"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAUDE_PROXY_STATEDIR", str(statedir))
        patch.setenv("CLAUDE_PROXY_LOG_JSON", "1")
        patch.setenv("CLAUDE_PROXY_LOG_DENIED", "1")
        patch.setenv("CLAUDE_PROXY_LOG_HOST", ".b")

        assert main.main(["log"]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["host"] == "a.b"


# What cannot be shown


def test_before_the_first_start_the_error_says_what_to_do(
    statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["log", "--statedir", str(statedir)]) == 1

    assert capsys.readouterr().err == (
        "claude-proxy: error: there is no audit log yet\n"
        f"  where: {database_in(statedir)}\n"
        "  fix:   start claude-proxy first, or name its state directory with --statedir\n"
    )
    assert not statedir.exists()


def test_without_a_statedir_the_users_own_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["log"]) == 1

    assert str(Path.home()) in capsys.readouterr().err


# Following


@pytest.fixture
def following(statedir: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "claude_proxy", "log", "--follow", "--statedir", str(statedir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def next_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_following_shows_what_comes_until_it_is_interrupted(
    store: AuditStore, following: subprocess.Popen[str]
) -> None:
    assert next_line(following)[0] == "TIME"
    store.record(a_denial(time.time_ns(), path="/first"))
    assert next_line(following)[4] == "https://example.com/first"
    store.record(a_denial(time.time_ns(), path="/second"))
    assert next_line(following)[4] == "https://example.com/second"

    following.send_signal(signal.SIGINT)

    rest, said = following.communicate()
    assert (following.returncode, rest, said) == (0, "", "")


def test_following_ends_when_its_reader_does(
    store: AuditStore, following: subprocess.Popen[str]
) -> None:
    store.record(a_denial(time.time_ns()))
    assert next_line(following)[0] == "TIME"
    assert next_line(following)[2] == "Denied"
    assert following.stdout is not None
    assert following.stderr is not None

    following.stdout.close()

    assert following.wait(60) == 0
    assert following.stderr.read() == ""


@pytest.mark.usefixtures("store")
def test_a_reader_that_left_before_the_first_line_is_no_traceback(statedir: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(
        [sys.executable, "-m", "claude_proxy", "log", "--follow", "--statedir", str(statedir)],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert ended.stderr == b""


# What was used


def spend(store: AuditStore, number: int, *, run: str | None = None, **usage: object) -> None:
    store.record(a_decision(number, run=run, credential="anthropic"))
    store.record(an_outcome(number, usage=a_usage(**usage)))
    store.flush()


def test_a_row_tells_the_credential_and_what_was_used(store: AuditStore, log: Log) -> None:
    spend(store, MOMENT, cache_written=0)

    (_, row) = log().splitlines()
    (line,) = log("--json").splitlines()

    assert row.endswith(
        "allowlist.yaml:12; credential anthropic;"
        " claude-opus-4-1: 12 tokens in, 340 out, 6000 from the cache"
    )
    fields = json.loads(line)
    assert (fields["credential"], fields["usage"]["tokens_out"]) == ("anthropic", 340)


@pytest.mark.usefixtures("_utc")
def test_usage_is_a_table_with_a_total(store: AuditStore, log: Log) -> None:
    spend(store, MOMENT, tokens_in=1_234_567)
    spend(store, MOMENT + 1)
    spend(store, MOMENT + 24 * HOUR)

    assert log("--usage").splitlines() == [
        "DAY         REQUESTS         IN    OUT  CACHE WRITTEN  CACHE READ     TOKENS",
        "2026-01-02         2  1,234,579    680             10      12,000  1,247,269",
        "2026-01-03         1         12    340              5       6,000      6,357",
        "total              3  1,234,591  1,020             15      18,000  1,253,626",
    ]


def test_usage_can_be_by_run_or_model_and_narrowed(store: AuditStore, log: Log) -> None:
    spend(store, MOMENT, run="build", model="claude-haiku-4-5")
    spend(store, time.time_ns())

    def names(*arguments: str) -> list[str]:
        return [line.split()[0] for line in log("--usage", *arguments).splitlines()]

    assert names("--by", "run") == ["RUN", "build", "-", "total"]
    assert names("--by", "model") == ["MODEL", "claude-haiku-4-5", "claude-opus-4-1", "total"]
    assert names("--by", "model", "--run", "build") == ["MODEL", "claude-haiku-4-5", "total"]
    assert names("--by", "model", "--since", "1h") == ["MODEL", "claude-opus-4-1", "total"]


def test_usage_in_json_is_an_object_for_each_sum(store: AuditStore, log: Log) -> None:
    spend(store, MOMENT)

    (line,) = log("--usage", "--by", "run", "--json").splitlines()

    assert json.loads(line) == {
        "run": None,
        "requests": 1,
        "tokens_in": 12,
        "tokens_out": 340,
        "cache_written": 5,
        "cache_read": 6000,
        "tokens": 6357,
        "first": "2026-01-02T03:04:05.000006Z",
        "last": "2026-01-02T03:04:05.000006Z",
    }


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_name_of_a_model_cannot_move_the_cursor(
    store: AuditStore, log: Log, more: tuple[str, ...]
) -> None:
    spend(store, MOMENT, model="\x1b[2J\r\ntotal 0\u202e\x7f" + "m" * 300)

    shown = [*log("--usage", "--by", "model", *more).splitlines(), *log(*more).splitlines()]

    assert all(" " <= character <= "~" for line in shown for character in line)
    assert len(shown) == (2 if more else 5)


def test_a_long_name_moves_no_other_numbers(store: AuditStore, log: Log) -> None:
    spend(store, MOMENT, model="m" * 100)
    spend(store, MOMENT + 1, model="short")

    heading, long, short, _ = log("--usage", "--by", "model").splitlines()

    assert len(heading) == len(short) < len(long)


def test_that_nothing_was_used_is_said_apart(
    store: AuditStore, statedir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.record(a_decision())

    assert main.main(["log", "--usage", "--statedir", str(statedir)]) == 0

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "claude-proxy: no matching usage recorded\n"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--usage", "--denied"], "--denied selects single attempts"),
        (["--usage", "--limit", "5"], "--limit selects single attempts"),
        (["--usage", "--follow"], "--follow selects single attempts"),
        (["--usage", "--host", "a.b"], "--host selects single attempts"),
        (["--usage", "--failed"], "--failed selects single attempts"),
        (["--usage", "--by", "host"], "--usage has no sums by host"),
        (["--by", "model"], "needs --usage"),
        (["--by", "host", "--follow"], "--follow lists single attempts"),
        (["--notices", "--denied"], "--denied selects attempts"),
        (["--notices", "--host", "a.b"], "--host selects attempts"),
        (["--kind", "stop", "--denied"], "--denied selects attempts, and --kind shows none"),
        (["--usage", "--kind", "stop"], "--kind selects single attempts"),
        (["--denied", "--allowed"], "--denied and --allowed select different attempts"),
        (["--denied", "--failed"], "--denied and --failed select different attempts"),
        (["--run", "last"], "there was no run yet"),
    ],
)
@pytest.mark.usefixtures("store")
def test_options_that_do_not_go_together_are_refused(
    statedir: Path, arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["log", "--statedir", str(statedir), *arguments]) == 2

    said = capsys.readouterr().err
    assert what in said
    assert "fix:" in said


def test_a_habit_in_a_variable_waits_and_a_filter_does_not(
    store: AuditStore, log: Log, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(store, MOMENT)
    monkeypatch.setenv("CLAUDE_PROXY_LOG_LIMIT", "5")
    monkeypatch.setenv("CLAUDE_PROXY_LOG_BY", "model")

    assert log().startswith("TIME")
    assert log("--usage").startswith("MODEL")

    monkeypatch.setenv("CLAUDE_PROXY_LOG_HOST", "example.com")
    assert main.main(["log", "--usage", "--statedir", str(statedir)]) == 2
