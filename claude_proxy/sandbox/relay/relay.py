"""Relay program: connects a sandbox's only network route to the proxy.

It starts in milliseconds, because it does not import mitmproxy, click or asyncio, and also runs as
`python -I -S PATH/relay.py` without any installed package. Law kept: default-deny. It listens on
loopback addresses and Unix sockets only, unless --allow-remote is given.
"""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from selectors import EVENT_READ
from types import FrameType

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.relay.bridge import DEFAULT_LIMIT, Bridge
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.relay.tunnel_opening import TunnelOpening

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from claude_proxy.sandbox.relay.name_lookups import Finder

type TcpAddress = tuple[str, int]

USAGE = """\
usage: relay.py --listen ADDRESS [--listen ADDRESS ...] --to ADDRESS [options]

Copies bytes between the clients of the listening sockets and ADDRESS.

  --listen ADDRESS          127.0.0.1:3128, [::1]:3128, unix:PATH, or fd:N for an inherited socket
  --to ADDRESS              unix:PATH, or an IP address and port
  --announce fd:N           begin each connection with the PROXY protocol header read from fd N
  --tunnel fd:N HOST:PORT   listen on descriptor N too, for clients that know of no proxy: for each,
                            ask the proxy at --to for a tunnel to HOST:PORT
  --until fd:N              stop when descriptor N reaches its end
  --note-lookups fd:UDP fd:TCP fd:CHANNEL PID
                            answer DNS queries that there is no such name, and tell CHANNEL
                            which names the programs below process PID asked for
  --fake-network fd:NAMESPACE fd:NAMES PORT=fd:N[,...]
                            with --note-lookups: ask the proxy about each name; those that it allows
                            get an address that leads to the listeners in that network namespace,
                            and is kept in the file NAMES
  --max-connections N       clients at once (default 1024)
  --allow-remote            allow a --listen that other machines can reach
  --quiet                   print errors only
"""

EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports

_BACKLOG = 1024
_HEADER_LIMIT = 1024
_DESCRIPTORS_WANTED = 65536
_DESCRIPTORS_RESERVED = 32  # for everything but connections
_FAKE_NETWORK_RESERVED = 128  # for its listeners, and its questions to the proxy
_PATH_LIMIT = 103 if sys.platform == "darwin" else 107  # sun_path, without its final NUL
_PORT_LIMIT = 65535
_LOOPBACK_6 = bytes(15) + b"\x01"


class ChildProcess:
    """The process of a command that the relay runs for."""

    # Not a typing.Protocol: importing typing would take a sixth of the start-up time.
    def poll(self) -> int | None:
        """Return the exit code once there is one, as `subprocess` does."""
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        """Pass a signal on."""
        raise NotImplementedError


type _Handler = Callable[[int, FrameType | None], object] | int | None
type StartCommand = Callable[
    [Sequence[str]], ChildProcess
]  # called with the addresses that the relay listens on


class RelayOptions:
    """The options of one relay."""

    # Not a dataclass: importing dataclasses takes as long as everything else here.
    def __init__(self) -> None:
        self.listen: list[str] = []
        self.to = ""
        self.header = b""
        self.until: int | None = None
        self.lookups: tuple[int, int, int, int] | None = None  # descriptors, and a process id
        # A namespace, a file of names, and listeners by port.
        self.fake_network: tuple[int, int, dict[int, int]] | None = None
        self.tunnels: list[tuple[str, str]] = []  # a listener, and where it leads
        self.limit = DEFAULT_LIMIT
        self.allow_remote = False
        self.quiet = False


# Reading the options


