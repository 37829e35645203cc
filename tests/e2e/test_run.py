"""`claude-proxy run`: a command has the proxy and nothing else, and leaves nothing behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TOOLS, FindProgram
from tests.support.waiting import until

from .conftest import RUN_ALLOWLIST, Launch, StartProxy
from .rig.claude_code import PROMPT
from .rig.git_host import git_host
from .rig.internet import Internet
from .rig.launch import Launches, trusted
from .rig.messages_api import SPOKEN
from .rig.package_index import NODE_PACKAGE, PYTHON_PACKAGE, node_index, python_index
from .rig.terminal import Terminal

API = "api.anthropic.com"
KEY = "sk-ant-api03-imitation"  # the imitated service takes any

# Past the proxy, by whatever a program inside can think of.
WAYS_OUT = {
    "a direct connection": "curl -sS -m 5 --noproxy '*' https://allowed.test/",
    "an address": "curl -sS -m 5 --noproxy '*' http://93.190.1.1/",
    "a raw socket": "exec 3<>/dev/tcp/93.190.1.1/443",
    "a datagram": "echo hello >/dev/udp/9.9.9.9/53",
    "a name": "getent ahosts allowed.test",
    "ping": "ping -c 1 -W 2 93.190.1.1",
    "an ICMP socket": (
        "python3 -c 'import socket; icmp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1); "
        'icmp.sendto(bytes.fromhex("0800f7ff00000000"), ("93.190.1.1", 0))\''
    ),
    "the metadata address": "curl -sS -m 5 --noproxy '*' http://169.254.169.254/",
    "the loopback of the host": "exec 3<>/dev/tcp/127.0.0.1/22",
    "IPv6": "curl -sS -m 5 --noproxy '*' 'http://[2600:1f18::99]/'",
    "another namespace": "unshare --user --net true",
    "a host that is not allowed": "curl -sS -m 5 -f https://denied.test/",
}

SHELL_WORDS = {"echo", "exec"}

# A shell may lose a Ctrl-C that comes while it makes a process.
WAITS = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("begun", flush=True)
signal.pause()
"""


@pytest.fixture
def terminal(runs: Launches, program: FindProgram) -> Iterator[Terminal]:
    """A terminal of the tests' own user."""
    program("tmux")
    terminal = Terminal(runs.directory / "tmux", runs.environment(ANTHROPIC_API_KEY=KEY))
    yield terminal
    terminal.close()


# --- Claude Code


def test_claude_code_answers_with_nothing_but_loopback_around_it(
    anybody: Launches, internet: Internet, program: FindProgram
) -> None:
    trusted(anybody, KEY)
    devices = anybody.project / "devices"
    script = f"cat /proc/net/dev >{devices}; exec {program('claude')} -p hi"

    with internet.watch() as seen:
        ran = anybody.run(
            "sh",
            "-c",
            script,
            options=[
                *("--profile", "claude", "--name", "asking", "--pass-env", "ANTHROPIC_API_KEY"),
                *("--allow-ro", TOOLS.parent),
            ],
            variables={"ANTHROPIC_API_KEY": KEY},
        )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    assert re.findall(r"^\s*(\S+):", devices.read_text(), re.MULTILINE) == ["lo"]
    asked = [exchange for exchange in seen.exchanges if exchange.target.startswith("/v1/messages")]
    assert asked[0].header("x-api-key") == KEY
    rows = [row for row in anybody.audit("--host", API) if row.path == "/v1/messages"]
    assert [row.status for row in rows] == [200]
    assert rows[0].client.endswith(", run asking: sh")


def test_the_profile_of_claude_is_taken_for_claude(runs: Launches, program: FindProgram) -> None:
    trusted(runs, KEY)

    ran = runs.run(
        program("claude"),
        "-p",
        "hi",
        options=["--pass-env", "ANTHROPIC_API_KEY"],
        variables={"ANTHROPIC_API_KEY": KEY},
    )

    assert (ran.stdout.strip(), ran.returncode) == (SPOKEN, 0), ran.stderr
    # What it remembers is kept for the project, and not in the user's own directory.
    assert not (runs.place.home / ".claude").exists()
    [kept] = (runs.place.home / ".local/state/claude-proxy/homes").glob("*/state/.claude")
    assert any(kept.iterdir())


