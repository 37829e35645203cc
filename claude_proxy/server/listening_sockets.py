"""Listening sockets: TCP, Unix and inherited, opened before there is an event loop.

Keeps "the sandbox cannot move its own wall": no other user can replace one of our sockets with
theirs, or connect to one that is not meant for them. Keeps "no quiet downgrade": an address that
cannot be listened on as requested stops the start.
"""

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from claude_proxy.config.settings import (
    InheritedListen,
    Listen,
    RunIdentity,
    Settings,
    TcpListen,
    UnixListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.system import peer_credentials, unix_socket
from claude_proxy.system.unix_socket import BACKLOG, SocketFile
from claude_proxy.wire.authority import Authority

_GATEWAY = "gateway"  # prefix of the names of the gateway's listeners
_DEFERRED = (signal.SIGINT, signal.SIGTERM)
_FIXES = {
    errno.EADDRINUSE: "stop what listens there, or choose another port with --port",
    errno.EADDRNOTAVAIL: "name an address of this machine; `ip address` shows them",
    errno.EACCES: "choose a port above 1023, or have a service manager pass the socket on",
}


@dataclass(frozen=True, slots=True)
class OpenListener:
    """One listener whose sockets are open."""

    name: str  # as written in the audit log
    url: str  # what a client connects to
    sockets: tuple[socket.socket, ...]  # one for each worker; the same one if they share it
    address: Authority | None = None  # of a TCP listener
    file: SocketFile | None = None
    once: bool = False  # remove the file after the first client has connected
    run: RunIdentity | None = None  # the run that it serves
    gateway: bool = False  # its clients talk to the gateway instead of the proxy
    uids: frozenset[int] = field(default_factory=frozenset)  # who may connect to a Unix socket

    @property
    def beyond_loopback(self) -> bool:
        """Whether other machines can reach it."""
        return self.address is not None and not _is_loopback(self.address.host)

    def socket_of(self, number: int) -> socket.socket:
        """Return the socket of worker `number`, and close those of the other workers."""
        own = self.sockets[number]
        for sock in self.sockets:
            if sock is not own:
                sock.close()
        return own

    def close(self) -> None:
        """Close the sockets of this process; the file of a Unix socket stays."""
        for sock in self.sockets:
            sock.close()

    def remove(self) -> None:
        """Remove the file of a Unix socket."""
        if self.file is not None:
            self.file.remove()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[tuple[OpenListener, ...]]:
    """Open every listener for the duration of a `with`; ConfigError if one cannot be opened."""
    wanted = [(listen, False) for listen in settings.listen]
    if settings.gateway is not None:
        wanted += [(listen, True) for listen in settings.gateway.listen]
    if not wanted:
        raise ConfigError(
            "there is nothing to listen on",
            where="--listen",
            fix="name an address or a Unix socket with --listen",
        )
    stack = contextlib.ExitStack()
    try:
        ready = []
        for listen, gateway in wanted:
            with _signals_deferred():
                listener = open_one(listen, settings)
                stack.callback(listener.close)
                stack.callback(listener.remove)
            ready.append(_of_gateway(listener, settings) if gateway else listener)
        yield tuple(ready)
    finally:
        with _signals_deferred():
            stack.close()


def remove_files(listening: Iterable[OpenListener]) -> None:
    """Remove the files of Unix sockets at once, so that the next proxy can use the paths."""
    for opened in listening:
        opened.remove()


def _of_gateway(listener: OpenListener, settings: Settings) -> OpenListener:
    """Return the listener as one of the gateway; ConfigError if others could use its key."""
    token = None if settings.gateway is None else settings.gateway.token
    if listener.beyond_loopback and token is None:
        raise ConfigError(
            f"{listener.url} can be reached from other machines, and no token is required",
            where=listener.name,
            fix="listen on 127.0.0.1, or add --token-file",
        )
    name = listener.name if listener.name.startswith(_GATEWAY) else f"{_GATEWAY} {listener.name}"
    return replace(listener, name=name, gateway=True)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer signals: one that arrives in between would leave a file behind.

    A signal mask would not do: the kernel would deliver the signal to an unmasked thread, and
    Python would then run the handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not handled here
        return
    deferred: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: deferred.append(number))
        for number in _DEFERRED
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signum in deferred:
            signal.raise_signal(signum)


def open_one(listen: Listen, settings: Settings) -> OpenListener:
    """Open one listener; ConfigError if that is not possible."""
    match listen:
        case TcpListen():
            return _tcp(listen, settings.workers)
        case UnixListen():
            return _unix(listen, settings)
        case InheritedListen():
            return _inherited(listen, settings)


# --- TCP