def parse(arguments: Sequence[str]) -> RelayOptions:
    """Read the command line of `relay.py`."""
    options = RelayOptions()
    rest = list(arguments)

    def value(option: str) -> str:
        if not rest:
            raise ConfigError(f"{option} needs a value", fix="see `claude-proxy relay --help`")
        return rest.pop(0)

    while rest:
        option = rest.pop(0)
        match option:
            case "--listen":
                options.listen.append(value(option))
            case "--to":
                options.to = value(option)
            case "--announce" | "--note-lookups" | "--tunnel" | "--fake-network":
                _read_run_option(option, options, value)
            case "--until":
                options.until = parse_descriptor(value(option))
            case "--max-connections":
                options.limit = parse_limit(value(option))
            case "--allow-remote" | "--quiet":
                setattr(options, option[2:].replace("-", "_"), True)
            case _:
                raise ConfigError(
                    f'unknown option "{option}"', fix="see `claude-proxy relay --help`"
                )
    return options


def read_header(descriptor: int) -> bytes:
    """Read what each connection begins with, to the end of a pipe, and close it.

    It contains the token of a run, which all processes could see on a command line.
    """
    try:
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_HEADER_LIMIT)
    except OSError as error:
        raise ConfigError(
            f"the header cannot be read: {error.strerror}",
            where="--announce",
            fix="pass the descriptor of a pipe on",
        ) from error


def _read_run_option(option: str, options: RelayOptions, value: Callable[[str], str]) -> None:
    """Read an option that only a run gives."""
    if option == "--announce":
        options.header = read_header(parse_descriptor(value(option)))
        return
    if option == "--tunnel":
        options.tunnels.append((value(option), value(option)))
        return
    if option == "--fake-network":
        namespace, names = (parse_descriptor(value(option)) for _ in range(2))
        options.fake_network = (namespace, names, parse_listeners(value(option)))
        return
    udp, tcp, channel = (parse_descriptor(value(option)) for _ in range(3))
    options.lookups = (udp, tcp, channel, parse_limit(value(option)))


def parse_listeners(text: str) -> dict[int, int]:
    """Read `PORT=fd:N,PORT=fd:N` as descriptors by port."""
    found = {}
    for word in text.split(","):
        port, _, descriptor = word.partition("=")
        found[parse_limit(port)] = parse_descriptor(descriptor)
    return found


def parse_limit(text: str) -> int:
    """Read a number of connections."""
    if not text.isascii() or not text.isdecimal() or not int(text[:9]):
        raise ConfigError(
            f'"{text}" is not a number of connections',
            where="--max-connections",
            fix="give 1 or more",
        )
    return int(text[:9])


def parse_descriptor(text: str) -> int:
    """Read `fd:N`."""
    number = text.removeprefix("fd:")
    if number == text or not number.isascii() or not number.isdecimal() or len(number) > 9:  # noqa: PLR2004
        raise ConfigError(f'"{text}" is not a descriptor', fix="write fd:N")
    return int(number)


def parse_tcp(text: str, option: str) -> TcpAddress:
    """Read `ADDRESS:PORT`; of names only `localhost`, because others would have to be resolved."""
    host, _, port = text.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in host) != (bare is not host) or _packed(bare) is None:
        raise ConfigError(
            f'"{text}" is not an address that a relay can use',
            where=option,
            fix="give an IP address and port (127.0.0.1:3128 or [::1]:3128), or unix:PATH",
        )
    if not port.isascii() or not port.isdecimal() or int(port[:6]) > _PORT_LIMIT:
        raise ConfigError(
            f'"{port}" is not a port', where=f"{option} {text}", fix="give 0 to 65535"
        )
    return bare, int(port[:6])


def _packed(host: str) -> bytes | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None


def parse_path(text: str, option: str) -> str:
    """Read `unix:PATH` as an absolute path that fits a socket's address."""
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise ConfigError(f'"{text}" has no path', where=option, fix="write unix:PATH")
    path = os.path.abspath(path)  # noqa: PTH100 - pathlib costs 3 ms
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise ConfigError(
            f"the path of the socket is longer than {_PATH_LIMIT} bytes",
            where=f"{option} {text}",
            fix="choose a shorter path",
        )
    return path


