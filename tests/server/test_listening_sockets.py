"""The laws of making listening sockets: whole or not at all, nobody else's, and gone at the end."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.config.settings import (
    Base,
    Gateway,
    InheritedListen,
    Listen,
    Settings,
    TcpListen,
    UnixListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server import listening_sockets
from claude_proxy.server.listening_sockets import OpenListener, bind, bind_all, opened
from claude_proxy.system import peer_credentials, unix_socket
from claude_proxy.system.unix_socket import PATH_BYTES, SocketFile
from claude_proxy.wire.authority import Authority

ANY = TcpListen("127.0.0.1", 0)
OTHER_UID = 65533


def settings(*listen: Listen, **changes: Any) -> Settings:
    return Settings(Path("a"), Path("c"), Path("s"), listen=listen, **changes)


def unix(path: Path, **changes: Any) -> Settings:
    return settings(UnixListen(path), **changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of the owner's alone, whatever is above it."""
    tmp_path.chmod(0o700)
    return tmp_path


def refusal(given: Settings) -> ConfigError:
    with pytest.raises(ConfigError) as caught, opened(given):
        pass
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


# --- TCP


def test_a_bound_socket_listens() -> None:
    with bind(ANY) as sock, socket.create_connection(sock.getsockname()) as client:
        assert client.getpeername() == sock.getsockname()
        assert sock.proto == socket.IPPROTO_TCP  # else Nagle's algorithm stays on


def test_a_busy_port_is_a_clear_error() -> None:
    with bind(ANY) as sock:
        port = sock.getsockname()[1]

        with pytest.raises(ConfigError) as caught:
            bind(TcpListen("127.0.0.1", port))

    error = caught.value
    assert error.exit_code == 2
    assert error.what == f"cannot listen on 127.0.0.1 port {port}: address already in use"
    assert error.where == f"127.0.0.1:{port}"
    assert error.fix == "stop what listens there, or choose another port with --port"


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1 port 9051") as caught:
        bind(TcpListen("192.0.2.1", 9051))

    assert caught.value.fix == "name an address of this machine; `ip address` shows them"


def test_an_ipv6_socket_is_for_ipv6_alone() -> None:
    with bind(TcpListen("::1", 0)) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_workers_have_a_socket_each_on_one_port() -> None:
    with opened(settings(ANY, workers=3)) as (door,):
        ports = {sock.getsockname()[1] for sock in door.sockets}
        own = door.socket_of(1)

        assert len(set(door.sockets)) == 3
        assert len(ports) == 1
        assert [sock.fileno() >= 0 for sock in door.sockets] == [False, True, False]
        assert own is door.sockets[1]


def test_one_process_shares_its_port_with_nobody() -> None:
    (sock,) = bind_all(ANY, 1)

    with sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_a_shared_port_must_be_free_first() -> None:
    with bind(ANY, shared=True) as sock, pytest.raises(ConfigError):
        bind_all(TcpListen("127.0.0.1", sock.getsockname()[1]), 2)


def test_each_listener_is_told_by_its_address() -> None:
    with opened(settings(ANY, TcpListen("::1", 0))) as (four, six):
        assert four.address is not None
        assert six.address is not None
        assert four.name == f"tcp 127.0.0.1:{four.address.port}"
        assert four.url == f"http://127.0.0.1:{four.address.port}"
        assert six.url == f"http://[::1]:{six.address.port}"
        assert not four.beyond_loopback
        assert not six.beyond_loopback


def test_what_other_machines_reach_is_beyond_loopback() -> None:
    with opened(settings(TcpListen("0.0.0.0", 0))) as (door,):
        assert door.beyond_loopback


def test_a_proxy_without_a_listener_is_none() -> None:
    assert refusal(settings()).what == "there is nothing to listen on"


def test_one_listener_that_cannot_be_had_closes_the_others(place: Path) -> None:
    with bind(ANY) as sock:
        busy = TcpListen("127.0.0.1", sock.getsockname()[1])

        refusal(settings(UnixListen(place / "p.sock"), busy))

    assert list(place.iterdir()) == []


# --- a Unix socket's file


