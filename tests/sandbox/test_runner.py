"""A run starts nothing before all is ready, returns COMMAND's exit code and leaves nothing."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import host_facts, netns, profiles, runner, waiting_process
from claude_proxy.sandbox.job_control import JobControl
from claude_proxy.sandbox.plan.model import SandboxSpec, UnixSockets
from claude_proxy.sandbox.run_spec import MissingError, RunSpec
from claude_proxy.sandbox.runner import live_sandbox, run
from tests.conftest import FindProgram
from tests.support.engines import HOLDS, Engine
from tests.support.processes import has_ended
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PIPES = (subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE)


def network_of(process: str) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


class Place:
    """A user's directories, and orders from there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.project.mkdir()
        self.runtime = directory / "runtime"
        self.runtime.mkdir(mode=0o700)
        allowlist = directory / "allowlist.yaml"
        allowlist.write_text("allow: [allowed.test]\n", encoding="utf-8")
        self.settings = Settings(allowlist, directory / "conf", directory / "state")
        self.said: list[str] = []

    def run_spec(
        self, *command: str, network: bool = False, verify: bool = False, join: str | None = None
    ) -> RunSpec:
        """Return an order; without a network, as starting a proxy takes a second."""
        profile = profiles.load("shell", self.directory / "profiles")
        mode = NetworkMode.PROXY if network else NetworkMode.NONE
        spec = SandboxSpec(command, self.project, profile, network=mode)
        return RunSpec(spec, self.settings, verify=verify, join=join)

    def run(self, *command: str) -> int:
        """Run a command; what is said of it is kept."""
        return run(self.run_spec(*command), say=self.said.append)

    def run_and_meanwhile(self, run_spec: RunSpec, act: Callable[[], object]) -> int:
        """Run an order; act once it is planned and nothing of it is mounted yet."""
        acts = iter([act])

        def say(_: str) -> None:
            for one in acts:
                one()

        return run(replace(run_spec, show_plan=True), say=say)

    def left(self) -> list[str]:
        """Return what is left of runs."""
        return [path.name for path in (self.runtime / "claude-proxy").glob("[!.]*")]

    def notices(self) -> list[tuple[str, str]]:
        """Return what the audit log has of runs."""
        with closing(sqlite3.connect(database_in(self.settings.statedir))) as database:
            return database.execute("SELECT kind, text FROM notice ORDER BY id").fetchall()


@pytest.fixture
def place(program: FindProgram, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A user's directories."""
    program("bwrap")
    with tempfile.TemporaryDirectory(prefix="place-") as name:
        place = Place(Path(name))
        (place.directory / "home").mkdir()
        monkeypatch.setenv("HOME", str(place.directory / "home"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.runtime))
        yield place


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 9", 9), ("kill -TERM $$", 143), ("kill -INT $$", 130)]
)
def test_the_exit_code_is_that_of_the_command(place: Place, script: str, code: int) -> None:
    assert place.run("sh", "-c", script) == code
    assert place.left() == []
    assert place.said == []


def test_the_audit_log_has_the_start_and_the_end_of_a_run(place: Place) -> None:
    place.run("sh", "-c", "exit 3")

    (start, end) = place.notices()
    assert start[0] == "run-start"
    assert start[1].endswith(": sh")
    assert end[0] == "run-end"
    assert end[1].endswith(": exit code 3")


def test_a_run_that_cannot_be_recorded_is_not_started(place: Place) -> None:
    database_in(place.settings.statedir).mkdir(parents=True)

    with pytest.raises(ClaudeProxyError, match="audit log"):
        place.run("touch", "ran")

    assert list(place.project.iterdir()) == []
    assert place.left() == []


def test_a_sandbox_is_ready_before_its_command_starts(place: Place) -> None:
    with live_sandbox(place.run_spec("touch", "ran"), streams=PIPES) as sandbox:
        assert sandbox.bubblewrap.alive
        assert network_of(str(sandbox.bubblewrap.init)) != network_of("self")
        assert list(place.project.iterdir()) == []

        ran = sandbox.finish()

    assert ran.returncode == 0
    assert [path.name for path in place.project.iterdir()] == ["ran"]