def parse_target(text: str) -> RelayTarget:
    """Read the address that the relay connects to; ConfigError if it is invalid."""
    if text.startswith("unix:"):
        path = parse_path(text, "--to")
        return RelayTarget(f"unix:{path}", socket.AF_UNIX, path)
    host, port = parse_tcp(text, "--to")
    if not port:
        raise ConfigError(
            "port 0 cannot be connected to", where=f"--to {text}", fix="name the proxy's port"
        )
    return RelayTarget(_tcp_name(host, port), _family(host), (host, port))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# Listening


class _Listener:
    """A listening socket, and its address in the form that `--listen` takes."""

    def __init__(self, listening: socket.socket, name: str = "") -> None:
        self.socket = listening
        self.name = name or _spelled(listening)


def _listener_of(text: str, options: RelayOptions, stack: ExitStack) -> _Listener:
    if text.startswith("fd:"):
        listener = stack.enter_context(_inherited(text))
        if listener.family != socket.AF_UNIX:
            _refuse_remote(listener.getsockname()[0], text, options)
        return _Listener(listener)
    if text.startswith("unix:"):
        # Not the name that the socket reports: it was bound to a temporary path and renamed.
        return _Listener(_unix(text, stack), f"unix:{parse_path(text, '--listen')}")
    return _Listener(stack.enter_context(_tcp(text, options)))


def _inherited(text: str) -> socket.socket:
    try:
        listener = socket.socket(fileno=parse_descriptor(text))
    except OSError as error:
        raise ConfigError(
            f"{text} is not a socket ({_words_of(error)})",
            where="--listen",
            fix="pass a listening socket",
        ) from error
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise ConfigError(
            f"the socket {text} is not listening", where="--listen", fix="pass a listening socket"
        )
    return listener


def _unix(text: str, stack: ExitStack) -> socket.socket:
    # The proxy's rules for socket files; imported here because a relay of a sandbox has no use for
    # them.
    from pathlib import Path  # noqa: PLC0415

    from claude_proxy.system.unix_socket import listen_at  # noqa: PLC0415

    listener, file = listen_at(Path(parse_path(text, "--listen")))
    stack.callback(file.remove)
    return stack.enter_context(listener)


def _tcp(text: str, options: RelayOptions) -> socket.socket:
    host, port = parse_tcp(text, "--listen")
    _refuse_remote(host, text, options)
    listener = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {text} ({_words_of(error)})",
            where="--listen",
            fix="stop the program that listens there, or choose another port",
        ) from error
    return listener


def _refuse_remote(host: str, text: str, options: RelayOptions) -> None:
    packed = _packed(host) or b""
    if packed[:1] != b"\x7f" and packed != _LOOPBACK_6 and not options.allow_remote:
        raise ConfigError(
            f"other machines could reach {host}",
            where=f"--listen {text}",
            fix="listen on 127.0.0.1, or add --allow-remote",
        )


def _refuse_loop(target: RelayTarget, listeners: Sequence[_Listener]) -> None:
    """Refuse a relay to itself, which would use up every descriptor."""
    for listener in listeners:
        if listener.name == target.name:
            raise ConfigError(
                "the relay would connect to itself",
                where=f"--listen and --to {target.name}",
                fix="name the proxy with --to",
            )


def _spelled(listener: socket.socket) -> str:
    name = listener.getsockname()
    return _tcp_name(name[0], name[1]) if isinstance(name, tuple) else f"unix:{os.fsdecode(name)}"


def _tcp_name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# Running


class _Stop:
    """How the relay ends: its exit code, and what a signal does."""

    def __init__(
        self, bridge: Bridge, child: ChildProcess | None, forwarded: Sequence[int]
    ) -> None:
        self.code = 0
        self._bridge = bridge
        self._child = child
        self._forwarded = frozenset({signal.SIGTERM, signal.SIGHUP, *forwarded})

    def on_signal(self, number: int) -> None:
        """Stop on a signal, or pass it to the command while one runs."""
        if self._child is not None:
            # A terminal sends its signals to the command as well; others reach only the relay.
            if number in self._forwarded:
                self._child.send_signal(number)
            self.check_child()
        elif number != signal.SIGCHLD:
            self.code = EXIT_INTERRUPTED if number == signal.SIGINT else 0
            self._bridge.loop.stop()

    def check_child(self) -> None:
        """Stop once the command has ended, with its exit code as a shell reports it."""
        ended = self._child.poll() if self._child is not None else None
        if ended is not None:
            self.code = ended if ended >= 0 else 128 - ended
            self._bridge.loop.stop()


