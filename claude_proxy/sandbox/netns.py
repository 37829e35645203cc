"""Network namespace of a sandbox: creates listening sockets in it, and probes its connections.

A socket belongs to the namespace in which it was created, whichever process holds it later. So the
relay can stay outside, where nothing in the sandbox can see, trace or kill it, and still answer on
the sandbox's loopback interface. A child process enters the namespace, does one task and exits: a
process with threads cannot enter a user namespace, and the launcher must not stay in one.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.loopback_sockets import HOST, Place, listening, receiving

# Documentation addresses (RFC 5737, RFC 3849), which are never assigned.
NOWHERE = (("192.0.2.1", 443), ("2001:db8::1", 443))

_NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns another namespace
_PATIENCE_S = 10.0
_ANSWER_S = 10.0
_HEAD_LIMIT = 4096
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
_NO_FAMILY = errno.EAFNOSUPPORT  # a kernel without IPv6
_FIX = "run `claude-proxy doctor`, which checks the namespaces of this machine"
_NO_FAKE_NETWORK = (
    "leave out --transparent on; or let the kernel have virtual cables (CONFIG_VETH; "
    "`sudo modprobe veth`) and one more network namespace (sysctl user.max_net_namespaces)"
)


class EntryError(ClaudeProxyError):
    """A network namespace cannot be entered, or nothing can be done in it."""


@dataclass(frozen=True, slots=True)
class NetworkProbe:
    """The results of connections that were tried from inside."""

    direct: str | None  # the error of a connection past the proxy; None: it had a route
    allowed: int | None  # the status of a CONNECT to an allowed host; None: no answer
    denied: int | None  # the status of a CONNECT to a denied host


def listeners(
    pid: int, ports: Sequence[Place], datagram_ports: Sequence[int] = ()
) -> list[socket.socket]:
    """Return sockets on loopback in the network namespace of process `pid`.

    First those that listen on TCP ports, also of other addresses of loopback; then those that
    receive on UDP ports.
    """
    wanted = len(ports) + len(datagram_ports)
    with _inside(
        network_of(pid), lambda channel: _hand_over(channel, ports, datagram_ports)
    ) as channel:
        return [socket.socket(fileno=number) for number in _received(channel, wanted)]


def fake_network(pid: int, ports: Sequence[int]) -> tuple[int, list[socket.socket]]:
    """Give process `pid` the fake addresses, and return where they lead.

    That is a descriptor of a network namespace, and a listening socket in it for each TCP port.
    """
    from claude_proxy.sandbox import fake_network  # noqa: PLC0415 - few runs have one

    with _inside(
        network_of(pid), lambda channel: fake_network.hand_over(channel, ports)
    ) as channel:
        namespace, *rest = _received(channel, 1 + len(ports), _NO_FAKE_NETWORK)
        return namespace, [socket.socket(fileno=number) for number in rest]


def fake_network_listener(namespace: int, port: int) -> socket.socket:
    """Return one more listening socket in the namespace that `fake_network` returned."""
    from claude_proxy.sandbox import fake_network  # noqa: PLC0415 - few runs have one

    with _inside(
        f"/proc/self/fd/{namespace}", lambda channel: fake_network.hand_over_one(channel, port)
    ) as channel:
        return socket.socket(fileno=_received(channel, 1)[0])


def network_of(pid: int) -> str:
    """Return the file of the network namespace of a process."""
    return f"/proc/{pid}/ns/net"


def _received(channel: socket.socket, wanted: int, fix: str = _FIX) -> list[int]:
    message, descriptors, _, _ = socket.recv_fds(channel, _HEAD_LIMIT, wanted)
    if len(descriptors) != wanted:
        for number in descriptors:
            os.close(number)
        raise failed(message, fix)
    return list(descriptors)


def probe_network(pid: int, port: int, allowed: str, denied: str) -> NetworkProbe:
    """Try connections from the network namespace of `pid`; targets are "host:port"."""
    with _inside(
        network_of(pid), lambda channel: _report(channel, port, allowed, denied)
    ) as channel:
        message = channel.recv(_HEAD_LIMIT)
        try:
            found = json.loads(message)
            return NetworkProbe(found["direct"], found["allowed"], found["denied"])
        except (ValueError, KeyError, TypeError):
            raise failed(message) from None


# In the child process


def _hand_over(
    channel: socket.socket, ports: Sequence[Place], datagram_ports: Sequence[int]
) -> None:
    sockets = [*map(listening, ports), *map(receiving, datagram_ports)]
    socket.send_fds(channel, [b"sockets"], [sock.fileno() for sock in sockets])


def _report(channel: socket.socket, port: int, allowed: str, denied: str) -> None:
    channel.send(json.dumps(attempts(port, allowed, denied)).encode())


def attempts(port: int, allowed: str, denied: str) -> dict[str, object]:
    """Try connections from the network namespace of this process; return a probe as JSON has it."""
    return {
        "direct": _past_the_proxy(),
        "allowed": _ask(port, allowed),
        "denied": _ask(port, denied),
    }


def _past_the_proxy() -> str | None:
    """Return the error of direct connections; None if one of them had a route."""
    first_error = ""
    for address in NOWHERE:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(1)
                sock.connect(address)
        except OSError as error:
            if error.errno in _NO_ROUTE:
                first_error = first_error or (error.strerror or "").lower()
            elif error.errno != _NO_FAMILY:
                return None  # a packet was sent
        else:
            return None
    return first_error or None


def _ask(port: int, target: str) -> int | None:
    """Return the status of a CONNECT through the proxy; None if there was none."""
    try:
        # Not create_connection: a lent Python has no codec for the names that it would look up.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(_ANSWER_S)
            sock.connect((HOST, port))
            sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            head = b""
            while b"\r\n" not in head and len(head) < _HEAD_LIMIT:
                piece = sock.recv(_HEAD_LIMIT)
                if not piece:
                    return None
                head += piece
        return int(head.split()[1])
    except (OSError, ValueError, IndexError):
        return None


# Entering the namespaces


@contextlib.contextmanager
def _inside(network: str, work: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Run `work` in a child in a network namespace, by its file; yield the channel to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become_child(network, theirs, work)
    theirs.close()
    try:
        ours.settimeout(_PATIENCE_S + 2 * _ANSWER_S)
        yield ours
    except TimeoutError as error:
        raise failed(b"it took too long") from error
    finally:
        ours.close()
        _reap(child)


def _become_child(
    network: str, channel: socket.socket, work: Callable[[socket.socket], None]
) -> None:
    """Enter the namespaces, do the work, and exit without running the parent's clean-up."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        enter(network)
        work(channel)
    except BaseException as error:  # noqa: BLE001 - the child ends here
        text = getattr(error, "strerror", None) or type(error).__name__
        with contextlib.suppress(OSError):
            channel.send(str(text).encode())
    finally:
        os._exit(0)


def enter(file: str) -> None:
    """Move this process into a network namespace; only for a child without threads."""
    network = os.open(file, os.O_RDONLY)
    # Not /proc/PID/ns/user: bwrap may have made a second user namespace below the one that owns
    # the network, and entering requires the owner.
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - one call
        os.setns(owner, os.CLONE_NEWUSER)
    if os.fstat(network).st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116 - one call
        # Otherwise this would listen on the host's own loopback interface.
        raise OSError(errno.EINVAL, "the sandbox has no network namespace of its own")
    os.setns(network, os.CLONE_NEWNET)


def _reap(child: int) -> None:
    """Wait for a child that is done; kill one that is not."""
    descriptor = os.pidfd_open(child)
    try:
        if not select.select([descriptor], [], [], 1.0)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        os.close(descriptor)


def failed(message: bytes, fix: str = _FIX) -> EntryError:
    """Return the error for a namespace that cannot be entered, for a reason in words."""
    reason = message.decode(errors="replace").lower() or "no answer"
    return EntryError(
        f"the sandbox's network cannot be entered: {reason}",
        where="its network namespace",
        fix=fix,
    )