def test_a_sandbox_that_is_not_released_never_runs_its_command(place: Place) -> None:
    with live_sandbox(place.run_spec("touch", "ran"), streams=PIPES):
        pass

    assert list(place.project.iterdir()) == []
    assert place.left() == []


def test_the_output_of_a_command_can_be_captured(place: Place) -> None:
    run_spec = place.run_spec("sh", "-c", "cat; echo two >&2")
    streams = (subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)

    with live_sandbox(run_spec, streams=streams) as sandbox:
        ran = sandbox.finish(b"one\n", timeout_s=60)

    assert (ran.stdout, ran.stderr) == (b"one\n", b"two\n")


def test_a_sandbox_with_a_network_has_a_proxy_and_a_relay(place: Place) -> None:
    run_spec = place.run_spec("cat", network=True)

    with live_sandbox(run_spec, streams=PIPES) as sandbox:
        assert sandbox.proxy_process is not None
        relay = next(helper for helper in sandbox.helpers if helper.what == "relay")
        assert list(sandbox.lost()) == []
        ways = netns.probe_network(
            sandbox.bubblewrap.init, 3128, "allowed.test:443", "denied.test:443"
        )
        pids = [sandbox.proxy_process.pid, relay.pid, sandbox.bubblewrap.init]

    assert (ways.allowed, ways.denied) == (200, 403)
    assert ways.direct is not None
    until(lambda: all(map(has_ended, pids)), "the end of them all")
    assert place.left() == []


def test_everything_that_the_machine_lacks_is_reported_together() -> None:
    missing = MissingError([ClaudeProxyError("one", fix="fix one"), ClaudeProxyError("two")])

    assert missing.lines() == ["error: one", "  fix:   fix one", "error: two"]
    assert missing.exit_code == 1


def test_a_run_inside_a_run_is_reported_as_such(place: Place) -> None:
    words = (sys.executable, "-m", "claude_proxy", "run", "--no-network", "--", "touch", "ran")
    run_spec = place.run_spec("env", f"PYTHONPATH={ROOT}", *words)
    shown = (Path(sys.prefix), Path(sys.base_prefix), ROOT)
    run_spec = replace(run_spec, sandbox=replace(run_spec.sandbox, allow_ro=shown))

    with live_sandbox(run_spec, streams=PIPES) as sandbox:
        ran = sandbox.finish(timeout_s=120)

    assert ran.returncode == 1
    assert b"error: this is already inside a sandbox" in ran.stderr
    assert list(place.project.iterdir()) == []


def test_a_proxy_that_does_not_start_ends_the_run_before_its_command(place: Place) -> None:
    place.settings.allowlist.write_text("nonsense: true\n")

    with pytest.raises(ConfigError):
        run(place.run_spec("touch", "ran", network=True), say=place.said.append)

    assert list(place.project.iterdir()) == []
    assert place.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_ends_the_run_and_cleans_up(
    place: Place, number: signal.Signals
) -> None:
    # Its proxy is starting by then.
    run_spec = place.run_spec("touch", "ran", network=True)

    code = place.run_and_meanwhile(run_spec, lambda: os.kill(os.getpid(), number))

    assert code == 128 + number
    assert list(place.project.iterdir()) == []
    assert place.left() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_unprotected_paths_are_compared_after_the_run(place: Place) -> None:
    run_spec = place.run_spec("true")
    watched = runner.planned_for(run_spec, dry=True).watched
    assert watched, "nothing is watched in a bare project"
    target = watched[0]
    target.parent.mkdir(parents=True, exist_ok=True)

    code = place.run("sh", "-c", f"mkdir -p {target}; true")

    assert code == 0
    if target.exists():
        assert any(str(target) in line for line in place.said)