def serve(
    options: RelayOptions, *, start: StartCommand | None = None, forwarded: Sequence[int] = ()
) -> int:
    """Relay until a signal, end of file on `--until`, or the end of the command of `start`.

    The command gets SIGTERM and SIGHUP, and the signals `forwarded` too.

    Returns the exit code; raises ConfigError if an option is invalid.
    """
    if not options.listen or not options.to:
        missing = "--to" if options.listen else "--listen"
        raise ConfigError(f"a relay needs {missing}", fix="see `claude-proxy relay --help`")
    target = parse_target(options.to)
    bridges = 1 + len(options.tunnels) + (options.fake_network is not None)
    others = 0 if options.fake_network is None else _FAKE_NETWORK_RESERVED
    limit = limit_of(options.limit, bridges, others)
    with _Signals(forwarded) as signals, ExitStack() as stack:
        listeners = [_listener_of(text, options, stack) for text in options.listen]
        _refuse_loop(target, listeners)
        names = [listener.name for listener in listeners]
        report: Callable[[str], None] = _silent if options.quiet or start else _print_line
        report(f"relay listens on {', '.join(names)}, connects to {target.name}")
        sockets = [listener.socket for listener in listeners]
        bridge = Bridge(sockets, target, header=options.header, limit=limit, report=report)
        stack.callback(bridge.loop.close)
        tunnels = [
            _bridge_of_tunnels(stack.enter_context(_inherited(text)), destination, bridge, limit)
            for text, destination in options.tunnels
        ]
        child = None
        if start is not None:
            child = start(names)
        stop = _Stop(bridge, child, forwarded)
        signals.watch(bridge, stop.on_signal)
        if options.until is not None:
            _watch_lifeline(bridge, options.until)
        if options.lookups is not None:
            find = None
            if options.fake_network is not None:
                find = _fake_network(options.fake_network, bridge, limit, stack, tunnels)
            _note_lookups(bridge, options.lookups, stack, find)
        bridge.run(tunnels)
    return stop.code


def _fake_network(
    given: tuple[int, int, dict[int, int]],
    beside: Bridge,
    limit: int,
    stack: ExitStack,
    tunnels: list[Bridge],
) -> "Finder":
    """Make the network of fake addresses, and add its bridge to those that are run."""
    from claude_proxy.sandbox.relay.fake_addresses import FakeAddresses  # noqa: PLC0415 - few runs
    from claude_proxy.sandbox.relay.fake_network import FakeNetwork  # noqa: PLC0415 - few runs
    from claude_proxy.sandbox.relay.name_questions import NameQuestions  # noqa: PLC0415 - as above

    def listen_at(port: int) -> socket.socket:
        from claude_proxy.sandbox import netns  # noqa: PLC0415 - only for a port that is not usual

        return netns.fake_network_listener(namespace, port)

    namespace, names, descriptors = given
    for descriptor in (namespace, names):
        stack.callback(os.close, descriptor)
    listeners = {
        port: stack.enter_context(socket.socket(fileno=descriptor))
        for port, descriptor in descriptors.items()
    }
    questions = NameQuestions(beside.loop, beside.upstream, beside.header)
    stack.callback(questions.close)
    network = FakeNetwork(questions, FakeAddresses(names), listeners, listen_at, _print_line)
    bridge = Bridge(
        [*listeners.values()],
        beside.upstream,
        header=beside.header,
        limit=limit,
        loop=beside.loop,
        opening_for=network.opening_for,
    )
    network.on_listener = bridge.add
    tunnels.append(bridge)
    return network.find


