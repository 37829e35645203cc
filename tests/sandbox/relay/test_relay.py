"""The relay program: what it listens on, when it ends, and how light it is."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.relay import relay
from claude_proxy.wire.proxy_protocol import Announcement, encode, read

SCRIPT = Path(relay.__file__)
WAIT_S = 30

type Start = Callable[..., "Program"]


class Program:
    """A relay that runs, and where it said that it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self.first_line = process.stderr.readline()
        listening = self.first_line.partition("listens on ")[2].partition(", for ")[0]
        self.listening = listening.split(", ")

    def client(self, number: int = 0) -> socket.socket:
        where = self.listening[number]
        path = where.removeprefix("unix:")
        client = socket.socket(socket.AF_INET if path == where else socket.AF_UNIX)
        client.settimeout(WAIT_S)
        client.connect(path if path != where else ("127.0.0.1", int(where.rpartition(":")[2])))
        return client

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, fds: tuple[int, ...] = ()) -> Program:
        command = [sys.executable, "-m", "claude_proxy.sandbox.relay.relay", *map(str, arguments)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=fds)
        processes.append(process)
        return Program(process)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


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


def everything_from(peer: socket.socket) -> bytes:
    got = b""
    while data := peer.recv(1 << 16):
        got += data
    return got


def path_of(listener: socket.socket) -> str:
    return f"unix:{listener.getsockname()}"


def refusal(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "claude_proxy.sandbox.relay.relay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert done.stderr.startswith("claude-proxy: error: ")
    assert "Traceback" not in done.stderr
    assert "  fix:   " in done.stderr
    return done.stderr


# What it is made of


def test_it_imports_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path.append({str(SCRIPT.parents[3])!r});"
        "import claude_proxy.sandbox.relay.relay;"
        "print(*(name.split('.')[0] for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )

    heavy = {"mitmproxy", "click", "asyncio", "dataclasses", "typing", "pathlib", "re", "idna"}
    assert heavy & set(done.stdout.split()) == set()


def test_it_runs_by_its_path_without_any_package(upstream: socket.socket) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--listen", "127.0.0.1:0"]
    command += ["--to", path_of(upstream)]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        program = Program(process)
        with program.client() as client, upstream.accept()[0] as peer:
            client.sendall(b"x")
            assert peer.recv(1) == b"x"
        assert program.end(signal.SIGTERM) == (0, "")


def test_help_shows_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert relay.main(["--help"]) == 0

    shown = capfd.readouterr().out
    assert all(f"  {option}" in shown for option in ("--listen", "--to", "--announce", "--until"))


# Listening


def test_it_listens_on_many_sockets_of_every_kind(
    start: Start, upstream: socket.socket, directory: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = inherited.fileno()
        program = start(
            *("--listen", "127.0.0.1:0", "--listen", f"unix:{directory}/in.sock"),
            *("--listen", f"fd:{number}", "--to", path_of(upstream)),
            fds=(number,),
        )

        for number in range(3):
            with program.client(number) as client, upstream.accept()[0] as peer:
                client.sendall(b"hello")
                assert peer.recv(5) == b"hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_socket_is_private_to_its_owner_and_removed_at_the_end(
    start: Start, upstream: socket.socket, directory: Path, number: int
) -> None:
    path = directory / "new" / "in.sock"
    program = start("--listen", f"unix:{path}", "--to", path_of(upstream))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    code, said = program.end(number)

    assert (code, said) == (130 if number == signal.SIGINT else 0, "")
    assert not path.exists()


def test_a_stale_socket_and_an_empty_directory_are_replaced(
    start: Start, upstream: socket.socket, directory: Path
) -> None:
    stale, made_by_docker = directory / "stale.sock", directory / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    made_by_docker.mkdir()

    program = start(
        *("--listen", f"unix:{stale}", "--listen", f"unix:{made_by_docker}"),
        *("--to", path_of(upstream)),
    )

    for number in range(2):
        with program.client(number), upstream.accept()[0]:
            pass


def test_a_socket_that_another_process_listens_on_is_left_alone(
    upstream: socket.socket,
) -> None:
    said = refusal("--listen", path_of(upstream), "--to", "127.0.0.1:3128")

    assert "another process already listens" in said


def test_a_symbolic_link_is_not_replaced(directory: Path) -> None:
    link = directory / "link.sock"
    link.symlink_to(directory / "elsewhere")

    assert "symbolic link" in refusal("--listen", f"unix:{link}", "--to", "127.0.0.1:3128")
    assert link.is_symlink()


def test_a_busy_port_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        where = f"127.0.0.1:{busy.getsockname()[1]}"

        assert f"cannot listen on {where}" in refusal("--listen", where, "--to", "127.0.0.1:1")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "[::ffff:127.0.0.1]"])