def test_what_agents_outside_obey_is_named_at_the_end(place: Place) -> None:
    (place.project / "AGENTS.md").write_text("")
    script = "mkdir -p .claude/skills a; touch .claude/skills/SKILL.md a/CLAUDE.md; rm AGENTS.md"

    place.run("sh", "-c", script)

    named = [line for line in place.said if "this run" in line]
    assert [line.partition("this run ")[2].partition(" (")[0] for line in named] == [
        f"created or changed {place.project}/.claude/skills/SKILL.md",
        f"removed {place.project}/AGENTS.md",
        f"created or changed {place.project}/a/CLAUDE.md",
    ]


def test_repositories_and_layouts_that_a_run_leaves_are_named(place: Place) -> None:
    script = "mkdir -p node_modules/x && git init -q node_modules/x && git init -q --bare b"

    assert place.run("sh", "-c", script) == 0

    named = [line for line in place.said if "this run" in line]
    assert f"{place.project}/node_modules/x/.git (a repository: " in named[0]
    assert f"{place.project}/b (laid out as a repository: Git obeys" in named[1]


def test_what_one_run_has_linked_cannot_be_written_by_the_next(place: Place) -> None:
    place.run("sh", "-c", "echo new > .envrc; ln .envrc other; mkdir .zed; ln .envrc .zed/x")

    with pytest.raises(ConfigError, match="a protected file has a second name"):
        place.run("sh", "-c", "echo bad > other")

    assert (place.project / ".envrc").read_text() == "new\n"


def test_a_name_that_was_looked_up_past_the_proxy_is_named_and_recorded(place: Place) -> None:
    run_spec = place.run_spec("getent", "hosts", "stream.example", network=True)

    code = run(run_spec, say=place.said.append)

    line = "stream.example was looked up past the proxy by getent"
    assert code == 2
    assert f"note: {line}" in place.said
    assert [text.partition(": ")[2] for kind, text in place.notices() if kind == "name-lookup"] == [
        line
    ]


def test_the_copy_of_the_list_follows_the_list(place: Place) -> None:
    list_ = place.settings.allowlist
    wait = "while ! grep -q second.test /run/claude-proxy/allowlist.yaml; do sleep 0.05; done"
    run_spec = place.run_spec(
        "sh", "-c", f"{wait}; cat /run/claude-proxy/allowlist.yaml", network=True
    )

    with live_sandbox(run_spec, streams=PIPES) as sandbox:
        new = list_.with_suffix(".new")
        new.write_text("allow: [allowed.test, second.test]\n")
        new.replace(list_)
        done = sandbox.finish(timeout_s=60)

    assert done.stdout == b"allow: [allowed.test, second.test]\n"


