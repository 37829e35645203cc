"""The supervisor holds nobody up, interrupts as the kernel would, and is missed if it ends."""

import errno
import platform
import re
import sys
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from tests.sandbox.supervised import SupervisedBox
from tests.support.waiting import until

KERNEL = tuple(int(number) for number in re.findall("[0-9]+", platform.release())[:2])

# A server whose queue is full, so that a connect waits.
FULL = """
import os, signal, socket, threading, time
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/full")
server.listen(0)
socket.socket(socket.AF_UNIX).connect("/tmp/full")
def waiting():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/tmp/full")
"""


def test_a_connect_that_waits_holds_no_other_up(supervised: SupervisedBox) -> None:
    script = """
threads = [threading.Thread(target=waiting) for _ in range(40)]
for thread in threads: thread.start()
other = socket.create_server(("127.0.0.1", 0))
for _ in range(40):
    socket.create_connection(other.getsockname()).close()
print("others go on", sum(thread.is_alive() for thread in threads))
for _ in range(41):
    server.accept()[0].close()
for thread in threads: thread.join()
print("and they too")
"""

    printed = supervised.python(FULL + script).splitlines()

    assert printed == ["others go on 40", "and they too"]


def test_a_socket_that_does_not_block_is_told_to_try_again(supervised: SupervisedBox) -> None:
    script = """
sock = socket.socket(socket.AF_UNIX)
sock.setblocking(False)
print(sock.connect_ex("/tmp/full"))
"""

    assert supervised.python(FULL + script) == str(errno.EAGAIN)


def test_a_signal_reaches_a_program_whose_connect_waits(supervised: SupervisedBox) -> None:
    script = """
def handler(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    waiting()
except KeyboardInterrupt:
    print("interrupted")
"""

    assert supervised.python(FULL + script) == "interrupted"


def test_a_connect_starts_again_after_a_handler_that_says_so(supervised: SupervisedBox) -> None:
    script = """
import ctypes, struct
address = struct.pack("=H", socket.AF_UNIX) + b"/tmp/full"
child = os.fork()
if not child:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, False)
    sock = socket.socket(socket.AF_UNIX)
    os._exit(ctypes.CDLL(None).connect(sock.fileno(), address, len(address)))
def lines(name):
    with open(f"/proc/{child}/status") as file:
        return [line for line in file if line.startswith(name)]
while "S" not in lines("State")[0] or int(lines("SigCgt")[0].split()[1], 16) & 0x200 == 0:
    pass
for _ in range(3):
    os.kill(child, signal.SIGUSR1)
    while int(lines("ShdPnd")[0].split()[1], 16):
        pass
server.accept(); server.accept()
print(os.waitpid(child, 0)[1])
"""

    assert supervised.python(FULL + script) == "0"


def test_a_program_that_waits_can_be_killed(supervised: SupervisedBox) -> None:
    script = """
begun, begin = os.pipe()
child = os.fork()
if not child:
    os.write(begin, b"x")
    waiting()
os.read(begun, 1)
def state():
    with open(f"/proc/{child}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
while state() != "S":
    pass
os.kill(child, signal.SIGKILL)
print(os.waitpid(child, 0)[1])
socket.socket(socket.AF_INET).bind(("127.0.0.1", 0))
"""

    assert supervised.python(FULL + script) == "9"


def test_processes_that_may_not_be_traced_have_sockets_too(supervised: SupervisedBox) -> None:
    script = """
import ctypes
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, as ssh-agent does
os.chdir("/tmp")
one = socket.socket(socket.AF_UNIX)
one.bind("quiet")
one.listen()
socket.socket(socket.AF_UNIX).connect("quiet")
print(one.accept()[0].getsockname())
"""

    assert supervised.python(FULL + script) == "quiet"


def test_a_thread_with_descriptors_of_its_own_connects_its_own(supervised: SupervisedBox) -> None:
    script = """
server.listen(9)
other = socket.create_server(("127.0.0.1", 0))
def act():
    os.unshare(0x400)  # CLONE_FILES
    number = os.open("/dev/null", os.O_RDONLY)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("/tmp/full")
    print(sock.getpeername())
thread = threading.Thread(target=act)
thread.start()
thread.join()
"""

    assert supervised.python(FULL + script) == "/tmp/full"


def test_datagram_pairs_are_made_as_well(supervised: SupervisedBox) -> None:
    script = """
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
one.send(b"a"); one.send(b"bc")
print(other.recv(9), other.recv(9))
"""

    assert supervised.python(FULL + script) == "b'a' b'bc'"


def test_without_the_program_nothing_connects_or_binds(supervised: SupervisedBox) -> None:
    script = """
import errno, socket
for act in (lambda: socket.socket().connect(("127.0.0.1", 1)),
            lambda: socket.socket(socket.AF_UNIX).bind("/tmp/s"),
            lambda: socket.socket().bind(("127.0.0.1", 0))):
    try:
        act()
    except OSError as error:
        print(errno.errorcode[error.errno])
"""

    printed = supervised.python(script, meanwhile=lambda supervisor: supervisor.end())

    assert printed.splitlines() == ["ENOSYS"] * 3


def test_a_supervisor_that_cannot_enter_is_an_error(supervised: SupervisedBox) -> None:
    with supervised.started(sys.executable, "-c", "print('ran')") as (bwrap, supervisor):
        supervisor.end()

        with pytest.raises(ClaudeProxyError, match="nothing was run"):
            supervisor.enter(bwrap.init, unfiltered=False)


def test_a_peer_is_a_user_and_not_a_process(supervised: SupervisedBox) -> None:
    script = """
import errno, struct
peer, _ = server.accept()
print(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
      == (0, os.getuid(), os.getgid()))
try:
    peer.getsockopt(socket.SOL_SOCKET, 77)  # SO_PEERPIDFD
except OSError as error:
    print(errno.errorcode[error.errno])
"""

    assert supervised.python(FULL + script).splitlines() == ["True", "ENOPROTOOPT"]


def test_a_sandbox_full_of_processes_keeps_its_sockets(supervised: SupervisedBox) -> None:
    script = """
import resource
threads = [threading.Thread(target=waiting) for _ in range(20)]
for thread in threads: thread.start()
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
for _ in range(21):
    server.accept()[0].close()
for thread in threads: thread.join()
print(socket.create_server(("127.0.0.1", 0)).getsockname()[0])
"""

    assert supervised.python(FULL + script) == "127.0.0.1"


def test_nothing_inside_sees_the_program(supervised: SupervisedBox) -> None:
    script = "import os; print([n for n in os.listdir('/proc') if n.isdecimal() and int(n) > 9])"

    assert supervised.python(script) == "[]"


# Before Linux 6.11 the kernel lets who asks wait for ever.
@pytest.mark.skipif(KERNEL < (6, 11), reason="this kernel does not tell the program")
def test_nothing_asks_for_calls_once_nobody_is_left_inside(supervised: SupervisedBox) -> None:
    with supervised.started("true") as (bwrap, supervisor):
        threads = Path(f"/proc/{supervisor.pid}/task")
        until(lambda: len(list(threads.iterdir())) > 1)

        bwrap.release()
        bwrap.process.communicate(timeout=60)

        until(lambda: len(list(threads.iterdir())) == 1)