def test_a_socket_is_its_owners_alone_and_goes_at_the_end(place: Path) -> None:
    path = place / "new" / "deeper" / "p.sock"

    with opened(unix(path)) as (door,):
        assert mode_of(path) == 0o600
        assert mode_of(path.parent) == mode_of(path.parent.parent) == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["p.sock"]
        assert answers(path)
        assert (door.name, door.url) == (f"unix {path}", f"unix:{path}")
        assert door.uids == {os.geteuid()}

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(place: Path, umask: int) -> None:
    path = place / "new" / "p.sock"
    before = os.umask(umask)
    try:
        with opened(unix(path)):
            assert mode_of(path) == 0o600
            assert mode_of(path.parent) == 0o700
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_processes_share_one_unix_socket(place: Path) -> None:
    with opened(unix(place / "p.sock", workers=3)) as (door,):
        own = door.socket_of(2)

        assert len(set(door.sockets)) == 1
        assert own.fileno() >= 0


def test_a_socket_that_a_killed_process_left_is_replaced(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    assert not answers(path)

    with opened(unix(path)):
        assert answers(path)
        assert mode_of(path) == 0o600


def test_a_stale_socket_is_replaced_without_a_moment_of_absence(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(0o600)
    absent, modes, done = [False], set[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                modes.add(mode_of(path))
            except FileNotFoundError:
                absent[0] = True

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        try:
            sock, _ = unix_socket._placed(path, 0o600)
        finally:
            done.set()
        looking.result()
    sock.close()

    assert not absent[0]
    assert modes <= {0o600}


@pytest.mark.parametrize("backlog", [0, 5], ids=["queue full", "idle"])
def test_a_socket_that_somebody_listens_on_is_left_alone(place: Path, backlog: int) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(backlog)
        if backlog == 0:
            waiting.connect(str(path))
        before = path.lstat().st_ino

        error = refusal(unix(path))

        assert error.what == "another process already listens on this socket"
        assert path.lstat().st_ino == before


def test_a_socket_of_another_kind_is_left_alone(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))

        error = refusal(unix(path))

    assert "existing socket cannot be checked" in error.what
    assert path.exists()


def test_an_empty_directory_that_a_container_engine_made_is_removed(place: Path) -> None:
    path = place / "p.sock"
    path.mkdir()

    with opened(unix(path)):
        assert answers(path)


def _full_directory(path: Path) -> None:
    path.mkdir()
    (path / "work").touch()


IN_THE_WAY: dict[str, tuple[Callable[[Path], Any], str]] = {
    "file": (lambda path: path.write_text("precious"), "a file is where"),
    "link": (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link is where"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "a symbolic link is where"),
    "directory": (_full_directory, "a directory that cannot be removed (directory not empty)"),
    "pipe": (os.mkfifo, "a file is where"),
}


@pytest.mark.parametrize(("make", "said"), IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_no_socket_is_left_alone(
    place: Path, make: Callable[[Path], Any], said: str
) -> None:
    path = place / "p.sock"
    make(path)
    before = path.lstat()

    error = refusal(unix(path))

    assert said in error.what
    assert path.lstat().st_ino == before.st_ino
    assert [entry.name for entry in place.iterdir()] == ["p.sock"]


def test_the_longest_path_that_fits_is_taken(place: Path) -> None:
    name = "n" * (PATH_BYTES - len(os.fsencode(place)) - 1)

    with opened(unix(place / name)):
        assert answers(place / name)


@pytest.mark.parametrize("name", ["n" * 200, "ü" * 60])
def test_a_path_that_is_too_long_is_told_with_the_limit(place: Path, name: str) -> None:
    error = refusal(unix(place / name))

    assert f"and the system allows {PATH_BYTES}" in error.what


def test_a_short_name_in_a_long_directory_is_measured_with_room_for_a_partial_one(
    place: Path,
) -> None:
    deep = place / ("d" * (PATH_BYTES - len(os.fsencode(place)) - 4))

    error = refusal(unix(deep / "s"))

    assert "too long" in error.what
    assert not deep.exists()


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o757])
def test_a_directory_in_which_others_could_replace_it_is_refused(place: Path, mode: int) -> None:
    place.chmod(mode)

    error = refusal(unix(place / "p.sock"))

    assert "could change" in error.what or "changed by other users" in error.what
    assert "who listens at the socket" in error.what
    assert list(place.iterdir()) == []


def test_a_sticky_directory_is_as_good_as_ones_own(place: Path) -> None:
    place.chmod(0o1777)

    with opened(unix(place / "p.sock")):
        assert answers(place / "p.sock")


def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(place, OTHER_UID, -1)

    error = refusal(unix(place / "p.sock"))

    assert "belongs to another user" in error.what


def test_a_disk_without_room_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)

    error = refusal(unix(place / "p.sock"))

    assert error.what == "cannot listen there: no space left on device"
    assert list(place.iterdir()) == []


def test_something_else_that_comes_in_between_is_not_overwritten(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = place / "p.sock", os.link

    def late(*arguments: Any, **options: Any) -> None:
        path.write_text("precious")
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", late)

    error = refusal(unix(path))

    assert "a file is where" in error.what
    assert path.read_text() == "precious"


def test_a_lock_that_somebody_keeps_is_told_of(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "_LOCK_S", 0.0)

    with unix_socket._directory_locked(place):
        error = refusal(unix(place / "p.sock"))

    assert "holds the lock on the directory of the socket" in error.what


# --- its end


def test_a_socket_of_another_process_by_the_same_name_is_not_removed(place: Path) -> None:
    path = place / "p.sock"

    with opened(unix(path)):
        path.unlink()
        with opened(unix(path)) as (other,):
            first = path.lstat().st_ino
            assert other.file is not None
            SocketFile(path, (0, 0)).remove()

            assert path.lstat().st_ino == first


def test_a_socket_that_is_gone_already_is_no_fault(place: Path) -> None:
    with opened(unix(place / "p.sock")) as (door,):
        (place / "p.sock").unlink()

        door.remove()


def test_a_failure_while_it_runs_takes_the_file_along(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(unix(place / "p.sock")):
        raise ZeroDivisionError

    assert list(place.iterdir()) == []


RACER = """
import sys
from pathlib import Path
from claude_proxy.errors import ConfigError
from claude_proxy.config.settings import Settings, UnixListen
from claude_proxy.server.listening_sockets import opened
path = Path(sys.argv[1])
given = Settings(path, path, path, listen=(UnixListen(path),))
sys.stdout.write("here\\n"); sys.stdout.flush(); sys.stdin.readline()
try:
    with opened(given):
        sys.stdout.write("won\\n"); sys.stdout.flush(); sys.stdin.readline()
except ConfigError as error:
    sys.stdout.write(error.what + "\\n"); sys.stdout.flush(); sys.stdin.readline()
"""


@pytest.fixture
def racers(place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that want the same socket, and wait for a line."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(place / "p.sock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    yield started
    for racer in started:
        with suppress(BrokenPipeError):
            racer.communicate("\n")


@pytest.mark.parametrize("stale", [False, True])
def test_of_starts_at_once_exactly_one_gets_it(
    place: Path, racers: list[subprocess.Popen[str]], *, stale: bool
) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(place / "p.sock"))

    def say(racer: subprocess.Popen[str]) -> None:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()

    def hear(racer: subprocess.Popen[str]) -> str:
        assert racer.stdout is not None
        return racer.stdout.readline().strip()

    assert {hear(racer) for racer in racers} == {"here"}
    for racer in racers:
        say(racer)
    told = [hear(racer) for racer in racers]

    assert sorted(told) == ["another process already listens on this socket"] * 5 + ["won"]
    for racer in racers:
        say(racer)
        racer.wait()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "beside threads"])
def test_a_signal_between_making_and_noting_leaves_nothing_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    class ToldError(BaseException):
        pass

    def told(*_: object) -> None:
        raise ToldError

    give_name = unix_socket._give_name

    def interrupted(partial: Path, path: Path) -> None:
        give_name(partial, path)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(unix_socket, "_give_name", interrupted)
    before, done = signal.signal(signal.SIGTERM, told), threading.Event()
    with ThreadPoolExecutor(others or 1) as pool:
        for _ in range(others):
            pool.submit(done.wait)
        try:
            with pytest.raises(ToldError), opened(unix(place / "p.sock")):
                pass
        finally:
            done.set()
            signal.signal(signal.SIGTERM, before)

    assert list(place.iterdir()) == []


def test_a_listener_may_be_opened_on_any_thread(place: Path) -> None:
    def look() -> bool:
        with opened(unix(place / "p.sock")):
            return answers(place / "p.sock")

    with ThreadPoolExecutor() as pool:
        assert pool.submit(look).result()
    assert list(place.iterdir()) == []


# --- for whom it is


def test_a_socket_for_others_can_be_reached_by_them(place: Path) -> None:
    path = place / "new" / "p.sock"
    for directory in (place, *place.parents[:-2]):
        if directory.stat().st_uid == os.geteuid() and directory.name != "tmp":
            directory.chmod(0o711)

    with opened(unix(path, uids=frozenset({OTHER_UID}))) as (door,):
        assert mode_of(path) == 0o666
        assert mode_of(path.parent) == 0o711
        assert door.uids == {OTHER_UID}  # and not its owner, who was not named


def test_a_directory_that_others_cannot_pass_is_told(place: Path) -> None:
    error = refusal(unix(place / "p.sock", uids=frozenset({OTHER_UID})))

    assert "cannot enter the socket" in error.what
    assert "mode 0700" in str(error.where)
    assert list(place.iterdir()) == []


def test_a_socket_for_its_owner_by_name_is_private_too(place: Path) -> None:
    with opened(unix(place / "p.sock", uids=frozenset({os.geteuid()}))):
        assert mode_of(place / "p.sock") == 0o600


def test_nobody_in_particular_cannot_be_admitted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_credentials, "nobody_in_particular", lambda: 65534)

    error = refusal(unix(place / "p.sock", uids=frozenset({65534, os.geteuid()})))

    assert "uid 65534 represents every user" in error.what


