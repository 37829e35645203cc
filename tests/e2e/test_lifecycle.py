"""It starts only if everything is as it should be, says what is not, and ends without a loss."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.internet import Internet
from .rig.namespaces import HOST_ADDRESS
from .rig.proxy import Proxy, Workplace, read_all

RULES = "allow: [origin.test, allowed.test]\n"
NOTHING = ""  # a proxy that is told to be quiet says this when it is ready


def serve(place: Workplace, *options: str | Path, **variables: str) -> tuple[int, str]:
    """Start a proxy that is expected not to start; return its exit code and complaint."""
    try:
        ran = place.claude_proxy("serve", "--port", "0", *options, **variables)
    except subprocess.TimeoutExpired:
        return 0, "it started"
    assert "Traceback" not in ran.stderr
    assert "internal error" not in ran.stderr
    return ran.returncode, ran.stderr


@pytest.fixture
def listed(place: Workplace) -> Path:
    """An allowlist that nothing is wrong with."""
    file = place.directory / "allowlist.yaml"
    file.write_text(RULES)
    return file


def test_a_busy_port_is_a_clear_error(place: Workplace, proxy: Proxy) -> None:
    code, said = serve(place, "--port", str(proxy.port))

    assert code == 2
    assert str(proxy.port) in said
    assert "fix:" in said


MISTAKES = {
    "an unknown key": ("allow: [a.test]\nalow: [b.test]\n", 2),
    "every host": ('allow:\n  - "*"\n', 2),
    "a public suffix": ('allow:\n  - a.test\n  - "*.com"\n', 3),
    "broken yaml": ("allow:\n  - [a.test\n", 2),
    "an unknown preset": ("allow:\n  - preset: nobody\n", 2),
    "a path on passthrough": ("allow:\n  - {host: a.test, tls: passthrough, paths: [/x]}\n", 2),
}


@pytest.mark.parametrize(("text", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_bad_list_stops_the_start_with_file_and_line(
    place: Workplace, listed: Path, text: str, line: int
) -> None:
    listed.write_text(text)

    code, said = serve(place, "--allowlist", listed)

    assert code == 2
    assert f"{listed}:{line}" in said
    assert "fix:" in said


def test_a_list_that_is_not_there_stops_the_start(place: Workplace) -> None:
    code, said = serve(place, "--allowlist", place.directory / "missing.yaml")

    assert code == 2
    assert "missing.yaml" in said


@pytest.mark.parametrize("text", ["", "allow: []\n", "allow:\n", "deny: [a.test]\n", "# nothing\n"])
def test_a_list_that_allows_nothing_denies_everything(
    start_proxy: StartProxy, internet: Internet, text: str
) -> None:
    proxy = start_proxy(text)

    with internet.watch() as seen:
        answer = proxy.ask(b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n")

    assert answer.split()[1] == b"403"
    assert seen.nothing()


def test_a_list_that_others_may_write_is_refused(place: Workplace, listed: Path) -> None:
    listed.chmod(0o666)

    code, said = serve(place, "--allowlist", listed)

    assert code == 2
    assert str(listed) in said


def test_a_list_in_a_directory_that_others_may_write_is_refused(
    place: Workplace, listed: Path
) -> None:
    open_directory = place.directory / "open"
    open_directory.mkdir()
    open_directory.chmod(0o777)
    moved = listed.rename(open_directory / "allowlist.yaml")

    code, said = serve(place, "--allowlist", moved)

    assert code == 2
    assert str(open_directory) in said


@pytest.mark.parametrize("option", ["--allowlist", "--confdir", "--statedir"])
def test_a_path_that_others_could_put_another_in_place_of_is_refused(
    place: Workplace, listed: Path, option: str
) -> None:
    # Whoever may write in a directory further up may rename what is below it.
    above = place.directory / "above"
    below = above / "below"
    below.mkdir(parents=True)
    above.chmod(0o777)
    moved = below / "allowlist.yaml"
    moved.write_text(RULES)
    chosen = moved if option == "--allowlist" else below / "own"

    code, said = serve(place, "--allowlist", listed, option, chosen)

    assert code == 2
    assert str(above) in said


@pytest.mark.parametrize("option", ["--confdir", "--statedir"])
def test_a_directory_that_others_may_write_is_refused(
    place: Workplace, listed: Path, option: str
) -> None:
    directory = place.directory / "shared"
    directory.mkdir()
    directory.chmod(0o777)

    code, said = serve(place, "--allowlist", listed, option, directory)

    assert code == 2
    assert str(directory) in said
    assert "fix:" in said


@pytest.mark.parametrize("option", ["--confdir", "--statedir"])
def test_a_directory_that_cannot_be_made_is_a_clear_error(
    place: Workplace, listed: Path, option: str
) -> None:
    # Whoever runs the tests may be root, who writes everywhere but through a file.
    code, said = serve(place, "--allowlist", listed, option, listed / "below")

    assert code == 2
    assert str(listed) in said


def test_a_read_only_directory_is_a_clear_error(
    place: Workplace, listed: Path, internet: Internet
) -> None:
    directory = place.directory / "read-only"
    directory.mkdir(mode=0o700)
    internet.host.run(["mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", str(directory)])

    for option in ("--confdir", "--statedir"):
        code, said = serve(place, "--allowlist", listed, option, directory)
        assert code == 2, said
        assert str(directory) in said


def test_a_key_that_others_may_read_is_refused(place: Workplace, listed: Path) -> None:
    confdir = place.home / ".config" / "claude-proxy"
    assert place.claude_proxy("ca", "bundle").returncode == 0
    (confdir / "mitmproxy-ca.pem").chmod(0o644)

    code, said = serve(place, "--allowlist", listed)

    assert code == 2
    assert "mitmproxy-ca.pem" in said


def test_listening_beyond_loopback_must_be_asked_for(place: Workplace, listed: Path) -> None:
    code, said = serve(place, "--allowlist", listed, "--host", "0.0.0.0")

    assert code == 2
    assert "--allow-remote" in said


def test_a_client_from_elsewhere_is_refused_unless_its_network_is_named(
    start_proxy: StartProxy, internet: Internet
) -> None:
    remote = ("--host", "0.0.0.0", "--allow-remote")
    closed = start_proxy(RULES, *remote)
    opened = start_proxy(RULES, *remote, "--client", "10.99.0.0/30")
    request = b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n"

    answers = []
    for proxy in (closed, opened):
        with internet.namespace.connect(HOST_ADDRESS, proxy.port) as connection:
            connection.sendall(request)
            answers.append(connection.recv(4096).split()[1])

    assert answers == [b"403", b"200"]
    (row,) = closed.audit("--denied")
    assert (row.reason, row.client.partition(":")[0]) == ("client-not-allowed", "10.99.0.1")
    assert "beyond loopback" in opened.stderr()


def test_sigterm_lets_a_running_stream_end(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(RULES)
    gate = internet.origin.gate("last-words")

    with proxy.tunnel("origin.test:443") as idle, proxy.tunnel("origin.test:443") as tunnel:
        assert idle.get("/echo").status == 200
        tunnel.send(b"GET /held/last-words HTTP/1.1\r\nHost: origin.test\r\n\r\n")
        assert gate.reached.wait(60)
        proxy.signal(signal.SIGTERM)
        # The idle one is ended at once, and nobody new is let in.
        assert idle.ended()
        with pytest.raises(ConnectionRefusedError):
            proxy.connect()
        assert proxy.process.poll() is None
        gate.open()
        answer = tunnel.read()

    assert answer.text() == "at last"
    assert proxy.stop() == 0


def test_a_stream_that_does_not_end_does_not_hold_up_the_end(
    start_proxy: StartProxy, internet: Internet
) -> None:
    proxy = start_proxy(RULES, "--grace", "200ms")

    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.send(b"GET /ticking HTTP/1.1\r\nHost: origin.test\r\n\r\n")
        tunnel.read_line()
        code = proxy.stop()
        tunnel.read_rest()

    assert code == 0
    until(lambda: internet.origin.exchanges[-1].arrival.closed, "the upstream's end")


def test_ctrl_c_ends_it_too(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)

    proxy.signal(signal.SIGINT)

    assert proxy.process.wait(60) == 0
    assert "Traceback" not in proxy.stderr() + proxy.stdout()


def test_it_listens_on_ipv6_too(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(RULES, "--host", "::1")

    ran = proxy.place.run(
        *("curl", "-sS", "--proxy", f"http://[::1]:{proxy.port}", "--cacert", proxy.ca_file),
        "https://origin.test/echo",
    )

    assert ran.returncode == 0, ran.stderr
    with pytest.raises(ConnectionRefusedError):
        internet.host.connect("127.0.0.1", proxy.port)


def test_a_shell_that_evaluates_env_is_set_up(proxy: Proxy, internet: Internet) -> None:
    program = f"{sys.executable} -m claude_proxy env --port {proxy.port}"

    with internet.watch() as seen:
        ran = proxy.place.run(
            "sh", "-c", f'eval "$({program})" && curl -sS https://origin.test/echo'
        )

    assert ran.returncode == 0, ran.stderr
    assert seen.targets() == ["/echo"]


def test_lines_can_be_json(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--log-format", "json", ready="listening on")
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/echo")
    proxy.stop()

    lines = [json.loads(line) for line in proxy.stdout().splitlines()]
    assert any(line.get("path") == "/echo" for line in lines)


def test_quiet_prints_nothing_of_what_goes_well(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--quiet", ready=NOTHING)
    until(lambda: accepts(proxy), "the proxy to listen")
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/echo")

    assert proxy.stdout() + proxy.stderr() == ""


def accepts(proxy: Proxy) -> bool:
    """Tell whether the port is open."""
    try:
        proxy.connect().close()
    except OSError:
        return False
    return True


def test_two_first_starts_at_once_make_one_ca(
    internet: Internet, ports: Iterator[int], tmp_path: Path
) -> None:
    home = tmp_path / "first"
    home.mkdir()
    first = Proxy(internet, home, ["--port", str(next(ports))], port=0)
    variables = {"HOME": str(first.place.home)}
    other = tmp_path / "second"
    other.mkdir()
    # Another port, but the same home: both find no CA and make one.
    second = Proxy(internet, other, ["--port", str(next(ports))], port=0, variables=variables)
    try:
        for proxy in (first, second):
            until(lambda proxy=proxy: "listens on" in proxy.stdout(), "the banner")  # type: ignore[misc]
    finally:
        first.stop()
        second.stop()

    first.check_calm()
    second.check_calm()
    key = (first.confdir / "mitmproxy-ca.pem").read_bytes()
    certificate = first.ca_file.read_bytes()
    assert certificate.strip() in key
    assert not list(first.confdir.glob("*.tmp"))


def test_no_password_of_the_environment_is_shown(start_proxy: StartProxy) -> None:
    password = "hunter2-imitation"
    proxy = start_proxy(
        RULES,
        "--verbose",
        CLAUDE_PROXY_UPSTREAM_PROXY=f"http://user:{password}@93.186.0.9:3128",
    )
    with contextlib.suppress(OSError):
        proxy.tunnel("origin.test:443").close()

    command_line = Path(f"/proc/{proxy.process.pid}/cmdline").read_bytes()
    assert password.encode() not in command_line
    proxy.stop()
    assert password not in proxy.stdout() + proxy.stderr()


def test_the_program_does_not_need_a_terminal_or_a_locale(place: Workplace) -> None:
    ran = place.claude_proxy("--help", LANG="C", LC_ALL="C", PYTHONUTF8="0")

    assert ran.returncode == 0
    assert "serve" in ran.stdout


def test_garbage_from_many_clients_leaves_it_calm(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)

    for seed in range(40):
        with proxy.connect() as connection:
            connection.sendall(bytes((seed * 7 + index * 31) % 256 for index in range(2000)))
            connection.shutdown(1)
            read_all(connection)

    with proxy.tunnel("origin.test:443") as tunnel:
        assert tunnel.get("/echo").status == 200


def test_the_open_files_are_few_again_after_many_connections(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/echo")
    before = proxy.open_files()

    tunnels = [proxy.tunnel("origin.test:443") for _ in range(60)]
    for tunnel in tunnels:
        assert tunnel.get("/echo").status == 200
    assert proxy.open_files() > before + 60
    for tunnel in tunnels:
        tunnel.close()

    until(lambda: proxy.open_files() <= before + 2, "the files to be closed")


def test_nothing_but_its_own_files_is_written(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)
    proxy.stop()

    found = {
        str(path.relative_to(proxy.place.home))
        for path in proxy.place.home.rglob("*")
        if path.is_file()
    }
    assert all(
        name.startswith((".config/claude-proxy/", ".local/state/claude-proxy/")) for name in found
    )
    modes = subprocess.run(
        ["find", str(proxy.place.home), "-type", "f", "-perm", "/022"],
        capture_output=True,
        check=True,
    )
    assert modes.stdout == b""
