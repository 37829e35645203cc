"""Dialer: resolves a name once, has every address judged, and connects to a judged one.

Laws kept: judged is dialled: the socket connects to an address that the policy has seen, without a
second lookup in between (DNS rebinding). What a name resolved to is remembered for a few seconds,
and judged at each dial. An address that the owner gives for a name (--resolve) spares the look-up
alone, not the judgement. Every exit is gated: nothing else in the program opens a connection to the
outside.
"""

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_network

from claude_proxy.config.settings import UpstreamProxy
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import AddressOwner
from claude_proxy.proxy.remembered_names import RememberedNames
from claude_proxy.proxy.upstream_proxy import TunnelRefusedError, open_tunnel
from claude_proxy.system import descriptors, own_addresses
from claude_proxy.wire.address import Address, effective
from claude_proxy.wire.authority import Authority

type Judge = Callable[[Address, AddressOwner], Decision]
type Resolve = Callable[[str, int, Hashable], Awaitable[list[Address]]]

type Connect = Callable[[list[Address]], Awaitable[Dialled]]

# RFC 8305, section 5: start the next attempt after 250 ms without an answer.
_STAGGER_S = 0.25
# One SYN may be lost; Linux sends another after a second.
_REMEMBERED_PATIENCE_S = 2.0


class Failure(StrEnum):
    """Why a dial failed; stable, used in the audit log and as the reason of a 502 or 504."""

    DENIED = "denied"
    UNRESOLVED = "dns-failed"
    REFUSED = "connect-refused"
    UNREACHABLE = "connect-unreachable"
    TIMEOUT = "connect-timeout"
    PROXY = "upstream-proxy-failed"
    NO_ROOM = "no-room"  # too many files are open


_OUT_OF_DATE = {Failure.REFUSED, Failure.UNREACHABLE}


