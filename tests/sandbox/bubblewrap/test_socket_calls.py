"""Sockets connect and bind where the sandbox alone can, and nowhere that the host can reach."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from tests.sandbox.supervised import SupervisedBox

START = """
import ctypes, errno, os, socket, struct, sys, threading
UNIX = socket.AF_UNIX
def unix(kind=socket.SOCK_STREAM):
    return socket.socket(UNIX, kind)
def bound(name, kind=socket.SOCK_STREAM):
    sock = unix(kind)
    sock.bind(name)
    sock.listen()
    return sock
def error_of(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "it worked"
"""


@contextmanager
def listening(path: Path) -> Iterator[Callable[[], list[str]]]:
    """Listen on the host; yield what was received."""
    received: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        listener.setblocking(False)

        def all_of_it() -> list[str]:
            try:
                while True:
                    listener.accept()[0].close()
                    received.append("a connection")
            except BlockingIOError:
                return received

        yield all_of_it


@pytest.mark.parametrize("name", ["/tmp/s", "/var/tmp/s", "/dev/shm/s", "~/s", "s", "\\0s"])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])
def test_what_is_bound_inside_is_connected_inside(
    supervised: SupervisedBox, name: str, kind: str
) -> None:
    script = f"""
os.chdir("/tmp")
name = os.path.expanduser("{name}")
server = bound(name, socket.{kind})
client = unix(socket.{kind})
client.connect(name)
peer, _ = server.accept()
client.send(b"hello")
text = name.encode() if name[0] == "\\0" else name
print(peer.recv(9), server.getsockname() == client.getpeername() == text)
"""

    assert supervised.python(START + script) == "b'hello' True"


def test_a_name_that_the_kernel_chooses_is_connected(supervised: SupervisedBox) -> None:
    script = """
server = bound("")
unix().connect(server.getsockname())
print(server.getsockname()[:1], server.accept()[0] is not None)
"""

    assert supervised.python(START + script) == r"b'\x00' True"


def test_a_bound_file_is_the_callers_in_owner_and_mode(supervised: SupervisedBox) -> None:
    script = """
for mask in (0o177, 0o022, 0):
    os.umask(mask)
    bound(f"/tmp/{mask}")
    seen = os.stat(f"/tmp/{mask}")
    print(oct(seen.st_mode & 0o777), (seen.st_uid, seen.st_gid) == (os.getuid(), os.getgid()))
"""

    assert supervised.python(START + script).splitlines() == [
        "0o600 True",
        "0o755 True",
        "0o777 True",
    ]


def test_a_socket_in_a_directory_that_the_caller_may_not_write_is_refused(
    supervised: SupervisedBox,
) -> None:
    script = """
os.mkdir("/tmp/closed", 0o500)
os.mkdir("/tmp/open")
bound("/tmp/open/s")
os.chmod("/tmp/open/s", 0)
if os.getuid():
    print(error_of(lambda: bound("/tmp/closed/s")), error_of(lambda: unix().connect("/tmp/open/s")))
else:
    print(error_of(lambda: socket.socket().bind(("127.0.0.1", 80))), "EACCES")
"""

    assert supervised.python(START + script) == "EACCES EACCES"


def test_a_socket_of_the_host_is_not_connected_by_any_path(supervised: SupervisedBox) -> None:
    project = supervised.box.project
    script = f"""
path = {str(project)!r} + "/late"
os.symlink(path, "/tmp/link")
os.symlink({str(project)!r}, "/tmp/directory")
holder = os.open(path, os.O_PATH)
below = os.open({str(project)!r}, os.O_RDONLY)
os.chdir({str(project)!r})
tries = [path, "late", "./late", "../project/late", "/tmp/link", "/tmp/directory/late"]
tries += [f"/tmp/../{{path}}", f"//{{path}}", f"/proc/{{os.getpid()}}/root{{path}}"]
tries += [f"/proc/self/fd/{{holder}}", f"/proc/{{os.getpid()}}/fd/{{holder}}"]
tries += [f"/proc/self/fd/{{below}}/late", "/proc/self/cwd/late", "/dev/fd/" + str(holder)]
tries += ["/proc/1/root" + path, "/proc/1/cwd/late", "/proc/thread-self/cwd/late"]
for name in tries:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        found = error_of(lambda: unix(kind).connect(name))
        if found not in ("EACCES", "ENOENT", "ELOOP"):
            print(name, found)
os.chdir("/tmp")
for name in ("link", "directory/late", ".." + path):
    print(error_of(lambda: unix().connect(name)))
"""

    with listening(project / "late") as received:
        assert supervised.python(START + script).splitlines() == ["EACCES"] * 3
        assert received() == []


def test_no_socket_file_is_made_where_the_host_sees_it(supervised: SupervisedBox) -> None:
    project = supervised.box.project
    script = f"""
project = {str(project)!r}
os.symlink(project, "/tmp/link")
below = os.open(project, os.O_RDONLY)
tries = [project + "/s", "/tmp/link/s", "/tmp/.." + project + "/s"]
tries += [f"/proc/{{os.getpid()}}/root{{project}}/s", f"/proc/{{os.getpid()}}/cwd/s"]
tries += [f"/proc/self/fd/{{below}}/s", f"/proc/{{os.getpid()}}/fd/{{below}}/s", "/proc/1/cwd/s"]
for where in ("/", "/tmp", project, "/proc/1", "/proc"):
    os.chdir(where)
    names = ("s", "./s", "../../.." + project + "/s", f"{{os.getpid()}}/root{{project}}/s")
    for name in (*tries, *names):
        error_of(lambda: unix().bind(name))
"""

    supervised.python(START + script)

    assert list(project.iterdir()) == []


def test_threads_that_change_the_address_meanwhile_gain_nothing(supervised: SupervisedBox) -> None:
    project = supervised.box.project
    script = f"""
project = {str(project)!r}
libc = ctypes.CDLL(None)
good, bad = (struct.pack("=H", UNIX) + name.encode() + b"\\0" for name in
             ("/tmp/" + "x" * (len(project) - 2) + "/s", project + "/late"))
os.mkdir("/tmp/" + "x" * (len(project) - 2))
server = bound("/tmp/" + "x" * (len(project) - 2) + "/s")
server.listen(1000)
sys.setswitchinterval(1e-5)
memory = ctypes.create_string_buffer(good, 110)
ended = False
def change():
    while not ended:
        memory.raw = bad.ljust(110, b"\\0")
        memory.raw = good.ljust(110, b"\\0")
def swap():
    os.symlink("/tmp", "/tmp/a"); os.symlink(project, "/tmp/b")
    while not ended:
        os.rename("/tmp/a", "/tmp/c"); os.rename("/tmp/b", "/tmp/a"); os.rename("/tmp/c", "/tmp/b")
threads = [threading.Thread(target=act) for act in (change, swap)]
for thread in threads: thread.start()
for number in range(200):
    sock = unix()
    libc.connect(sock.fileno(), memory, 110)
    libc.bind(unix().fileno(), memory, 110)
    error_of(lambda: unix().connect("/tmp/a/late"))
    error_of(lambda: unix().bind(f"/tmp/a/{{number}}"))
ended = True
for thread in threads: thread.join()
print("tried")
"""

    with listening(project / "late") as received:
        assert supervised.python(START + script) == "tried"
        assert received() == []
    assert [path.name for path in project.iterdir()] == ["late"]


def test_a_descriptor_that_changes_meanwhile_gains_nothing(supervised: SupervisedBox) -> None:
    project = supervised.box.project
    script = f"""
path = {str(project)!r} + "/late"
network = socket.socket()
number = os.dup(network.fileno())
ended = False
def change():
    while not ended:
        with unix() as sock:
            os.dup2(sock.fileno(), number)
        os.dup2(network.fileno(), number)
thread = threading.Thread(target=change)
sys.setswitchinterval(1e-5)
thread.start()
address = struct.pack("=H", UNIX) + path.encode()
libc = ctypes.CDLL(None)
print({{libc.connect(number, address, len(address)) for _ in range(300)}})
ended = True
thread.join()
"""

    with listening(project / "late") as received:
        assert supervised.python(START + script) == "{-1}"
        assert received() == []


def test_a_message_with_an_address_reaches_no_other_socket(supervised: SupervisedBox) -> None:
    project = supervised.box.project
    script = f"""
path = {str(project)!r} + "/late"
one, other = socket.socketpair(UNIX, socket.SOCK_SEQPACKET)
streams = socket.socketpair()
for sock in (unix(), unix(socket.SOCK_SEQPACKET), one, streams[0]):
    error_of(lambda: sock.sendto(b"out", path))
    error_of(lambda: sock.sendmsg([b"out"], [], 0, path))
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, 4, 6, 10):
    print(error_of(lambda: unix(kind)))
