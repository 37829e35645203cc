"""Keeps the laws of `claude-proxy relay`: its options, and the command that it leads through."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.cli.relay import environment

WAIT_S = 30
PRINTER = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def upstream(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "proxy.sock"))
        listener.listen()
        listener.settimeout(WAIT_S)
        yield listener


def relay(
    *arguments: str, stdin: int | None = None, start_new_session: bool = False
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "claude_proxy", "relay", *arguments],
        text=True,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=start_new_session,
    )


def around(*command: str, bundle: Path | None = None) -> tuple[int, str, str]:
    trusted = () if bundle is None else ("--bundle", str(bundle))
    arguments = ("--http-port", "0", "--socket", "/nonexistent", *trusted, "--", *command)
    with relay(*arguments) as process:
        out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_seeds_spelling_and_ours_mean_the_same(upstream: socket.socket) -> None:
    path = str(upstream.getsockname())
    for arguments in (
        ("--http-port", "0", "--socket", path),
        ("--listen", "127.0.0.1:0", "--to", f"unix:{path}"),
    ):
        with relay(*arguments) as process:
            assert process.stderr is not None
            where = process.stderr.readline().partition("listens on ")[2].partition(",")[0]
            port = int(where.removeprefix("127.0.0.1:"))
            with socket.create_connection(("127.0.0.1", port), WAIT_S) as client:
                client.sendall(b"x")
                with upstream.accept()[0] as peer:
                    assert peer.recv(1) == b"x"
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=WAIT_S) == ("", "")
            assert process.returncode == 0


def test_a_command_is_led_through_the_relay_that_already_listens(upstream: socket.socket) -> None:
    code = (
        "import os, socket; host, port = os.environ['HTTP_PROXY'][7:].split(':');"
        "s = socket.create_connection((host, int(port))); s.sendall(b'hello')"
    )
    arguments = ("--http-port", "0", "--socket", str(upstream.getsockname()))

    with relay(*arguments, "--", *python(code)) as process, upstream.accept()[0] as peer:
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
        assert process.communicate(timeout=WAIT_S) == ("", "")

    assert process.returncode == 0


def test_a_command_finds_the_relay_in_every_variable() -> None:
    code, out, err = around(*python(PRINTER))

    assert (code, err) == (0, "")
    found = json.loads(out)
    url = found["HTTP_PROXY"]
    assert url.startswith("http://127.0.0.1:")
    assert {found[name] for name in ("http_proxy", "HTTPS_PROXY", "https_proxy")} == {url}
    assert found["all_proxy"] == url
    assert found["ALL_PROXY"] == url.replace("http", "socks5h")
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"
    assert found["HOME"] == os.environ["HOME"]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("0.0.0.0:3128", "http://127.0.0.1:3128"),
        ("[::]:3128", "http://[::1]:3128"),
    ],
)
def test_a_command_is_led_to_where_the_relay_is_reached(address: str, url: str) -> None:
    assert environment(address, None)["HTTPS_PROXY"] == url
    assert environment(address, Path("/b.pem"))["HTTPS_PROXY"] == url


def test_a_command_trusts_the_bundle_with_every_variable_of_env(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")

    code, out, err = around(*python(PRINTER), bundle=bundle)

    assert (code, err) == (0, "")
    found = json.loads(out)
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "npm_config_cafile"):
        assert found[name] == str(bundle)
    assert found["npm_config_https_proxy"] == found["HTTPS_PROXY"]
    assert found["ALL_PROXY"] == found["HTTP_PROXY"].replace("http", "socks5h")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read (no such file"), ("key", "no certificate in the bundle")],
)
def test_a_bundle_without_certificates_starts_nothing(
    tmp_path: Path, content: str | None, said: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)

    code, out, err = around(*python("print('started')"), bundle=bundle)

    assert (code, out) == (2, "")
    assert said in err


def test_a_bundle_needs_a_command(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")

    with relay("--http-port", "0", "--socket", "/x", "--bundle", str(bundle)) as process:
        _, err = process.communicate(timeout=WAIT_S)

    assert process.returncode == 2
    assert "no command whose variables could be set" in err


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)", 130),
    ],
)
def test_the_exit_code_is_the_commands(code: str, exit_code: int) -> None:
    assert around(*python(code)) == (exit_code, "", "")


def test_options_after_the_command_are_the_commands() -> None:
    assert around("sh", "-c", "echo $0 $@", "--help", "--to", "x")[:2] == (0, "--help --to x\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_goes_to_the_command_and_its_exit_code_counts(number: int) -> None:
    code = (
        "import signal, sys, time;"
        f"signal.signal({number}, lambda *_: sys.exit(7)); print(flush=True); time.sleep(60)"
    )
    with relay("--http-port", "0", "--socket", "/nonexistent", "--", *python(code)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=WAIT_S)

    assert process.returncode == 7


def test_ctrl_c_is_the_commands_to_answer() -> None:
    """A terminal sends it to both; a command that goes on after it keeps its relay."""
    code = (
        "import signal, sys; signal.signal(2, lambda *_: print('still here', flush=True));"
        "print(flush=True); sys.stdin.read(); print('done'); sys.exit(5)"
    )
    arguments = ("--http-port", "0", "--socket", "/nonexistent", "--", *python(code))
    with relay(*arguments, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "still here\n"

        out, err = process.communicate("", timeout=WAIT_S)

    assert (process.returncode, out, err) == (5, "done\n", "")


def test_a_command_that_ends_by_ctrl_c_ends_the_relay_with_130() -> None:
    code = "import signal, time; signal.signal(2, signal.SIG_DFL);print(flush=True); time.sleep(60)"
    arguments = ("--http-port", "0", "--socket", "/nonexistent", "--", *python(code))
    with relay(*arguments, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=WAIT_S)

    assert process.returncode == 130


def test_a_command_that_is_not_there_is_127_and_no_traceback() -> None:
    code, out, err = around("no-such-program")

    assert (code, out) == (127, "")
    assert 'cannot start "no-such-program"' in err
    assert "  fix:   " in err


def test_a_command_that_may_not_be_run_is_126(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    assert around(str(tmp_path / "file"))[0] == 126


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "needs --listen"),
        (["--http-port", "0"], "needs --to"),
        (["--to", "127.0.0.1:1", "--socket", "/x"], "a relay has only one destination"),
        (["--listen", "8.8.8.8:1", "--to", "127.0.0.1:1"], "--allow-remote"),
        (["--http-port", "65536", "--to", "127.0.0.1:1"], "--http-port"),
        (["--http-port", "0", "--to", "unix:"], "has no path"),
        (["--http-port", "0", "--to", "127.0.0.1:1", "--max-connections", "0"], "--max-conn"),
    ],
)
def test_what_cannot_be_understood_stops_the_start(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["relay", *arguments]) == 2

    shown = capsys.readouterr().err
    assert what in shown
    assert "  fix:   " in shown


def test_a_command_needs_a_port_to_be_led_to(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--listen", f"unix:{directory}/in.sock", "--to", "127.0.0.1:1", "--", "true"]

    assert main(["relay", *arguments]) == 2

    assert "--http-port" in capsys.readouterr().err
    assert not (directory / "in.sock").exists()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "--help"]) == 0

    assert "claude-proxy relay --http-port 3128 --socket" in capsys.readouterr().out
