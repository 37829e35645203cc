"""A name is resolved once, each address judged, and a judged one connected to."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import cast

import pytest

from claude_proxy.config.settings import UpstreamProxy
from claude_proxy.policy.decision import Decision, denied
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy import dialer as dialer_module
from claude_proxy.proxy import remembered_names
from claude_proxy.proxy.dialer import (
    Dialer,
    DialError,
    Dialled,
    Failure,
    _alternated,
)
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import policy_of
from tests.support.loopback import LOOPS, Names, Play, Run, run_on

LOOPBACK = ip_address("127.0.0.1")
PUBLIC = ip_address("93.184.216.34")
ALLOWED = (
    Policy()
    .allowing_by_default(Location("a.yaml", 1, 1))
    .decide_connect(Authority("public.example", 443))
)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


type AddressJudge = Callable[[Address, AddressOwner], Decision]


class Rebinding(Names):
    """Says 127.0.0.1 the first time, and another address ever after."""

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        return [LOOPBACK if len(self.asked) == 1 else ip_address("127.0.0.66")]


def policy_for(port: int) -> Policy:
    return policy_of(
        f"""
        allow:
          - {{host: public.example, ports: [{port}]}}
          - {{host: inner.example, ports: [{port}], addresses: [127.0.0.0/8]}}
          - {{host: elsewhere.example, ports: [{port}], addresses: [10.0.0.0/8]}}
          - {{host: 127.0.0.1, ports: [{port}]}}
        """
    )


def judge_of(target: Authority) -> AddressJudge:
    policy = policy_for(target.port)
    return lambda address, owner: policy.decide_address(target, address, owner)


class Judge:
    """Allows everything and remembers what it was asked."""

    def __init__(self) -> None:
        self.judged: list[tuple[str, AddressOwner]] = []

    def __call__(self, address: Address, owner: AddressOwner) -> Decision:
        self.judged.append((str(address), owner))
        return ALLOWED


class Server:
    """A listener that counts who came, and answers as it is told."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.got: list[bytes] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, host, port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            self.got.append(b"")
            if self.answer is None:
                return
            with contextlib.suppress(asyncio.IncompleteReadError):
                self.got[-1] = await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Lend a port that refuses: bound, so that nobody else takes it, and not listened on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def failure_of(dial: Awaitable[Dialled]) -> DialError:
    with pytest.raises(DialError) as caught:
        await dial
    return caught.value


async def peer_of(dial: Awaitable[Dialled]) -> str:
    dialled = await dial
    with dialled.socket as sock:
        name = sock.getpeername()
        assert (dialled.peer.host, dialled.peer.port) == tuple(name[:2])
    return str(dialled.peer)


# --- judged is dialled


def test_a_name_is_resolved_once_and_the_judged_address_connected_to(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Rebinding()
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            peer = await peer_of(Dialer(names).dial(target, judge_of(target), tunnel=True))

        assert peer == f"127.0.0.1:{server.port}"
        assert names.asked == [("inner.example", server.port)]

    run(play)


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"],
    ],
)
def test_one_address_that_is_not_allowed_denies_the_name(run: Run, answer: list[str]) -> None:
    async def play() -> None:
        server = Server()
        async with server.listening():
            target = Authority.of("public.example", server.port)
            dial = Dialer(Names(public_example=answer)).dial(target, judge_of(target), tunnel=True)
            error = await failure_of(dial)

        assert error.failure is Failure.DENIED
        assert error.decision is not None
        assert error.decision.reason is Reason.ADDRESS_NOT_ALLOWED
        assert error.address == ip_address(answer[-1])
        assert server.got == []

    run(play)