def _bridge_of_tunnels(
    listener: socket.socket, destination: str, beside: Bridge, limit: int
) -> Bridge:
    """Return a bridge for clients that know of no proxy: it asks for a tunnel for each."""
    return Bridge(
        [listener],
        beside.upstream,
        header=beside.header,
        limit=limit,
        report=_print_line,
        loop=beside.loop,
        opening_for=lambda _client: TunnelOpening(destination),
    )


def _watch_lifeline(bridge: Bridge, descriptor: int) -> None:
    def look(_events: int) -> None:
        try:
            if os.read(descriptor, 512):
                return
        except OSError:
            pass  # the same as an end of file
        bridge.loop.stop()

    try:
        bridge.loop.watch(descriptor, 0, EVENT_READ, look)
    except OSError as error:
        raise ConfigError(
            f"descriptor {descriptor} cannot be watched ({_words_of(error)})",
            where=f"--until fd:{descriptor}",
            fix="pass the read end of a pipe",
        ) from error


def _note_lookups(
    bridge: Bridge, given: tuple[int, int, int, int], stack: ExitStack, find: "Finder | None"
) -> None:
    from claude_proxy.sandbox.relay.name_lookups import NameLookups  # noqa: PLC0415 - of a run only

    *descriptors, init = given
    udp, tcp, channel = (
        stack.enter_context(socket.socket(fileno=descriptor)) for descriptor in descriptors
    )
    NameLookups(udp, tcp, channel, init, find).watch(bridge.loop)


class _Signals:
    """Turns signals into events of the loop, and restores the handlers afterwards."""

    HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

    def __init__(self, forwarded: Sequence[int]) -> None:
        self._handled = dict.fromkeys((*self.HANDLED, *forwarded))

    def __enter__(self) -> "_Signals":  # noqa: PYI034 - nor typing.Self
        self._before: dict[int, _Handler] = {}
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in self._handled:
            # A signal that the caller ignores (nohup, a shell's `&`) stays ignored, except SIGCHLD:
            # without it the relay would not notice that the command has ended.
            ignored = signal.getsignal(number) is signal.SIG_IGN
            if number == signal.SIGCHLD or not ignored:
                self._before[number] = signal.signal(number, lambda _number, _frame: None)
        return self

    def watch(self, bridge: Bridge, act: Callable[[int], None]) -> None:
        """Call `act` for each signal, including those that have already arrived."""

        def arrived(_events: int) -> None:
            for number in self._reading.recv(64):
                act(number)

        bridge.loop.watch(self._reading.fileno(), 0, EVENT_READ, arrived)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)
        self._reading.close()
        self._writing.close()


def limit_of(requested: int, bridges: int = 1, others: int = 0) -> int:
    """Raise the limit of open files if needed; return how many clients it allows each bridge.

    Each has one listener at least; `others` are open besides.
    """
    reserved = _DESCRIPTORS_RESERVED + bridges + others
    return max(1, _clients_allowed(requested * bridges, reserved) // bridges)


def _clients_allowed(requested: int, reserved: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_WANTED)
    needed = min(2 * requested + reserved, most)
    if soft != resource.RLIM_INFINITY and soft < needed:
        # macOS has another limit besides this one, so this may fail.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            soft = needed
    room = requested if soft == resource.RLIM_INFINITY else (soft - reserved) // 2
    return max(1, min(requested, room))


def _words_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _silent(_line: str) -> None:
    pass


def _print_line(line: str) -> None:
    _write(2, f"claude-proxy: {line}\n")


def _write(descriptor: int, text: str) -> None:
    # Not through sys.stderr, which is None if the caller closed it.
    with suppress(OSError):  # a closed stream is no reason to stop
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))


def _fill_closed_descriptors() -> None:
    """Keep sockets from getting the numbers of standard streams that the caller closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed, not raised."""
    _fill_closed_descriptors()
    if {"-h", "--help"} & set(arguments):
        _write(1, USAGE)
        return 0
    try:
        return serve(parse(arguments))
    except ClaudeProxyError as error:
        _print_line("\n".join(error.lines()))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run(words: list[str]) -> int:
    """Run the program with the words of its command line; return its exit code."""
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