def test_claude_code_holds_a_conversation_in_a_terminal_and_follows_its_size(
    runs: Launches, terminal: Terminal, program: FindProgram
) -> None:
    trusted(runs, KEY)
    words = runs.words([program("claude")], "--pass-env", "ANTHROPIC_API_KEY")

    terminal.start(runs.argv(words))
    terminal.shows(PROMPT)
    terminal.resize(90, 30)
    until(
        lambda: any(len(line) == 90 for line in terminal.screen().splitlines()),
        "a line as wide as the new window",
    )
    terminal.type("what is the answer")
    terminal.shows(SPOKEN)
    terminal.type("/exit")
    until(terminal.ended, f"the end of Claude Code:\n{terminal.screen()}")

    assert [row.status for row in runs.audit("--host", API) if row.path == "/v1/messages"]


def test_claude_code_is_suspended_and_goes_on(
    runs: Launches, terminal: Terminal, program: FindProgram
) -> None:
    trusted(runs, KEY)
    script = runs.script(program("claude"), options=["--pass-env", "ANTHROPIC_API_KEY"])
    terminal.start(runs.argv(["bash", "--norc", "-i"]))

    terminal.type(script)
    terminal.shows(PROMPT)
    terminal.press("C-z")
    terminal.shows("Stopped")
    terminal.type("echo between $((6 * 7))")
    terminal.shows("between 42")
    terminal.type("fg")
    terminal.shows(PROMPT)  # the last one was written over when it stopped
    terminal.type("what is the answer")

    terminal.shows(SPOKEN)


# --- no way out


@pytest.mark.parametrize("way", WAYS_OUT.values(), ids=WAYS_OUT)
def test_there_is_no_way_past_the_proxy(
    runs: Launches, internet: Internet, way: str, program: FindProgram
) -> None:
    tried = way.split(maxsplit=1)[0]
    if tried not in SHELL_WORDS:
        program(tried)

    with internet.watch() as seen:
        ran = runs.run("bash", "-c", way)

    assert ran.returncode not in {0, 127}, ran.stdout
    assert seen.nothing(), seen


def test_an_ordinary_user_has_no_way_past_the_proxy_either(
    launch: Launch, internet: Internet
) -> None:
    runs = launch(ordinary=True)
    script = "\n".join(f"({way}) && echo 'got out: {name}'" for name, way in WAYS_OUT.items())

    with internet.watch() as seen:
        ran = runs.run("bash", "-c", f"{script}\ntrue")

    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert seen.nothing(), seen


def test_what_is_allowed_gets_through_by_http_and_by_socks(anybody: Launches) -> None:
    script = (
        "curl -sS -f --data by-http https://origin.test/echo; "
        "curl -sS -f --proxy socks5h://127.0.0.1:1080 --data by-socks https://origin.test/echo"
    )

    ran = anybody.run("sh", "-c", script)

    assert ran.returncode == 0, ran.stderr
    assert "by-http" in ran.stdout
    assert "by-socks" in ran.stdout


READERS_OF_SYSTEM_FILES = {
    "wget": "wget -q -O- https://origin.test/",
    "openssl": "openssl s_client -verify_return_error -proxy 127.0.0.1:3128 "
    "-connect origin.test:443 -servername origin.test </dev/null",
    "openssl by hash": "openssl s_client -verify_return_error -no-CAfile -CApath /etc/ssl/certs "
    "-proxy 127.0.0.1:3128 -connect origin.test:443 -servername origin.test </dev/null",
    "curl": "curl -sS -f https://origin.test/",
}


@pytest.mark.parametrize("client", READERS_OF_SYSTEM_FILES)
def test_a_client_that_reads_only_the_systems_certificates_trusts_the_ca(
    runs: Launches, program: FindProgram, client: str
) -> None:
    program(client.split(maxsplit=1)[0])
    bare = 'exec env -i PATH="$PATH" https_proxy=http://127.0.0.1:3128 sh -c "$1"'

    ran = runs.run("sh", "-c", bare, "sh", READERS_OF_SYSTEM_FILES[client])

    assert ran.returncode == 0, ran.stderr