def test_many_changed_files_are_counted(place: Place) -> None:
    place.run("sh", "-c", "for n in $(seq 30); do mkdir $n; touch $n/CLAUDE.md; done")

    assert place.said[-1].startswith("warning: and 10 more such files: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_is_sent_to_the_launcher_alone_reaches_command(
    place: Place, number: signal.Signals
) -> None:
    words = [sys.executable, "-m", "claude_proxy", "run", "--no-network", "--", "sh", "-c"]
    environment = {
        "HOME": str(place.directory),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(place.runtime),
    }
    process = subprocess.Popen(
        [*words, "echo begun; exec sleep 600"],
        cwd=place.project,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"

    process.send_signal(number)

    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert place.left() == []


def test_what_is_gone_before_it_is_mounted_ends_the_run(place: Place) -> None:
    shown = place.directory / "shown"
    shown.mkdir()
    run_spec = place.run_spec("touch", "ran", network=True)
    run_spec = replace(run_spec, sandbox=replace(run_spec.sandbox, allow_ro=(shown,)))

    with pytest.raises(ClaudeProxyError, match="while the run started"):
        place.run_and_meanwhile(run_spec, shown.rmdir)
    assert list(place.project.iterdir()) == []
    assert place.left() == []


@pytest.mark.parametrize("network", [True, False])
def test_a_start_that_fails_leaves_nothing_that_it_created(place: Place, *, network: bool) -> None:
    shown = place.directory / "shown"
    shown.mkdir()
    subprocess.run(["git", "init", "-q", "--template=", place.project], check=True)
    before = sorted(place.directory.rglob("*"))
    run_spec = place.run_spec("touch", "ran", network=network)
    profile = profiles.load("claude", place.directory / "profiles")
    sandbox = replace(run_spec.sandbox, profile=profile, allow_ro=(shown,))

    with pytest.raises(ClaudeProxyError, match="while the run started"):
        place.run_and_meanwhile(replace(run_spec, sandbox=sandbox), shown.rmdir)

    left = set(place.directory.rglob("*")) - set(before)
    ours = (place.settings.confdir, place.settings.statedir, place.runtime)
    assert [path for path in left if not any(path.is_relative_to(one) for one in ours)] == []
    assert [path.name for path in place.settings.statedir.rglob("*.log")] == []


def test_what_was_there_before_a_failed_start_stays(place: Place) -> None:
    shown, settings = place.directory / "shown", place.directory / "home/.claude"
    shown.mkdir()
    settings.mkdir()
    (settings / "history").touch()
    run_spec = place.run_spec("touch", "ran")
    profile = profiles.load("claude", place.directory / "profiles")
    sandbox = replace(run_spec.sandbox, profile=profile, allow_ro=(shown,))

    with pytest.raises(ClaudeProxyError, match="while the run started"):
        place.run_and_meanwhile(replace(run_spec, sandbox=sandbox), shown.rmdir)

    assert (settings / "history").exists()


def test_a_link_created_between_planning_and_mounting_ends_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded, decoy = place.project / ".vscode", place.project / "decoy"
    guarded.mkdir()
    decoy.mkdir()

    def overtaken() -> None:
        guarded.rename(place.project / "aside")  # as an agent of another run there could
        guarded.symlink_to("decoy")

    # Time enough for all that is as it was planned, also on a busy machine.
    monkeypatch.setattr(host_facts, "_MOUNT_PATIENCE_S", 5.0)

    with pytest.raises(ClaudeProxyError, match="while the run started") as raised:
        place.run_and_meanwhile(place.run_spec("touch", "ran"), overtaken)
    assert ".vscode" in str(raised.value.where)
    assert not (place.project / "ran").exists()
    assert place.left() == []


def test_a_run_without_a_proxy_of_its_own_ends_one_that_was_started_early(place: Place) -> None:
    waiting_process.expect(["true"], {"PATH": os.environ["PATH"]})
    assert waiting_process._Early.waiting is not None
    early = waiting_process._Early.waiting.process

    with live_sandbox(place.run_spec("true"), streams=PIPES):
        assert early.returncode == -signal.SIGKILL


def test_every_helper_of_a_run_ends_when_it_is_let_go(place: Place) -> None:
    with live_sandbox(place.run_spec("true", network=True), streams=PIPES) as sandbox:
        assert sandbox.proxy_process is not None
        sandbox.proxy_process.wait_until_ready()
        sandbox.finish(timeout_s=60)

        sandbox.let_go()
        helpers = (*sandbox.helpers, sandbox.proxy_process)
        codes = [helper.process.wait(60) for helper in helpers]

    assert codes == [0] * len(helpers)


@pytest.mark.parametrize("sockets", UnixSockets)
def test_a_run_whose_unix_sockets_nobody_can_judge_has_none_and_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch, sockets: UnixSockets
) -> None:
    old = SimpleNamespace(machine=os.uname().machine, release="5.4.0")
    monkeypatch.setattr(os, "uname", lambda: old)
    script = "import socket; socket.socket(socket.AF_UNIX)"
    spec = place.run_spec(sys.executable, "-c", script)
    said: list[str] = []

    code = run(replace(spec, sandbox=replace(spec.sandbox, unix_sockets=sockets)), say=said.append)

    told = any("COMMAND has no Unix sockets" in line for line in said)
    assert (code, told) == (1, sockets is UnixSockets.PRIVATE)


# --- COMMAND starts before the engine is there