"""

    with listening(project / "late") as received:
        printed = supervised.python(START + script).splitlines()
        assert printed == ["EPROTONOSUPPORT"] * 5
        assert received() == []


def test_abstract_names_of_the_host_are_refused(supervised: SupervisedBox) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        name = listener.getsockname()
        script = f"print(error_of(lambda: unix().connect({name!r})))"
        binds = (
            "print(error_of(lambda: unix().bind(chr(0) + 'x')), error_of(lambda: unix().bind('')))"
        )

        assert supervised.python(START + script) == "ECONNREFUSED"  # another network's names
        found = supervised.python(START + script + "\n" + binds, network=NetworkMode.OPEN)

    assert found.split() == ["EACCES"] * 3


def test_files_of_the_sandbox_are_used_on_the_hosts_network_too(supervised: SupervisedBox) -> None:
    script = "server = bound('/tmp/s'); unix().connect('/tmp/s'); print(len(server.accept()))"

    assert supervised.python(START + script, network=NetworkMode.OPEN) == "2"


def test_a_socket_from_outside_is_not_turned_elsewhere(supervised: SupervisedBox) -> None:
    with socket.socket() as outside, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        script = f"""
sock = socket.socket(fileno=0)
print(error_of(lambda: sock.connect(("127.0.0.1", {port}))))
print(error_of(lambda: sock.bind(("127.0.0.1", 0))))
"""

        found = supervised.python(START + script, stdin=outside.fileno())

    assert found.split() == ["EPERM", "EPERM"]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("libc.connect(sock, None, 110)", errno.EFAULT),
        ("libc.connect(sock, ctypes.c_void_p(2**63), 110)", errno.EFAULT),
        ("libc.connect(sock, b'x' * 200, 129)", errno.EINVAL),
        ("libc.connect(sock, b'x' * 200, -1)", errno.EINVAL),
        ("libc.connect(sock, b'', 0)", errno.EINVAL),
        ("libc.connect(sock, struct.pack('=H', 2) + bytes(14), 16)", errno.EINVAL),
        ("libc.connect(sock, struct.pack('=H', 0) + bytes(14), 16)", errno.EINVAL),
        ("libc.connect(999, b'', 0)", errno.EBADF),
        ("libc.connect(-1, b'', 0)", errno.EBADF),
        ("libc.connect(os.open('/tmp', os.O_RDONLY), b'', 0)", errno.ENOTSOCK),
        ("libc.connect(sock, struct.pack('=H', 1) + b'/tmp/none', 12)", errno.ENOENT),
        ("libc.connect(sock, struct.pack('=H', 1) + b'/tmp', 7)", errno.ECONNREFUSED),
        ("libc.bind(sock, struct.pack('=H', 1) + b'/tmp', 7)", errno.EADDRINUSE),
        ("libc.bind(sock, struct.pack('=H', 1) + b'x' * 109, 111)", errno.EINVAL),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_with_its_error(
    supervised: SupervisedBox, act: str, error: int
) -> None:
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
sock = unix().detach()
print({act}, errno.errorcode[ctypes.get_errno()])
"""

    assert supervised.python(START + script) == f"-1 {errno.errorcode[error]}"


def test_sockets_of_the_network_work_as_before(supervised: SupervisedBox) -> None:
    script = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname(), timeout=9)
server.accept()[0].send(b"hello")
print(client.recv(9), error_of(lambda: socket.create_connection(("127.0.0.1", 1))))
print(error_of(lambda: socket.create_connection(("192.0.2.1", 443))))
sock = socket.socket()
sock.setblocking(False)
print(sock.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS))
print(socket.if_nameindex()[0][1], socket.getaddrinfo("127.0.0.1", 80)[0][4])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(("127.0.0.1", 9))
print(udp.getsockname()[0])
"""

    assert supervised.python(START + script).splitlines() == [
        "b'hello' ECONNREFUSED",
        "ENETUNREACH",
        "True",
        "lo ('127.0.0.1', 80)",
        "127.0.0.1",
    ]