def test_socat_serves_one_client_after_the_other(runs: Launches, program: FindProgram) -> None:
    program("socat")
    script = (
        "socat TCP-LISTEN:8080,fork,bind=127.0.0.1 EXEC:cat & "
        "ask() { echo $1 | socat -t 5 - TCP:127.0.0.1:8080,retry=50,interval=0.1; }; "
        "ask one; ask two; kill $!"
    )

    ran = runs.run("bash", "-c", script)

    assert ran.stdout == "one\ntwo\n", ran.stderr


def test_a_run_without_network_has_nothing_but_loopback(runs: Launches) -> None:
    script = "curl -sS -m 5 --proxy http://127.0.0.1:3128 https://origin.test/ || exit 7"

    ran = runs.run("sh", "-c", script, options=["--no-network"])

    assert ran.returncode == 7
    assert runs.audit("--host", "origin.test") == []


# --- what people do inside


def test_git_clones(runs: Launches, internet: Internet, tmp_path: Path) -> None:
    bare = tmp_path / "project.git"
    seed = tmp_path / "seed"
    for words in (
        ["git", "init", "-q", "-b", "main", str(seed)],
        ["git", "-C", str(seed), "commit", "-q", "--allow-empty", "-m", "the first"],
        ["git", "clone", "-q", "--bare", str(seed), str(bare)],
    ):
        subprocess.run(words, check=True, env={**os.environ, **GIT_AUTHOR})
    internet.site("git.test", git_host(tmp_path))

    ran = runs.run("git", "clone", "https://git.test/project.git", "cloned")

    assert ran.returncode == 0, ran.stderr
    assert (runs.project / "cloned" / ".git" / "HEAD").exists()


GIT_AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "somebody"), ("EMAIL", "somebody@example.com"))
}


def test_pip_installs(runs: Launches, internet: Internet) -> None:
    internet.site("pypi.test", python_index())
    index = ["--index-url", "https://pypi.test/simple"]
    words = ["-m", "pip", "install", "--no-cache-dir", *index, "--target", "lib", PYTHON_PACKAGE]

    ran = runs.run(sys.executable, *words)

    assert ran.returncode == 0, ran.stderr
    assert (runs.project / "lib" / "greeting.py").exists()


def test_npm_installs(runs: Launches, internet: Internet, program: FindProgram) -> None:
    internet.site("npm.test", node_index("npm.test"))
    (runs.project / "package.json").write_text('{"name": "tried", "private": true}')

    ran = runs.run(
        program("npm"), "install", "--registry", "https://npm.test", "--no-audit", NODE_PACKAGE
    )

    assert ran.returncode == 0, ran.stderr
    assert (runs.project / "node_modules" / NODE_PACKAGE / "index.js").exists()


# --- as a command of the shell


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
def test_the_exit_code_is_the_commands(runs: Launches, script: str, code: int) -> None:
    assert runs.run("sh", "-c", script).returncode == code


def test_the_streams_are_the_commands_and_nothing_else_is_in_them(runs: Launches) -> None:
    runs.run("true")  # the first run with a list says what its owner may want to change
    ran = runs.run("sh", "-c", "cat; echo to-err >&2", given=b"by a pipe\n")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "by a pipe\n", "to-err\n")


def test_much_output_arrives_whole(runs: Launches) -> None:
    ran = runs.run("sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x")

    assert len(ran.stdout) == 50_000_000


def test_no_descriptor_but_the_three_reaches_the_command(runs: Launches) -> None:
    ran = runs.run("sh", "-c", "ls /proc/$$/fd")

    assert ran.stdout.split() == ["0", "1", "2"]


def test_a_command_that_closes_its_streams_still_ends(runs: Launches) -> None:
    assert runs.run("sh", "-c", "exec <&- >&- 2>&-; exit 3").returncode == 3


def test_what_a_command_leaves_running_ends_with_it(runs: Launches) -> None:
    ran = runs.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo started")

    assert (ran.returncode, ran.stdout) == (0, "started\n")
    # And `close` of the fixture finds nothing left.