# --- sockets that were handed over


def handed(sock: socket.socket, name: str = "", **changes: Any) -> Settings:
    return settings(InheritedListen(sock.detach(), name), **changes)


def test_a_tcp_socket_is_taken_over() -> None:
    sock = bind(ANY)
    port = sock.getsockname()[1]
    sock.setblocking(True)

    with opened(handed(sock, workers=2)) as (door,):
        assert door.name == f"tcp 127.0.0.1:{port}"
        assert str(door.address) == f"127.0.0.1:{port}"
        assert not os.get_inheritable(door.sockets[0].fileno())
        assert not door.sockets[0].getblocking()
        assert door.sockets[0] is door.sockets[1]


def test_a_unix_socket_is_taken_over_and_its_file_stays(place: Path) -> None:
    path = place / "p.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()

    with opened(handed(sock)) as (door,):
        assert (door.name, door.url) == (f"unix {path}", f"unix:{path}")
        assert door.uids == {os.geteuid()}

    assert path.exists()


def test_a_name_that_was_given_is_kept() -> None:
    with opened(handed(bind(ANY), "claude-proxy.socket")) as (door,):
        assert door.name == "claude-proxy.socket"


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace is Linux's alone")
def test_a_socket_without_a_file_is_shown_by_its_name() -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(b"\0claude-proxy-test-%d" % os.getpid())
    sock.listen()

    with opened(handed(sock)) as (door,):
        assert door.url == f"unix:@claude-proxy-test-{os.getpid()}"