def test_a_literal_address_is_not_looked_up(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Names()
        async with server.listening():
            target = Authority.of("127.0.0.1", server.port)
            await peer_of(Dialer(names).dial(target, judge_of(target), tunnel=True))

        assert names.asked == []

    run(play)


def test_the_judge_hears_that_an_address_is_this_machines(run: Run) -> None:
    async def play() -> None:
        server, judge = Server(), Judge()
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            dialer = Dialer(Names(inner_example=["127.0.0.1"]))
            await peer_of(dialer.dial(target, judge, tunnel=True))

        assert judge.judged == [("127.0.0.1", AddressOwner.THIS_MACHINE)]

    run(play)


@pytest.mark.parametrize(
    ("address", "is_mine"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_the_addresses_of_this_machine_are_known(address: str, *, is_mine: bool) -> None:
    assert Dialer._is_this_machine(ip_address(address)) is is_mine


# --- what a name resolved to is remembered, and judged at each dial


class Moving(Names):
    """Gives each set of addresses in turn, then the last."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def __call__(self, host: str, port: int, _client: object = None) -> list[Address]:
        self.asked.append((host, port))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ip_address(address) for address in answer]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_name_is_asked_for_once_in_a_few_seconds(run: Run) -> None:
    async def play() -> None:
        server, names, clock = Server(), Moving(["127.0.0.1"]), Clock()
        dialer = Dialer(names)
        dialer.names.clock = clock
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            for _ in range(3):
                await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
                clock.now_s += remembered_names.MOST_AGE_S / 3 - 0.1
            assert len(names.asked) == 1

            clock.now_s += 1
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert len(names.asked) == 2

    run(play)


def test_a_remembered_address_is_judged_at_each_dial(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Moving(["127.0.0.1"])
        dialer = Dialer(names)
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
            withdrawn = Authority.of("elsewhere.example", server.port)
            error = await failure_of(dialer.dial(target, judge_of(withdrawn), tunnel=True))

        assert error.failure is Failure.DENIED
        assert error.decision is not None
        assert error.decision.reason is Reason.ADDRESS_NOT_ALLOWED
        assert len(names.asked) == 1

    run(play)


def test_a_denied_answer_is_not_remembered(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Moving(["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"])
        dialer = Dialer(names)
        dialer.names.clock = clock = Clock()
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
            clock.now_s += remembered_names.MOST_AGE_S
            error = await failure_of(dialer.dial(target, judge_of(target), tunnel=True))
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert error.failure is Failure.DENIED
        assert len(names.asked) == 3

    run(play)


def test_a_denied_memory_is_forgotten(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Moving(["127.0.0.1"])
        dialer = Dialer(names)
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            withdrawn = Authority.of("elsewhere.example", server.port)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
            await failure_of(dialer.dial(target, judge_of(withdrawn), tunnel=True))
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert len(names.asked) == 2

    run(play)


def test_a_name_that_has_moved_is_asked_for_again_before_a_dial_fails(run: Run) -> None:
    async def play() -> None:
        server = Server()
        names = Moving(["127.0.0.1"], ["127.0.0.2"])
        dialer = Dialer(names)
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
        async with server.listening("127.0.0.2", target.port):
            peer = await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert peer == f"127.0.0.2:{target.port}"
        assert len(names.asked) == 2

    run(play)


def test_a_name_is_asked_for_again_where_its_remembered_address_is_silent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer_module, "_REMEMBERED_PATIENCE_S", 0)
    names = Moving(["127.0.0.2"])

    async def play() -> None:
        server = Server()
        with silent_listener("127.0.0.1") as port:
            async with server.listening("127.0.0.2", port):
                target = Authority.of("inner.example", port)
                dialer = Dialer(names)
                remembered = [ip_address("127.0.0.1")]
                dialer.names.keep(target.host, remembered, dialer.names.clock())
                peer = await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert peer == f"127.0.0.2:{port}"

    run(play)
    assert len(names.asked) == 1


def test_the_answer_for_a_name_that_has_moved_is_judged(run: Run) -> None:
    async def play() -> None:
        server, names = Server(), Moving(["127.0.0.1"], ["10.0.0.1"])
        dialer = Dialer(names)
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))
        error = await failure_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert error.failure is Failure.DENIED

    run(play)


def test_a_name_without_a_connection_is_not_remembered(run: Run) -> None:
    names = Moving(["127.0.0.1"])
    dialer = Dialer(names)

    async def play() -> None:
        with closed_port() as port:
            target = Authority.of("inner.example", port)
            for _ in range(2):
                await failure_of(dialer.dial(target, judge_of(target), tunnel=True))

    run(play)
    assert len(names.asked) == 2


def test_the_name_of_the_upstream_proxy_is_remembered_too(run: Run) -> None:
    async def play() -> None:
        server, names = Server(b"HTTP/1.1 200 OK\r\n\r\n"), Moving(["127.0.0.1"])
        async with server.listening():
            proxy = UpstreamProxy(Authority.of("proxy.example", server.port))
            dialer = Dialer(names, upstream_proxy=proxy)
            for _ in range(2):
                (await dialer.dial(TARGET, Judge(), tunnel=True)).socket.close()

        assert names.asked == [("proxy.example", server.port)]

    run(play)


# --- the proxy does not dial itself


@pytest.mark.parametrize(
    ("listener", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.9"),
        ("::", "::1"),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_the_proxy_does_not_dial_itself(
    run: Run, listener: str, address: str, *, pinned: bool
) -> None:
    target = Authority.of("inner.example", 9051)
    dialer = Dialer(
        Names(inner_example=[address]),
        own=(Authority.of(listener, 9051),),
        pinned={target: ip_address(address)} if pinned else None,
    )

    async def play() -> None:
        error = await failure_of(dialer.dial(target, judge_of(target), tunnel=True))

        assert error.decision is not None
        assert error.decision.reason is Reason.PROXY_LOOP

    run(play)


def test_another_port_of_this_machine_is_not_the_proxy(run: Run) -> None:
    async def play() -> None:
        server = Server()
        async with server.listening():
            target = Authority.of("inner.example", server.port)
            own = (Authority.of("127.0.0.1", 1), Authority.of("127.0.0.2", server.port))
            dialer = Dialer(Names(inner_example=["127.0.0.1"]), own=own)
            await peer_of(dialer.dial(target, judge_of(target), tunnel=True))

    run(play)


def test_a_pinned_name_is_judged_and_not_looked_up(run: Run) -> None:
    async def play() -> None:
        server, names, judge = Server(), Names(), Judge()
        async with server.listening():
            target = Authority.of("public.example", server.port)
            dialer = Dialer(names, pinned={target: LOOPBACK})
            await peer_of(dialer.dial(target, judge, tunnel=True))

        assert names.asked == []
        assert judge.judged == [("127.0.0.1", AddressOwner.THIS_MACHINE)]

    run(play)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "fd00::1"])
@pytest.mark.parametrize(
    "entry", ["public.example", "{host: public.example, addresses: [192.168.0.0/16]}"]
)
def test_a_pinned_address_that_no_rule_names_is_denied(run: Run, address: str, entry: str) -> None:
    async def play() -> None:
        found = await _denial_of_pinned(address, f"allow: [{entry}]\n")
        assert found is Reason.ADDRESS_NOT_ALLOWED

    run(play)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("93.184.216.34", "93.184.216.0/24"),
    ],
)
def test_a_denial_wins_over_a_pinned_address_that_a_rule_names(
    run: Run, address: str, network: str
) -> None:
    rule = f'{{host: public.example, addresses: ["{network}"]}}'

    async def play() -> None:
        text = f"allow: [{rule}]\ndeny: [{network}]\n"
        assert await _denial_of_pinned(address, text) is Reason.DENY_RULE

    run(play)


async def _denial_of_pinned(address: str, text: str) -> Reason:
    target, policy = Authority.of("public.example", 443), policy_of(text)
    dialer = Dialer(Names(), pinned={target: ip_address(address)})

    def judge(found: Address, owner: AddressOwner) -> Decision:
        return policy.decide_address(target, found, owner)

    with pytest.raises(DialError):
        dialer.judge_again(target, [], judge)
    error = await failure_of(dialer.dial(target, judge, tunnel=True))
    assert error.decision is not None
    return error.decision.reason


# --- what cannot be reached is told apart


def test_a_name_without_an_address_is_a_failure_of_names(run: Run) -> None:
    async def play() -> None:
        dialer = Dialer(Names(empty_example=[]))
        for host in ("unknown.example", "empty.example"):
            error = await failure_of(dialer.dial(Authority.of(host, 443), Judge(), tunnel=True))
            assert error.failure is Failure.UNRESOLVED
            assert host in error.text

    run(play)


def test_a_closed_port_refuses(run: Run) -> None:
    async def play() -> None:
        with closed_port() as port:
            target = Authority.of("127.0.0.1", port)
            error = await failure_of(Dialer(Names()).dial(target, Judge(), tunnel=True))

        assert error.failure is Failure.REFUSED

    run(play)


def test_an_address_without_a_route_is_unreachable(run: Run) -> None:
    async def play() -> None:
        # TCP to the broadcast address fails in the kernel, without a packet.
        target = Authority.of("255.255.255.255", 443)
        error = await failure_of(Dialer(Names()).dial(target, Judge(), tunnel=True))

        assert error.failure is Failure.UNREACHABLE

    run(play)


def test_a_name_server_that_is_silent_is_a_timeout(run: Run) -> None:
    async def silence(_host: str, _port: int, _client: object) -> list[Address]:
        return cast("list[Address]", await asyncio.get_running_loop().create_future())

    async def play() -> None:
        dialer = Dialer(silence, timeout_s=0.01)
        error = await failure_of(dialer.dial(Authority.of("a.example", 1), Judge(), tunnel=True))

        assert error.failure is Failure.TIMEOUT

    run(play)


# --- several addresses


def test_the_next_address_is_tried_when_one_refuses(run: Run) -> None:
    async def play() -> None:
        server = Server()
        async with server.listening("127.0.0.3"):
            target = Authority.of("inner.example", server.port)
            names = Names(inner_example=["127.0.0.2", "127.0.0.3"])
            peer = await peer_of(Dialer(names).dial(target, judge_of(target), tunnel=True))

        assert peer == f"127.0.0.3:{server.port}"

    run(play)


@contextlib.contextmanager
def silent_listener(host: str) -> Iterator[int]:
    """Lend the port of a listener whose queue is full: it answers no further connection."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server((host, 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def test_the_next_address_is_tried_when_one_is_silent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer_module, "_STAGGER_S", 0.01)

    async def play() -> None:
        with silent_listener("127.0.0.2") as port:
            async with Server().listening("127.0.0.3", port):
                target = Authority.of("inner.example", port)
                names = Names(inner_example=["127.0.0.2", "127.0.0.3"])
                peer = await peer_of(Dialer(names).dial(target, judge_of(target), tunnel=True))

        assert peer == f"127.0.0.3:{port}"

    run(play)


def test_connections_that_come_too_late_are_closed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that come at the very same moment as the one that is used."""
    made: list[socket.socket] = []
    both = asyncio.Event()

    async def connect(address: Address, port: int) -> Dialled:
        sock = socket.socket()
        made.append(sock)
        if len(made) == 2:
            both.set()
        await both.wait()
        return Dialled(sock, Authority.of(str(address), port))

    monkeypatch.setattr(dialer_module, "_connect", connect)
    monkeypatch.setattr(dialer_module, "_STAGGER_S", 0)

    async def play() -> None:
        target = Authority.of("inner.example", 443)
        names = Names(inner_example=["127.0.0.2", "127.0.0.3"])
        dialled = await Dialer(names).dial(target, judge_of(target), tunnel=True)
        await asyncio.sleep(0)

        (other,) = (sock for sock in made if sock is not dialled.socket)
        assert other.fileno() == -1
        dialled.socket.close()

    run(play)


def test_an_attempt_goes_on_while_a_later_one_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    made: list[socket.socket] = []

    async def connect(address: Address, port: int) -> Dialled:
        if str(address) == "127.0.0.3":
            refused.set()
            raise ConnectionRefusedError
        await refused.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        made.append(socket.socket())
        return Dialled(made[0], Authority.of(str(address), port))

    monkeypatch.setattr(dialer_module, "_connect", connect)
    monkeypatch.setattr(dialer_module, "_STAGGER_S", 0)

    async def play() -> None:
        target = Authority.of("inner.example", 443)
        names = Names(inner_example=["127.0.0.2", "127.0.0.3"])
        dialled = await Dialer(names).dial(target, judge_of(target), tunnel=True)
        dialled.socket.close()

        assert str(dialled.peer) == "127.0.0.2:443"

    run(play)


def test_a_fault_in_an_attempt_is_not_taken_for_a_refusal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(address: Address, port: int) -> Dialled:
        raise ValueError(f"a bug with {address}:{port}")

    monkeypatch.setattr(dialer_module, "_connect", connect)

    async def play() -> None:
        with pytest.raises(ValueError, match="a bug"):
            await Dialer(Names()).dial(Authority.of("127.0.0.1", 1), Judge(), tunnel=True)

    run(play)


def test_families_take_turns_beginning_with_the_systems_choice() -> None:
    given = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"]

    tried = [str(address) for address in _alternated([ip_address(text) for text in given])]

    assert tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]


def test_a_dial_that_is_given_up_leaves_no_socket(run: Run) -> None:
    async def play() -> None:
        with silent_listener("127.0.0.1") as port:
            target = Authority.of("127.0.0.1", port)
            dial = asyncio.ensure_future(Dialer(Names()).dial(target, Judge(), tunnel=True))
            for _ in range(3):
                await asyncio.sleep(0)
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial

    run(play)  # pytest fails on a ResourceWarning


# --- through an upstream proxy


ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TARGET = Authority.of("public.example", 443)


def through(server: Server, credentials: str | None = None, *exceptions: str) -> UpstreamProxy:
    return UpstreamProxy(Authority.of("proxy.corp", server.port), credentials, exceptions)


CORP = {"proxy_corp": ["127.0.0.1"]}


def test_an_upstream_proxy_is_asked_for_a_tunnel(run: Run) -> None:
    async def play() -> None:
        server, names = Server(ESTABLISHED), Names(**CORP)
        async with server.listening():
            dialer = Dialer(names, upstream_proxy=through(server, "user:password"))
            peer = await peer_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=True))

        assert peer == f"127.0.0.1:{server.port}"
        (asked,) = server.got
        assert asked == (
            b"CONNECT public.example:443 HTTP/1.1\r\nHost: public.example:443\r\n"
            b"Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"
        )
        assert names.asked == [("proxy.corp", server.port)]

    run(play)


def test_plain_http_is_sent_to_an_upstream_proxy_as_it_is(run: Run) -> None:
    async def play() -> None:
        server = Server()
        async with server.listening():
            dialer = Dialer(Names(**CORP), upstream_proxy=through(server))
            await peer_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=False))

        assert dialer.proxy_authorization() is None

    run(play)


def test_an_upstream_proxy_that_opens_no_tunnel_is_a_failure(run: Run) -> None:
    async def play() -> None:
        server = Server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nlogin!")
        async with server.listening():
            dialer = Dialer(Names(**CORP), upstream_proxy=through(server))
            error = await failure_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=True))

        assert error.failure is Failure.PROXY
        assert error.text == "the upstream proxy refused the tunnel with 403"

    run(play)


def test_what_came_through_the_tunnel_already_is_kept(run: Run) -> None:
    async def play() -> None:
        server = Server(ESTABLISHED + b"SSH-2.0-x\r\n")
        async with server.listening():
            dialer = Dialer(Names(**CORP), upstream_proxy=through(server))
            dialled = await dialer.dial(TARGET, judge_of(TARGET), tunnel=True)
            dialled.socket.close()

        assert dialled.early == b"SSH-2.0-x\r\n"

    run(play)


def test_a_silent_upstream_proxy_is_named_in_the_timeout(run: Run) -> None:
    async def play() -> None:
        with silent_listener("127.0.0.1") as port:
            proxy = UpstreamProxy(Authority.of("proxy.corp", port))
            dialer = Dialer(Names(**CORP), upstream_proxy=proxy, timeout_s=0)
            error = await failure_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=True))

        assert error.failure is Failure.TIMEOUT
        assert "through the upstream proxy" in error.text

    run(play)


def test_an_upstream_proxy_that_cannot_be_reached_is_a_failure_of_its_own(run: Run) -> None:
    async def play() -> None:
        with closed_port() as port:
            proxy = UpstreamProxy(Authority.of("proxy.corp", port))
            for names in (Names(**CORP), Names()):
                dialer = Dialer(names, upstream_proxy=proxy)
                error = await failure_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=True))
                assert error.failure is Failure.PROXY
                assert error.text.startswith("the upstream proxy: ")

    run(play)


def test_the_proxy_is_not_its_own_upstream_proxy(run: Run) -> None:
    async def play() -> None:
        server = Server(ESTABLISHED)
        async with server.listening():
            own = (Authority.of("127.0.0.1", server.port),)
            dialer = Dialer(Names(**CORP), upstream_proxy=through(server), own=own)
            error = await failure_of(dialer.dial(TARGET, judge_of(TARGET), tunnel=True))

        assert (error.failure, server.got) == (Failure.PROXY, [])
        assert "this proxy itself" in error.text

    run(play)


def test_a_literal_address_is_judged_though_the_upstream_proxy_would_dial_it(run: Run) -> None:
    async def play() -> None:
        server = Server(ESTABLISHED)
        target = Authority.of("169.254.169.254", 443)
        async with server.listening():
            dialer = Dialer(Names(**CORP), upstream_proxy=through(server))
            error = await failure_of(dialer.dial(target, judge_of(target), tunnel=True))
            await peer_of(dialer.dial(target, Judge(), tunnel=True))

        assert error.failure is Failure.DENIED
        assert len(server.got) == 1

    run(play)


@pytest.mark.parametrize(
    ("entry", "target", "excepted"),
    [
        ("*", "public.example:443", True),
        ("public.example", "public.example:443", True),
        (".example", "public.example:443", True),
        ("*.example", "public.example:443", True),
        ("PUBLIC.example", "public.example:443", True),
        ("ublic.example", "public.example:443", False),
        ("10.0.0.0/8", "public.example:443", False),
        ("10.0.0.0/8", "10.1.2.3:443", True),
        ("10.0.0.0/8", "11.1.2.3:443", False),
        ("2001:db8::/32", "[2001:db8::1]:443", True),
        ("public.example", "10.1.2.3:443", False),
    ],
)
def test_exceptions_are_read_as_no_proxy_is(entry: str, target: str, *, excepted: bool) -> None:
    proxy = UpstreamProxy(Authority.of("proxy.corp", 3128), None, (entry,))

    dialer = Dialer(Names(), upstream_proxy=proxy)

    assert dialer.via_proxy(Authority.parse(target)) is not excepted


def test_a_pinned_target_goes_past_the_upstream_proxy(run: Run) -> None:
    async def play() -> None:
        server = Server()
        async with server.listening():
            target = Authority.of("public.example", server.port)
            proxy = UpstreamProxy(Authority.of("proxy.corp", 1))
            dialer = Dialer(Names(), upstream_proxy=proxy, pinned={target: LOOPBACK})
            await peer_of(dialer.dial(target, Judge(), tunnel=True))

    run(play)


def test_without_an_upstream_proxy_there_is_none_to_ask(run: Run) -> None:
    dialer = Dialer(Names())

    async def play() -> None:
        with pytest.raises(ValueError, match="no upstream proxy"):
            await dialer._through_proxy(TARGET, Judge(), None, tunnel=True)

    assert not dialer.via_proxy(TARGET)
    assert dialer.proxy_authorization() is None
    run(play)


# --- the system's resolver


# --- addresses that a connection was dialled by before


def test_they_are_judged_again_as_a_dial_would_judge_them() -> None:
    asked: list[Address] = []
    dialer = Dialer(Names())

    def judge(address: Address, _: AddressOwner) -> Decision:
        asked.append(address)
        return denied(Reason.ADDRESS_NOT_ALLOWED) if address == LOOPBACK else ALLOWED

    dialer.judge_again(Authority.of("public.example", 443), [PUBLIC], judge)
    with pytest.raises(DialError) as caught:
        dialer.judge_again(Authority.of("public.example", 443), [PUBLIC, LOOPBACK], judge)

    assert caught.value.failure is Failure.DENIED
    assert asked == [PUBLIC, PUBLIC, LOOPBACK]


def test_one_that_is_pinned_is_judged_again_by_what_is_pinned() -> None:
    target = Authority.of("public.example", 443)
    dialer = Dialer(Names(), pinned={target: LOOPBACK})
    judge = Judge()

    dialer.judge_again(target, [PUBLIC], judge)
    dialer.own.add(Authority.of("127.0.0.1", 443))
    dialer.judge_again(target, [PUBLIC], judge)

    owners = [AddressOwner.THIS_MACHINE, AddressOwner.OWN_LISTENER]
    assert judge.judged == [("127.0.0.1", owner) for owner in owners]


@pytest.mark.parametrize(("target", "count"), [("10.1.2.3:443", 1), ("public.example:443", 0)])
def test_behind_an_upstream_proxy_a_target_that_is_an_address_is_judged_again(
    target: str, count: int
) -> None:
    proxy = UpstreamProxy(Authority.of("proxy.corp", 3128), None, ())
    asked: list[Address] = []

    def judge(address: Address, _: AddressOwner) -> Decision:
        asked.append(address)
        return ALLOWED

    Dialer(Names(), upstream_proxy=proxy).judge_again(Authority.parse(target), [PUBLIC], judge)

    assert len(asked) == count