def test_a_command_that_does_not_exist_is_an_error_and_no_traceback(runs: Launches) -> None:
    ran = runs.run("no-such-command")

    assert ran.returncode == 127
    assert "command 'no-such-command' not found" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert runs.left() == []


@pytest.mark.parametrize("limit", [12, 16, 40, 64, 80])
def test_too_few_descriptors_are_the_error_and_nothing_is_run(runs: Launches, limit: int) -> None:
    words = shlex.join(str(word) for word in runs.words(["echo", "begun"]))

    out, err = runs.popen(["sh", "-c", f"ulimit -n {limit}; exec {words}"]).communicate()

    assert b"begun" not in out
    assert b"error: too few files may be open\n" in err
    assert b"ulimit -n" in err
    assert runs.left() == []


def test_what_was_denied_is_said_at_the_end_with_the_line_that_would_allow_it(
    runs: Launches,
) -> None:
    ran = runs.run(
        "sh", "-c", "curl -s https://first.denied.test/; curl -s https://first.denied.test/"
    )

    assert "denied in this run: 2 attempts" in ran.stderr
    assert "2x first.denied.test:443 (no-rule): claude-proxy allow first.denied.test" in ran.stderr


def test_python_survives_ctrl_c_in_a_terminal(runs: Launches, terminal: Terminal) -> None:
    terminal.start(runs.argv(runs.words([sys.executable, "-q", "-X", "utf8"])))
    terminal.shows(">>>")
    # Until the line is being executed, the key is one of the line's.
    terminal.type("import time; print('asleep', 6 * 7); time.sleep(600)")
    terminal.shows("asleep 42")
    terminal.press("C-c")
    terminal.shows("KeyboardInterrupt")
    terminal.type("print('still', 6 * 7)")
    terminal.shows("still 42")
    terminal.type("raise SystemExit(0)")

    until(terminal.ended, f"the end of Python:\n{terminal.screen()}")


def test_ctrl_c_ends_what_does_not_catch_it_with_130(runs: Launches, terminal: Terminal) -> None:
    script = runs.script(sys.executable, "-S", "-c", WAITS)

    terminal.start(runs.argv(["bash", "--norc", "-i"]))
    terminal.type(script)
    terminal.shows("begun")
    terminal.press("C-c")

    terminal.type("echo code=$?")
    terminal.shows("code=130")


def test_a_run_is_suspended_and_goes_on_as_any_job(runs: Launches, terminal: Terminal) -> None:
    script = runs.script("sh", "-c", "echo begun; exec cat")
    terminal.start(runs.argv(["bash", "--norc", "-i"]))

    terminal.type(script)
    terminal.shows("begun")
    terminal.press("C-z")
    terminal.shows("Stopped")
    terminal.type("echo between $((6 * 7))")
    terminal.shows("between 42")
    terminal.type("fg")
    terminal.shows(script, times=3)  # typed, stopped, and now in the foreground
    terminal.type("and on")
    terminal.shows("and on", times=2)
    terminal.press("C-d")
    terminal.type("echo code=$?")

    terminal.shows("code=0")
    terminal.type("exit")
    until(terminal.ended, "the end of the shell")


def test_a_shell_inside_has_jobs_and_the_size_of_the_window(
    runs: Launches, terminal: Terminal
) -> None:
    words = runs.words([], "--shell")[:-1]

    terminal.start(runs.argv(words), columns=120, lines=40)
    terminal.type("stty size")
    terminal.shows("40 120")
    terminal.resize(100, 30)
    terminal.type("stty size")
    terminal.shows("30 100")
    # Until the job has the terminal, the key is one of the line's.
    terminal.type("sh -c 'echo asleep $((6 * 7)); exec sleep 600'")
    terminal.shows("asleep 42")
    terminal.press("C-z")
    terminal.shows("Stopped")
    # The shell does not end while it has a stopped job; with -b it says at once that the job ended.
    terminal.type("set -b; kill %1")
    terminal.shows("Terminated")
    terminal.type("exit")

    until(terminal.ended, f"the end of the shell:\n{terminal.screen()}")