def test_listening_beyond_loopback_requires_an_option(host: str) -> None:
    assert "--allow-remote" in refusal("--listen", f"{host}:0", "--to", "127.0.0.1:1")


def test_the_option_allows_listening_beyond_loopback(start: Start, upstream: socket.socket) -> None:
    program = start("--listen", "0.0.0.0:0", "--allow-remote", "--to", path_of(upstream))

    with program.client(), upstream.accept()[0]:
        pass


def test_a_relay_to_itself_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        where = f"127.0.0.1:{probe.getsockname()[1]}"

    assert "connect to itself" in refusal("--listen", where, "--to", where)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--listen", "127.0.0.1:0"],
        ["--to", "127.0.0.1:1"],
        ["--listen"],
        ["--announce", "name"],
        ["--announce", "fd:999"],
        ["--nonsense"],
        ["--listen", "127.0.0.1:0", "--to", "proxy.test:1"],
        ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--to", "unix:"],
        ["--listen", "127.0.0.1:0", "--to", "unix:/" + "x" * 200],
        ["--listen", "127.0.0.1:65536", "--to", "127.0.0.1:1"],
        ["--listen", "3128", "--to", "127.0.0.1:1"],
        ["--listen", "::1:3128", "--to", "127.0.0.1:1"],
        ["--listen", "fd:x", "--to", "127.0.0.1:1"],
        ["--listen", "fd:0", "--to", "127.0.0.1:1"],
        ["--listen", "fd:999", "--to", "127.0.0.1:1"],
        ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--until", "fd:999"],
        ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--max-connections", "0"],
    ],
)
def test_an_invalid_option_stops_the_start(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert relay.main(arguments) == 2

    shown = capfd.readouterr().err
    assert "claude-proxy: error: " in shown
    assert "  fix:   " in shown


def test_a_socket_that_does_not_listen_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as idle:
        number = os.dup(idle.fileno())

        assert relay.main(["--listen", f"fd:{number}", "--to", "127.0.0.1:1"]) == 2

    assert "is not listening" in capfd.readouterr().err


@given(text=st.text() | st.from_regex(r"(unix:|fd:)?\[?[0-9a-f.:]*\]?:?[0-9]*"))
def test_a_reader_returns_a_value_or_a_config_error(text: str) -> None:
    for reader in (
        relay.parse_target,
        relay.parse_limit,
        relay.parse_descriptor,
        lambda given: relay.parse_tcp(given, "--listen"),
    ):
        with suppress(ConfigError):
            reader(text)


# Announcing


def test_a_client_that_knows_of_no_proxy_gets_a_tunnel_to_where_its_listener_leads(
    start: Start, directory: Path, upstream: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside:
        passed = (f"fd:{inside.fileno()}", "db.corp:5432")
        arguments = ("--listen", f"unix:{directory}/r", "--tunnel", *passed)
        program = start(*arguments, "--to", path_of(upstream), fds=(inside.fileno(),))
        with socket.create_connection(inside.getsockname(), WAIT_S) as client:
            client.sendall(b"early")
            peer, _ = upstream.accept()
            with peer:
                request = peer.recv(100)
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")

                assert request == b"CONNECT db.corp:5432 HTTP/1.1\r\nHost: db.corp:5432\r\n\r\n"
                assert (peer.recv(5), client.recv(5)) == (b"early", b"hello")
        assert program.end(signal.SIGTERM)[0] == 0


def test_every_connection_begins_with_the_announcement_of_its_run(
    start: Start, upstream: socket.socket
) -> None:
    reading, writing = os.pipe()
    os.write(writing, encode("blue fox", "claude", "token"))
    os.close(writing)
    program = start(
        *("--listen", "127.0.0.1:0", "--to", path_of(upstream), "--announce", f"fd:{reading}"),
        fds=(reading,),
    )
    os.close(reading)

    with program.client() as client, upstream.accept()[0] as peer:
        client.sendall(b"\x05\x01\x00")
        client.shutdown(socket.SHUT_WR)
        got = bytearray(everything_from(peer))

    assert read(got) == Announcement("blue fox", "claude", "token")
    assert got == b"\x05\x01\x00"


# Ending


def test_it_ends_with_the_holder_of_the_other_end_of_its_lifeline(
    start: Start, upstream: socket.socket
) -> None:
    reading, writing = os.pipe()
    program = start(
        *("--listen", "127.0.0.1:0", "--to", path_of(upstream), "--until", f"fd:{reading}"),
        fds=(reading,),
    )
    os.close(reading)
    os.write(writing, b"not the end")
    with program.client(), upstream.accept()[0]:
        pass

    os.close(writing)

    assert program.process.wait(WAIT_S) == 0


def test_a_signal_ends_it_during_a_transfer(start: Start, upstream: socket.socket) -> None:
    program = start("--listen", "127.0.0.1:0", "--to", path_of(upstream))
    with program.client() as client, upstream.accept()[0] as peer:
        peer.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                peer.send(b"x" * 65536)

        assert program.end(signal.SIGTERM) == (0, "")

        with pytest.raises(ConnectionResetError):
            everything_from(client)


def test_a_signal_that_the_caller_ignores_stays_ignored(
    start: Start, upstream: socket.socket
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = start("--listen", "127.0.0.1:0", "--to", path_of(upstream))
    finally:
        signal.signal(signal.SIGINT, before)

    program.process.send_signal(signal.SIGINT)

    with program.client(), upstream.accept()[0]:
        pass
    assert program.end(signal.SIGTERM)[0] == 0


def test_a_killed_upstream_is_an_end_and_its_successor_is_reached(
    start: Start, directory: Path
) -> None:
    path = directory / "proxy.sock"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "print(flush=True); c = s.accept()[0]; c.sendall(b'half'); c.recv(1); c.recv(1)"
    )
    program = start("--listen", "127.0.0.1:0", "--to", f"unix:{path}")
    for _ in range(2):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            with program.client() as client:
                assert client.recv(4, socket.MSG_WAITALL) == b"half"
                process.kill()
                assert client.recv(1) == b""

    assert program.end(signal.SIGTERM) == (0, "")


def test_the_soft_limit_of_descriptors_is_raised(start: Start, upstream: socket.socket) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        program = start("--listen", "127.0.0.1:0", "--to", path_of(upstream))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    ends = []
    for _ in range(100):
        ends += [program.client(), upstream.accept()[0]]
    for end in ends:
        end.close()
    assert program.end(signal.SIGTERM) == (0, "")


def test_closed_standard_streams_are_no_error(upstream: socket.socket) -> None:
    reading, writing = os.pipe()
    command = (
        f"exec {sys.executable} -m claude_proxy.sandbox.relay.relay --listen 127.0.0.1:0 "
        f"--to {path_of(upstream)} --until fd:{reading} <&- >&- 2>&-"
    )
    with subprocess.Popen(["sh", "-c", command], pass_fds=(reading,)) as process:
        os.close(reading)
        os.close(writing)

        assert process.wait(WAIT_S) == 0


def test_quiet_prints_only_errors(upstream: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        command = [
            sys.executable,
            "-m",
            "claude_proxy.sandbox.relay.relay",
            "--quiet",
            "--listen",
            f"fd:{number}",
        ]
        command += ["--to", path_of(upstream)]
        with (
            subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=(number,)) as process,
            socket.create_connection(listener.getsockname(), WAIT_S),
            upstream.accept()[0],
        ):
            process.terminate()
            assert process.communicate(timeout=WAIT_S)[1] == b""
        assert process.returncode == 0


def test_an_inherited_socket_must_be_loopback_too(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        number = os.dup(listener.fileno())

        assert relay.main(["--listen", f"fd:{number}", "--to", "127.0.0.1:1"]) == 2

    assert "--allow-remote" in capfd.readouterr().err
