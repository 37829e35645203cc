"""Makes the sockets that clients come in by, before there is an event loop: TCP, Unix, inherited.

Law 10: no other user can put a socket of theirs in the place of ours, nor connect to one that was
not meant for them. Law 11: what cannot be listened on as it was asked for stops the start.
"""

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from claude_proxy.config.settings import InheritedListen, Listen, Settings, TcpListen, UnixListen
from claude_proxy.errors import ConfigError
from claude_proxy.system import peer_credentials, unix_socket
from claude_proxy.system.unix_socket import BACKLOG, SocketFile
from claude_proxy.wire.authority import Authority

_GATEWAY = "gateway"  # how the names of its listeners begin
_PUT_OFF = (signal.SIGINT, signal.SIGTERM)
_MENDS = {
    errno.EADDRINUSE: "stop what listens there, or choose another port with --port",
    errno.EADDRNOTAVAIL: "name an address of this machine; `ip address` shows them",
    errno.EACCES: "choose a port above 1023, or have a service manager hand the socket over",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """One listener, ready for clients."""

    name: str  # as the audit log has it
    url: str  # as a client is told it
    sockets: tuple[socket.socket, ...]  # one for each process; where they share, the same one
    address: Authority | None = None  # of a TCP listener
    file: SocketFile | None = None
    once: bool = False  # the file goes when the first client is in
    gateway: bool = False  # its clients speak to the gateway, not to the proxy
    uids: frozenset[int] = field(default_factory=frozenset)  # who may connect to a Unix socket

    @property
    def beyond_loopback(self) -> bool:
        """Whether other machines may reach it."""
        return self.address is not None and not _is_loopback(self.address.host)

    def socket_of(self, number: int) -> socket.socket:
        """Return the socket of one of the processes, and close those of the others."""
        own = self.sockets[number]
        for sock in self.sockets:
            if sock is not own:
                sock.close()
        return own

    def close(self) -> None:
        """Close what this process has of it; the file stays."""
        for sock in self.sockets:
            sock.close()

    def remove(self) -> None:
        """Take the name of a Unix socket away."""
        if self.file is not None:
            self.file.remove()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[tuple[Opened, ...]]:
    """Open every listener for the time of a `with`; ConfigError if one of them cannot be had."""
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
            with _undisturbed():
                door = open_one(listen, settings)
                stack.callback(door.close)
                stack.callback(door.remove)
            ready.append(_of_gateway(door, settings) if gateway else door)
        yield tuple(ready)
    finally:
        with _undisturbed():
            stack.close()


def _of_gateway(door: Opened, settings: Settings) -> Opened:
    """Return a door that leads to the gateway; ConfigError if strangers could use its key."""
    token = None if settings.gateway is None else settings.gateway.token
    if door.beyond_loopback and token is None:
        raise ConfigError(
            f"{door.url} is reached from other machines, and no token is asked for",
            where=door.name,
            fix="have it listen on 127.0.0.1, or add --token-file",
        )
    name = door.name if door.name.startswith(_GATEWAY) else f"{_GATEWAY} {door.name}"
    return replace(door, name=name, gateway=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off signals, of which one in between would leave a file behind.

    Not by a mask: the kernel would give them to a thread that has none, and Python to this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not handled here
        return
    put_off: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: put_off.append(number))
        for number in _PUT_OFF
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in put_off:
            signal.raise_signal(came)


def open_one(listen: Listen, settings: Settings) -> Opened:
    """Open one listener; ConfigError if it cannot be had."""
    match listen:
        case TcpListen():
            return _tcp(listen, settings.workers)
        case UnixListen():
            return _unix(listen, settings)
        case InheritedListen():
            return _inherited(listen, settings)


# --- TCP


def _tcp(listen: TcpListen, count: int) -> Opened:
    sockets = bind_all(listen, count)
    return _opened_tcp(f"tcp {_shown(sockets[0])}", sockets)


def _opened_tcp(name: str, sockets: list[socket.socket]) -> Opened:
    host, port = sockets[0].getsockname()[:2]
    shown = _shown(sockets[0])
    return Opened(name, f"http://{shown}", tuple(sockets), address=Authority.of(host, port))


def _shown(sock: socket.socket) -> str:
    return str(TcpListen(*sock.getsockname()[:2]))


def bind_all(listen: TcpListen, count: int) -> list[socket.socket]:
    """Return `count` sockets listening on one address; ConfigError if it cannot be had."""
    first = bind(listen)
    if count == 1:
        return [first]
    # Sharing lets anybody of the same user in, another proxy too: so the port must be free
    # without it first.
    port = first.getsockname()[1]
    first.close()
    return [bind(TcpListen(listen.host, port), shared=True) for _ in range(count)]


def bind(listen: TcpListen, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; ConfigError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # Naming the protocol matters: asyncio switches Nagle off only for IPPROTO_TCP sockets.
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
            f"cannot listen on {listen.host} port {listen.port}: {_words_of(error)}",
            where=str(listen),
            fix=_MENDS.get(error.errno or 0, "choose another address or port"),
        ) from error
    return sock


def _is_loopback(host: str) -> bool:
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


# --- Unix sockets


def _unix(listen: UnixListen, settings: Settings) -> Opened:
    path, uids = listen.path, admitted(settings)
    sock, file = unix_socket.listen_at(path, others=not uids <= {os.geteuid()})
    return Opened(
        f"unix {path}",
        f"unix:{path}",
        (sock,) * settings.workers,
        file=file,
        once=listen.unlink_after_first,
        uids=uids,
    )


def admitted(settings: Settings) -> frozenset[int]:
    """Return the users whose connections to a Unix socket are served."""
    uids = settings.uids or frozenset({os.geteuid()})
    stranger = peer_credentials.nobody_in_particular()
    if stranger in uids:
        raise ConfigError(
            f"uid {stranger} stands for every user that this user namespace does not know",
            where="--socket-uid",
            fix="name a user of this namespace, or map the user into it (/proc/self/uid_map)",
        )
    return uids


# --- sockets that somebody else has made


def _inherited(listen: InheritedListen, settings: Settings) -> Opened:
    sock = _taken_over(listen)
    try:
        if sock.family == socket.AF_UNIX:
            return _inherited_unix(listen, sock, settings)
        return _inherited_tcp(listen, sock, settings)
    except BaseException:
        sock.close()
        raise


def _inherited_unix(listen: InheritedListen, sock: socket.socket, settings: Settings) -> Opened:
    shown = _unix_name(sock)
    name = listen.name or f"unix {shown}"
    return Opened(name, f"unix:{shown}", (sock,) * settings.workers, uids=admitted(settings))


def _inherited_tcp(listen: InheritedListen, sock: socket.socket, settings: Settings) -> Opened:
    shown = _shown(sock)
    one = _opened_tcp(listen.name or f"tcp {shown}", [sock] * settings.workers)
    if one.beyond_loopback and not settings.allow_remote:
        raise ConfigError(
            f"the socket that was handed over, {shown}, is reached from other machines",
            where=f"descriptor {listen.descriptor} (systemd's ListenStream=)",
            fix="have it listen on 127.0.0.1, or add --allow-remote and name the clients "
            "with --client CIDR",
        )
    return one


def _taken_over(listen: InheritedListen) -> socket.socket:
    try:
        sock = socket.socket(fileno=listen.descriptor)
    except OSError as error:
        raise _unusable(listen, f"is no socket ({_words_of(error)})") from error
    if sock.type != socket.SOCK_STREAM:
        fault: str | None = "carries no streams (ListenDatagram= or the like)"
    elif sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        fault = "is neither TCP nor a Unix socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        fault = "is not listening (Accept=yes is not for this program)"
    else:
        fault = None
    if fault is not None:
        sock.close()
        raise _unusable(listen, fault)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _unusable(listen: InheritedListen, fault: str) -> ConfigError:
    return ConfigError(
        f"what was handed over as a socket {fault}",
        where=f"descriptor {listen.descriptor}",
        fix="give it with ListenStream= and Accept=no in the socket unit",
    )


def _unix_name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, bytes):  # of the abstract namespace, which has no modes
        return "@" + name[1:].decode("utf-8", "replace")
    return name or "(unnamed)"


def _words_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