# --- several, and what is left of them


def test_two_runs_at_once_do_not_meet(runs: Launches) -> None:
    script = "curl -sS https://{}.denied.test/ >/dev/null 2>&1; echo done; read line"
    first = runs.start("sh", "-c", script.format("first"), options=["--name", "one"])
    second = runs.start("sh", "-c", script.format("second"), options=["--name", "two"])
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"

    assert [name.partition(".")[0] for name in runs.left()] == ["one", "two"]
    for process, own, other in ((first, b"first", b"second"), (second, b"second", b"first")):
        out, err = process.communicate(b"\n")
        assert out == b""
        assert own + b".denied.test" in err
        assert other not in err

    assert (first.returncode, second.returncode) == (0, 0)
    clients = {row.host: row.client for row in runs.audit("--denied")}
    assert clients["first.denied.test"].endswith(", run one: sh")
    assert clients["second.denied.test"].endswith(", run two: sh")
    assert runs.left() == []


@pytest.mark.parametrize("victim", ["proxy", "relay"])
def test_without_its_proxy_or_relay_a_run_has_no_network_and_goes_on(
    runs: Launches, internet: Internet, victim: str
) -> None:
    ask = "curl -sS -m 60 https://origin.test/echo >/dev/null 2>&1; echo $?"
    process = runs.start("sh", "-c", f"{ask}; read line; {ask}; exit 5")
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"

    runs.kill(victim)
    with internet.watch() as seen:
        out, err = process.communicate(b"\n")

    assert out.strip() not in {b"", b"0"}
    assert process.returncode == 5
    assert re.search(
        rf"the {victim} of this run .*was killed by signal 9 \(SIGKILL\) before COMMAND ended.*"
        r"had no network$".encode(),
        err,
        re.MULTILINE,
    )
    assert seen.nothing()
    until(lambda: not runs.all_processes(), "the end of all processes")
    assert runs.left() == []