class DialError(Exception):
    """An upstream could not be dialled; `decision` is set if the policy denied it."""

    def __init__(
        self,
        failure: Failure,
        text: str,
        decision: Decision | None = None,
        *,
        address: Address | None = None,
        is_own_address: bool = False,
    ) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text
        self.decision = decision
        self.address = address  # the one that was denied
        self.is_own_address = is_own_address  # it is one of this machine


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connected socket and its peer."""

    socket: socket.socket
    peer: Authority  # the address that was judged; with an upstream proxy, the proxy's
    early: bytes = b""  # what has come through an upstream proxy's tunnel already


class Dialer:
    """Connects only to addresses that the policy allows."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        pinned: Mapping[Authority, Address] | None = None,
        upstream_proxy: UpstreamProxy | None = None,
        own: Iterable[Authority] = (),
        timeout_s: float = 20.0,
    ) -> None:
        self._resolve = resolve
        self.names = RememberedNames()
        self._pinned = dict(pinned or {})
        self._proxy = upstream_proxy
        self.own = set(own)  # the listeners of this proxy: dialling one would be a loop
        self._timeout_s = timeout_s

    def via_proxy(self, target: Authority) -> bool:
        """Tell whether `target` is reached through the upstream proxy."""
        proxy = self._proxy
        if proxy is None or target in self._pinned:
            return False
        return not any(_is_excepted(entry, target) for entry in proxy.exceptions)

    def proxy_authorization(self) -> bytes | None:
        """Return the Proxy-Authorization value for plain HTTP through the upstream proxy."""
        proxy = self._proxy
        if proxy is None or proxy.credentials is None:
            return None
        return b"Basic " + base64.b64encode(proxy.credentials.encode())

    async def dial(
        self, target: Authority, judge: Judge, *, tunnel: bool, client: Hashable = None
    ) -> Dialled:
        """Connect to `target` for a client, or raise `DialError`.

        With an upstream proxy, `tunnel` opens a tunnel with CONNECT; otherwise the caller sends
        plain HTTP to the upstream proxy itself. That proxy resolves names, so only literal
        addresses can be judged here.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                if self.via_proxy(target):
                    return await self._through_proxy(target, judge, client, tunnel=tunnel)
                return await self._direct(target, judge, client)
        except TimeoutError as error:
            whose = "through the upstream proxy " if self.via_proxy(target) else ""
            text = f"no connection to {target} {whose}within {self._timeout_s:g} s"
            raise DialError(Failure.TIMEOUT, text) from error

    def judge_again(self, target: Authority, addresses: list[Address], judge: Judge) -> None:
        """Have the addresses judged that a connection to `target` was dialled by, or `DialError`.

        It is what a dial would have judged now, had the name resolved to the same.
        """
        pinned = self._pinned.get(target)
        if pinned is not None:
            self._check([pinned], target, judge)
        elif self.via_proxy(target):
            _check_literal(target, judge)
        else:
            self._check(addresses, target, judge)

    async def _direct(self, target: Authority, judge: Judge, client: Hashable) -> Dialled:
        pinned = self._pinned.get(target)
        if pinned is not None:
            self._check([pinned], target, judge)
            return await _first_connected([pinned], target)

        async def connect(addresses: list[Address]) -> Dialled:
            self._check(addresses, target, judge)
            return await _first_connected(addresses, target)

        return await self._to_addresses(target, client, connect)

    def _check(self, addresses: list[Address], target: Authority, judge: Judge) -> None:
        """Have every address judged."""
        for address in addresses:
            owner = self._owner_of(address, target.port)
            decision = judge(address, owner)
            if not decision.allowed:
                # One bad address denies the name: picking the good ones of a mixed answer would
                # let an attacker who controls the name's DNS try until one fits.
                text = f"{target.host} resolves to an address that is not allowed"
                is_own = owner is not AddressOwner.OTHER
                raise DialError(
                    Failure.DENIED, text, decision, address=address, is_own_address=is_own
                )

    def _owner_of(self, address: Address, port: int) -> AddressOwner:
        if self._is_own_listener(address, port):
            return AddressOwner.OWN_LISTENER
        mine = self._is_this_machine(address)
        return AddressOwner.THIS_MACHINE if mine else AddressOwner.OTHER

    async def _to_addresses(self, target: Authority, client: Hashable, connect: Connect) -> Dialled:
        """Connect to the remembered addresses of a name, or to those that it has now."""
        if target.address is not None:
            return await connect([target.address])
        names, host = self.names, target.host
        remembered = names.find(host)
        if remembered is not None:
            try:
                with names.kept_if_good(host):
                    async with asyncio.timeout(_REMEMBERED_PATIENCE_S):
                        return await connect(remembered)
            except TimeoutError:
                pass  # like the next: the name may have moved since, or this machine
            except DialError as error:
                # A denial is not asked about twice.
                if error.failure not in _OUT_OF_DATE:
                    raise
        asked_s = names.clock()
        addresses = await self._addresses(target, client)
        with names.kept_if_good(host):
            dialled = await connect(addresses)
        names.keep(host, addresses, asked_s)
        return dialled

    async def _addresses(self, target: Authority, client: Hashable) -> list[Address]:
        try:
            found = await self._resolve(target.host, target.port, client)
        except OSError as error:
            text = f"the name {target.host} cannot be resolved"
            raise DialError(Failure.UNRESOLVED, text) from error
        if not found:
            raise DialError(Failure.UNRESOLVED, f"the name {target.host} has no address")
        return found

    def _is_own_listener(self, address: Address, port: int) -> bool:
        inner = effective(address)  # "::ffff:127.0.0.1" reaches 127.0.0.1
        return any(port == own.port and self._arrives_at(own, inner) for own in self.own)

    def _arrives_at(self, own: Authority, address: Address) -> bool:
        if own.address == address:
            return True
        everywhere = own.address is not None and own.address.is_unspecified
        # Linux connects a socket to 0.0.0.0 to this machine.
        return address.is_unspecified or (everywhere and self._is_this_machine(address))

    @staticmethod
    def _is_this_machine(address: Address) -> bool:
        """Tell whether `address` belongs to this machine."""
        # Without a socket nothing is known of the address, so nothing may be dialled.
        try:
            return own_addresses.is_own(address)
        except OSError as error:
            if descriptors.are_exhausted(error):
                raise no_room() from error
            return False  # this machine does not have the family

    async def _through_proxy(
        self, target: Authority, judge: Judge, client: Hashable, *, tunnel: bool
    ) -> Dialled:
        proxy = self._proxy
        if proxy is None:
            raise ValueError("no upstream proxy is set")
        _check_literal(target, judge)
        try:
            dialled = await self._to_proxy(proxy.authority, client)
        except DialError as error:
            raise DialError(Failure.PROXY, f"the upstream proxy: {error.text}") from error
        if not tunnel:
            return dialled
        try:
            return await self._tunnel(dialled, target)
        except BaseException:
            dialled.socket.close()
            raise

    async def _tunnel(self, dialled: Dialled, target: Authority) -> Dialled:
        try:
            early = await open_tunnel(dialled.socket, target, self.proxy_authorization())
        except TunnelRefusedError as error:
            raise DialError(Failure.PROXY, f"the upstream proxy {error}") from error
        except OSError as error:
            text = "the upstream proxy broke off the connection when it was asked for a tunnel"
            raise DialError(Failure.PROXY, text) from error
        return replace(dialled, early=early)

    async def _to_proxy(self, proxy: Authority, client: Hashable) -> Dialled:
        async def connect(addresses: list[Address]) -> Dialled:
            if any(self._is_own_listener(address, proxy.port) for address in addresses):
                raise DialError(Failure.PROXY, "it is this proxy itself")
            return await _first_connected(addresses, proxy)

        return await self._to_addresses(proxy, client, connect)


def _check_literal(target: Authority, judge: Judge) -> None:
    """Have the target judged that an upstream proxy dials, if it is an address."""
    if target.address is not None:
        decision = judge(target.address, AddressOwner.OTHER)
        if not decision.allowed:
            text = f"the address {target.host} is not allowed"
            raise DialError(Failure.DENIED, text, decision)


async def _first_connected(addresses: list[Address], target: Authority) -> Dialled:
    """Connect to the first address that answers (Happy Eyeballs, RFC 8305, section 5)."""
    attempts: set[asyncio.Task[Dialled]] = set()
    waiting = list(_alternated(addresses))
    last: OSError | None = None
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_connect(waiting.pop(0), target.port)))
            done, _ = await asyncio.wait(
                attempts,
                timeout=_STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                attempts.discard(attempt)  # done; the others are closed below
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                last = error
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
    if isinstance(last, ConnectionRefusedError):
        raise DialError(Failure.REFUSED, f"{target} refuses connections") from last
    raise DialError(Failure.UNREACHABLE, f"{target} cannot be reached") from last


def _close_late(attempt: asyncio.Task[Dialled]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().socket.close()


async def _connect(address: Address, port: int) -> Dialled:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    # The protocol is given because asyncio sets TCP_NODELAY only on IPPROTO_TCP sockets.
    sock = _opened(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return Dialled(sock, Authority.of(str(address), port))


def _opened(family: socket.AddressFamily, kind: socket.SocketKind, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        if descriptors.are_exhausted(error):
            raise no_room() from error
        raise


def no_room() -> DialError:
    """Return the error of a dial for which no socket may be opened."""
    return DialError(Failure.NO_ROOM, "the proxy has no room for another connection")


def _alternated(addresses: list[Address]) -> Iterable[Address]:
    """Interleave the address families, the system's first choice first (RFC 8305, section 4)."""
    first = addresses[0].version
    same = [address for address in addresses if address.version == first]
    other = [address for address in addresses if address.version != first]
    while same or other:
        for queue in (same, other):
            if queue:
                yield queue.pop(0)


def _is_excepted(entry: str, target: Authority) -> bool:
    """Match one NO_PROXY entry the way curl and Go do: names by suffix, addresses by network."""
    if entry == "*":
        return True
    address: Address | None = target.address
    if address is not None:
        try:
            return address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry.lower().removeprefix("*").strip(".")
    return target.host == name or target.host.endswith("." + name)