def test_a_command_may_end_before_the_engine_is_there(place: Place) -> None:
    with Engine(place.directory).that(HOLDS):
        assert run(place.run_spec("sh", "-c", "exit 7", network=True), say=place.said.append) == 7

    assert (place.said, place.left()) == ([], [])


def test_what_a_command_asks_waits_for_the_engine_and_is_judged(place: Place) -> None:
    engine = Engine(place.directory)
    ask = "from urllib.request import urlopen; print(flush=True); urlopen('http://denied.test/')"

    with (
        engine.that(HOLDS),
        live_sandbox(place.run_spec("python3", "-c", ask, network=True), streams=PIPES) as sandbox,
    ):
        assert sandbox.proxy_process is not None
        sandbox.bubblewrap.release()
        process = sandbox.bubblewrap.process
        assert process.stdout is not None
        process.stdout.readline()
        engine.release()
        _, said = process.communicate(timeout=120)

    assert b"403" in said


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("os._exit(9)", "error: the proxy of this run ended (exit code 9) before it was ready"),
        ("raise ImportError", "error: internal error (ImportError) in the proxy of the run"),
    ],
)
def test_an_engine_that_fails_ends_the_command_with_its_error(
    place: Place, does: str, problem: str
) -> None:
    engine = Engine(place.directory)
    waits = f"touch began; cat {place.project}/never"
    os.mkfifo(place.project / "never")

    def release() -> None:
        until((place.project / "began").exists)
        engine.release()

    with engine.that(f"{HOLDS}; {does}"):
        releasing = threading.Thread(target=release)
        releasing.start()
        code = run(place.run_spec("sh", "-c", waits, network=True), say=place.said.append)
        releasing.join()

    assert (code, place.said[0]) == (1, problem)
    assert place.said[-1] == "note: COMMAND had begun, without any network, and was ended"
    assert place.notices()[-1][1].endswith(": exit code 1")
    assert place.left() == []


def test_an_engine_that_never_comes_ends_the_command(place: Place) -> None:
    os.mkfifo(place.project / "never")
    order = place.run_spec("cat", f"{place.project}/never", network=True)

    with (
        Engine(place.directory).that(HOLDS),
        live_sandbox(order, streams=PIPES) as sandbox,
    ):
        proxy_process = sandbox.proxy_process
        assert proxy_process is not None
        proxy_process.patience.give_up_at = 0.0
        job = JobControl(
            sandbox.bubblewrap, None, own_session=False, grace_s=1.0, proxy=proxy_process
        )

        assert job.run() == 128 + signal.SIGKILL

    assert proxy_process.start_error is not None
    assert "was not ready after" in proxy_process.start_error.what


def test_what_was_denied_because_it_could_not_be_recorded_is_said_at_the_end(place: Place) -> None:
    ask = """
import pathlib, urllib.error, urllib.request
body = b""
while b"audit-failed" not in body:
    try:
        urllib.request.urlopen("http://denied.test/")
    except urllib.error.HTTPError as error:
        body = error.read()
        pathlib.Path("asked").touch()
"""
    database = database_in(place.settings.statedir)

    def lose_the_record() -> None:
        until((place.project / "asked").exists)
        database.rename(place.directory / "moved")
        database.mkdir()

    losing = threading.Thread(target=lose_the_record)
    losing.start()
    code = run(place.run_spec("python3", "-c", ask, network=True), say=place.said.append)
    losing.join()

    assert code == 0
    said = "\n".join(place.said)
    assert re.search(
        r"^warning: [1-9]\d* connections and requests of this run were denied, because they could "
        rf"not be recorded: the audit log .*\n  where: {database}\n  fix:   \S",
        said,
        re.MULTILINE,
    )
    assert place.left() == []


def test_a_self_check_waits_for_the_engine(place: Place) -> None:
    engine = Engine(place.directory)
    releasing = threading.Thread(target=engine.release)
    releasing.start()

    with engine.that(HOLDS):
        order = replace(place.run_spec("true", network=True), verify=True)
        code = run(order, say=place.said.append)
    releasing.join()

    assert code == 0, place.said