def test_a_socket_that_never_got_a_name_is_shown_as_that() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert listening_sockets._unix_name(sock) == "(unnamed)"


def test_a_handed_over_socket_beyond_loopback_must_be_allowed() -> None:
    error = refusal(handed(bind(TcpListen("0.0.0.0", 0))))
    assert "can be reached from other machines" in error.what

    with opened(handed(bind(TcpListen("0.0.0.0", 0)), allow_remote=True)) as (door,):
        assert door.beyond_loopback


def _closed() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    return reading


def _connected() -> int:
    one, _ = socket.socketpair()
    return one.detach()


UNUSABLE: dict[str, tuple[Callable[[], int], str]] = {
    "closed": (_closed, "is not a socket"),
    "file": (lambda: os.open("/dev/null", os.O_RDONLY), "is not a socket"),
    "datagrams": (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
        "is not a stream socket",
    ),
    "connected": (_connected, "is not listening"),
    "silent": (lambda: socket.socket(socket.AF_INET6).detach(), "is not listening"),
    "netlink": (
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
        "is not a stream socket",
    ),
}


@pytest.mark.parametrize(("make", "said"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_listening_socket_is_refused(make: Callable[[], int], said: str) -> None:
    error = refusal(settings(InheritedListen(make(), "")))

    assert said in error.what


def test_a_listener_without_a_file_has_nothing_to_remove() -> None:
    OpenListener("tcp 127.0.0.1:1", "http://127.0.0.1:1", ()).remove()


# --- the gateway's


def gateway(*listen: Listen, token: str | None = None) -> Gateway:
    upstream = Base(Scheme.HTTPS, Authority.of("llm.test", 443))
    return Gateway(listen, upstream, Injection(EnvironmentSource("KEY"), strips=True), token=token)


def test_the_gateways_doors_are_told_apart(place: Path) -> None:
    both = gateway(ANY, UnixListen(place / "g.sock"))

    with opened(settings(ANY, gateway=both)) as doors:
        assert [door.gateway for door in doors] == [False, True, True]
        assert [door.name.startswith("gateway ") for door in doors] == [False, True, True]
        assert answers(place / "g.sock")

    assert not (place / "g.sock").exists()


def test_a_gateway_alone_opens_nothing_else(place: Path) -> None:
    with opened(settings(gateway=gateway(UnixListen(place / "g.sock")))) as (door,):
        assert door.address is None
        assert door.url == f"unix:{place}/g.sock"
        assert door.uids == {os.geteuid()}


def test_a_second_gateway_at_one_place_is_a_clear_error(place: Path) -> None:
    with opened(settings(gateway=gateway(ANY, UnixListen(place / "g.sock")))) as (tcp, _):
        assert tcp.address is not None
        port = TcpListen("127.0.0.1", tcp.address.port)

        assert "address already in use" in refusal(settings(gateway=gateway(port))).what
        again = gateway(UnixListen(place / "g.sock"))
        assert "listens" in refusal(settings(gateway=again)).what

        assert answers(place / "g.sock")


def test_the_socket_that_a_killed_gateway_left_behind_is_replaced(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place / "g.sock"))

    with opened(settings(gateway=gateway(UnixListen(place / "g.sock")))):
        assert answers(place / "g.sock")


def test_what_cannot_be_opened_for_the_gateway_closes_the_proxys_own(place: Path) -> None:
    with bind(ANY) as taken:
        port = TcpListen("127.0.0.1", taken.getsockname()[1])
        refusal(settings(UnixListen(place / "p.sock"), gateway=gateway(port)))

    assert not (place / "p.sock").exists()


def test_a_handed_over_socket_of_the_gateways_is_called_so() -> None:
    def named(name: str) -> str:
        listen = InheritedListen(bind(ANY).detach(), name)
        with opened(settings(gateway=gateway(listen))) as (door,):
            assert door.gateway
            return door.name

    assert named("gateway") == "gateway"
    assert named("llm.socket") == "gateway llm.socket"
    assert named("").startswith("gateway tcp 127.0.0.1:")


def test_other_machines_come_in_by_a_handed_over_socket_with_a_token_alone() -> None:
    def handed_over(token: str | None = None, *, allow: bool = True) -> Settings:
        listen = InheritedListen(bind(TcpListen("0.0.0.0", 0)).detach(), "")
        return settings(gateway=gateway(listen, token=token), allow_remote=allow)

    assert "no token is required" in refusal(handed_over()).what
    assert "other machines" in refusal(handed_over("token", allow=False)).what
    with opened(handed_over("token")) as (door,):
        assert door.beyond_loopback