def _tcp(listen: TcpListen, count: int) -> OpenListener:
    sockets = bind_all(listen, count)
    return _opened_tcp(f"tcp {_shown(sockets[0])}", sockets)


def _opened_tcp(name: str, sockets: list[socket.socket]) -> OpenListener:
    host, port = sockets[0].getsockname()[:2]
    shown = _shown(sockets[0])
    return OpenListener(name, f"http://{shown}", tuple(sockets), address=Authority.of(host, port))


def _shown(sock: socket.socket) -> str:
    return str(TcpListen(*sock.getsockname()[:2]))


def bind_all(listen: TcpListen, count: int) -> list[socket.socket]:
    """Return `count` sockets listening on one address; ConfigError if that is not possible."""
    first = bind(listen)
    if count == 1:
        return [first]
    # SO_REUSEPORT admits any process of the same user, another proxy too: so first make sure
    # that the port is free without it.
    port = first.getsockname()[1]
    first.close()
    return [bind(TcpListen(listen.host, port), shared=True) for _ in range(count)]


def bind(listen: TcpListen, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; ConfigError if the address is unavailable."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # The protocol is given because asyncio sets TCP_NODELAY only on IPPROTO_TCP sockets.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listen.host, listen.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {listen.host} port {listen.port}: {_text_of(error)}",
            where=str(listen),
            fix=_FIXES.get(error.errno or 0, "choose another address or port"),
        ) from error
    return sock


def _is_loopback(host: str) -> bool:
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


# --- Unix sockets


def _unix(listen: UnixListen, settings: Settings) -> OpenListener:
    path, uids = listen.path, allowed_uids(settings)
    sock, file = unix_socket.listen_at(path, others=not uids <= {os.geteuid()})
    return OpenListener(
        f"unix {path}",
        f"unix:{path}",
        (sock,) * settings.workers,
        file=file,
        once=listen.unlink_after_first,
        uids=uids,
    )


def allowed_uids(settings: Settings) -> frozenset[int]:
    """Return the user IDs whose connections to a Unix socket are accepted."""
    uids = settings.uids or frozenset({os.geteuid()})
    overflow = peer_credentials.overflow_uid()
    if overflow in uids:
        raise ConfigError(
            f"uid {overflow} represents every user that is not mapped into this user namespace",
            where="--socket-uid",
            fix="use the uid of a mapped user, or map the user (/proc/self/uid_map)",
        )
    return uids


# --- inherited sockets


def _inherited(listen: InheritedListen, settings: Settings) -> OpenListener:
    sock = _inherited_socket(listen)
    try:
        if sock.family == socket.AF_UNIX:
            return replace(_inherited_unix(listen, sock, settings), run=listen.run)
        return replace(_inherited_tcp(listen, sock, settings), run=listen.run)
    except BaseException:
        sock.close()
        raise


def _inherited_unix(
    listen: InheritedListen, sock: socket.socket, settings: Settings
) -> OpenListener:
    shown = _unix_name(sock)
    name = listen.name or f"unix {shown}"
    return OpenListener(
        name, f"unix:{shown}", (sock,) * settings.workers, uids=allowed_uids(settings)
    )


def _inherited_tcp(
    listen: InheritedListen, sock: socket.socket, settings: Settings
) -> OpenListener:
    shown = _shown(sock)
    one = _opened_tcp(listen.name or f"tcp {shown}", [sock] * settings.workers)
    if one.beyond_loopback and not settings.allow_remote:
        raise ConfigError(
            f"the inherited socket {shown} can be reached from other machines",
            where=f"descriptor {listen.descriptor} (systemd's ListenStream=)",
            fix="listen on 127.0.0.1, or add --allow-remote and name the clients "
            "with --client CIDR",
        )
    return one


def _inherited_socket(listen: InheritedListen) -> socket.socket:
    try:
        sock = socket.socket(fileno=listen.descriptor)
    except OSError as error:
        raise _unusable(listen, f"is not a socket ({_text_of(error)})") from error
    if sock.type != socket.SOCK_STREAM:
        problem: str | None = "is not a stream socket (ListenDatagram=, for example)"
    elif sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        problem = "is neither TCP nor a Unix socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        problem = "is not listening (Accept=yes is not supported)"
    else:
        problem = None
    if problem is not None:
        sock.close()
        raise _unusable(listen, problem)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _unusable(listen: InheritedListen, problem: str) -> ConfigError:
    return ConfigError(
        f"the inherited descriptor {problem}",
        where=f"descriptor {listen.descriptor}",
        fix="use ListenStream= and Accept=no in the socket unit",
    )


def _unix_name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, bytes):  # an abstract socket, which has no file mode
        return "@" + name[1:].decode("utf-8", "replace")
    return name or "(unnamed)"


def _text_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