def test_a_killed_launcher_takes_everything_with_it(runs: Launches) -> None:
    process = runs.start("sh", "-c", "echo begun; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    assert set(runs.helpers()) == {"launcher", "proxy", "relay"}

    os.kill(runs.helpers()["launcher"], signal.SIGKILL)
    process.communicate()

    until(lambda: not runs.all_processes(), f"processes are left: {runs.all_processes()}")
    assert len(runs.left()) == 1
    assert runs.run("true").returncode == 0
    assert runs.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_ends_the_sandbox_and_cleans_up(
    runs: Launches, number: signal.Signals
) -> None:
    process = runs.start(
        "sh",
        "-c",
        "trap 'echo told; exit 0' TERM HUP; echo begun; sleep 600 & wait",
        options=["--grace", "2m"],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"

    os.kill(runs.helpers()["launcher"], number)
    out, _ = process.communicate()

    assert out == b"told\n"
    assert process.returncode == 128 + number
    assert runs.all_processes() == []
    assert runs.left() == []


def test_a_command_that_ignores_the_signal_is_ended_all_the_same(runs: Launches) -> None:
    process = runs.start("sh", "-c", "trap '' TERM; echo begun; while :; do sleep 1; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"

    os.kill(runs.helpers()["launcher"], signal.SIGTERM)
    os.kill(runs.helpers()["launcher"], signal.SIGTERM)
    process.communicate()

    assert process.returncode == 143
    assert runs.left() == []


# --- by a proxy that runs already


def test_a_run_joins_a_running_proxy(runs: Launches, start_proxy: StartProxy) -> None:
    proxy = start_proxy(RUN_ALLOWLIST)
    where: list[str | Path] = ["--proxy", f"127.0.0.1:{proxy.port}", "--name", "joined"]
    where += ["--confdir", proxy.confdir]

    ran = runs.run("curl", "-sS", "-f", "-d", "joined", "https://origin.test/echo", options=where)

    assert ran.returncode == 0, ran.stderr
    (row,) = [row for row in proxy.decisions("origin.test:443") if row.path == "/echo"]
    assert "run joined: curl" in row.client


def test_without_the_proxy_that_it_is_to_join_nothing_is_run(runs: Launches) -> None:
    ran = runs.run("echo", "ran", options=["--proxy", "127.0.0.1:9"])

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "claude-proxy is not running on 127.0.0.1:9" in ran.stderr


def test_without_the_certificate_of_the_proxy_nothing_is_run(
    runs: Launches, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(RUN_ALLOWLIST)

    ran = runs.run("echo", "ran", options=["--proxy", f"127.0.0.1:{proxy.port}"])

    assert (ran.returncode, ran.stdout) == (1, "")
    assert str(runs.place.home / ".config/claude-proxy/mitmproxy-ca-cert.pem") in ran.stderr


# --- looking before leaping


def test_verifying_prints_four_checks_and_then_runs_the_command(anybody: Launches) -> None:
    anybody.run("true")  # the first run with a list says what its owner may want to change
    ran = anybody.run("echo", "ran", options=["--verify"])

    assert (ran.returncode, ran.stdout) == (0, "ran\n")
    assert [line.split()[1] for line in ran.stderr.splitlines()] == ["ok"] * 4


def test_a_check_that_goes_wrong_stops_the_run(launch: Launch) -> None:
    runs = launch("allow: []\n")

    ran = runs.run("echo", "ran", options=["--verify"])

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "WRONG  api.anthropic.com:443 should be allowed" in ran.stderr


def test_a_dry_run_starts_nothing_and_makes_nothing(runs: Launches) -> None:
    ran = runs.run("touch", "made", options=["--dry-run"])

    assert ran.returncode == 0, ran.stderr
    assert "--unshare-net" in ran.stdout
    assert "HTTPS_PROXY" in ran.stdout
    assert [path.name for path in runs.project.iterdir()] == []
    assert not (runs.place.home / ".config").exists()
    assert runs.left() == []


def test_a_file_as_standard_input_cannot_be_written_inside(runs: Launches) -> None:
    source, out = runs.directory / "source", runs.directory / "out"
    source.write_text("one\ntwo\n")
    inside = "read line; echo got $line; echo evil >/proc/self/fd/0; chmod 777 /proc/self/fd/0"
    words = runs.argv(runs.words(["sh", "-c", inside], "--no-network"))

    with source.open("rb") as reading, out.open("wb") as writing:
        done = subprocess.run(
            words, env=runs.environment(), stdin=reading, stdout=writing, check=False
        )

    assert source.read_text() == "one\ntwo\n"
    assert not source.stat().st_mode & 0o111
    assert out.read_text() == "got one\n"
    assert done.returncode == 0


def test_a_policy_that_the_sandbox_could_write_is_refused(runs: Launches) -> None:
    own = runs.project / "allowlist.yaml"
    own.write_text(RUN_ALLOWLIST)

    ran = runs.run("echo", "ran", options=["--allowlist", own])

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "the sandbox could write to its own allowlist" in ran.stderr


def test_a_run_joins_a_foreign_proxy_and_says_that_it_is_one(
    runs: Launches, internet: Internet, program: FindProgram, tmp_path: Path
) -> None:
    settings = tmp_path / "tinyproxy.conf"
    settings.write_text(f'Port 18888\nListen 127.0.0.1\nLogFile "{tmp_path}/log"\n')
    foreign = subprocess.Popen(
        internet.host.argv([program("tinyproxy"), "-d", "-c", str(settings)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ran = runs.run(
            "curl", "-sS", "-f", "http://plain.test/echo", options=["--proxy", "127.0.0.1:18888"]
        )
    finally:
        foreign.terminate()
        foreign.wait()

    assert ran.returncode == 0, ran.stderr
    assert "is not claude-proxy" in ran.stderr


def test_what_only_a_proxy_of_its_own_could_keep_is_refused_beside_a_running_one(
    runs: Launches,
) -> None:
    words = runs.words(["echo", "ran"], "--proxy", "127.0.0.1:9")
    words[words.index("--proxy") : words.index("--proxy")] = ["--allowlist", runs.allowlist]

    ran = subprocess.run(
        runs.argv(words), env=runs.environment(), capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "where: --allowlist, --proxy" in ran.stderr
