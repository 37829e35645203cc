"""Warm upstream connections: kept ready for the next requests of a client to the same target.

Laws kept: silence before allow: none is opened but where a request was allowed, sent and answered.
Judged is dialled: the target, its addresses, the policy, the credential and the time for which the
certificate is valid are looked at again when one is used; in doubt it is closed, and the request's
own dial decides. Recorded or denied: what cannot be recorded is not opened. They are bounded, and
the first to go where sockets run short.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from claude_proxy.config.settings import Limits
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import AddressOwner
from claude_proxy.proxy.dialer import Dialer, DialError
from claude_proxy.proxy.endpoint import Endpoint
from claude_proxy.proxy.gate import ClientInfo, Gate, Terms
from claude_proxy.proxy.layers.upstream import UpstreamConnection
from claude_proxy.proxy.shares import Shares
from claude_proxy.proxy.upstream_tls import TlsFor, UpstreamTls
from claude_proxy.proxy.warm_demand import Demand
from claude_proxy.proxy.warm_keys import Key, too_many
from claude_proxy.proxy.warm_upstream import WarmUpstream
from claude_proxy.system import descriptors
from claude_proxy.wire.address import Address

logger = logging.getLogger(__name__)

# After the request before, which many a client follows up within a minute.
SILENT_S = 90.0
# Many servers close a connection on which nothing is asked for a minute. It is replaced for
# the rest of the time, unless they do so at once.
_PATIENT_S = 10.0
_RENEWALS = 4
# So many descriptors stay free for connections that somebody needs now.
_SPARE_DESCRIPTORS = 64
# Where one failed or its upstream spoke first, none is tried again for a while.
_COLD_S = 300.0
_MOST_COLD = 256
# To see whether a run is over costs some system calls, and its proxy ends with it anyway.
_LOOKS = 4


def _since_boot() -> float:
    """Return a time that goes on while the machine is suspended, as servers' time does."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Beneficiary:
    """The client that a connection is kept for."""

    gate: Gate
    info: ClientInfo
    share: Hashable  # in whose share of the resolver it is looked up
    is_gone: Callable[[], bool] = _never  # may cost some system calls


@dataclass(slots=True, eq=False)
class _Kept:
    """A connection that is kept, and what it depends on."""

    key: Key
    warm: WarmUpstream
    client: Beneficiary
    terms: Terms
    since: float
    until: float
    renewals: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class WarmUpstreams:
    """The warm connections of one process."""

    def __init__(  # noqa: PLR0913 - what a dial needs
        self,
        dialer: Dialer,
        shares: Shares,
        upstream_tls: UpstreamTls,
        limits: Limits,
        clock: Callable[[], float] = _since_boot,
        *,
        processes: int = 1,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._dialer = dialer
        self._shares = shares
        self._tls = upstream_tls
        self._opening_s = limits.connect_timeout_s + limits.handshake_timeout_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._processes = processes
        # In the order in which they were opened.
        self._kept: dict[WarmUpstream, _Kept] = {}
        self._by_key: dict[Key, list[_Kept]] = {}
        self._demand = Demand()
        self._cold: dict[Key, float] = {}
        self._looked_at: list[_Kept] = []
        self._is_closed = False
        shares.shed_spare = self.shed

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def ready(self) -> int:
        """How many could be used now."""
        return sum(kept.warm.is_ready for kept in self._kept.values())

    def take(self, key: Key, gate: Gate) -> tuple[UpstreamConnection, Endpoint] | None:
        """Return the connection for a request that is allowed now; None: it has to be dialled.

        The request must be sent on it at once, by the client that gets it.
        """
        taken = self._take(key, gate)
        note = self._demand.missed if taken is None else self._demand.found
        note(key, self._clock())
        return taken

    def _take(self, key: Key, gate: Gate) -> tuple[UpstreamConnection, Endpoint] | None:
        # The newest: its upstream is the least likely to have closed it.
        ready = (kept for kept in reversed(self._by_key.get(key, ())) if kept.warm.is_ready)
        if (kept := next(ready, None)) is None:
            return None
        self._forget(kept)
        if not self._holds(kept) or kept.client.gate is not gate or not self._is_allowed(kept):
            kept.warm.close()
            return None
        return kept.warm.hand_over()

    def keep(self, key: Key, client: Beneficiary) -> None:
        """Open connections for the next requests: as many as came at once lately."""
        now = self._clock()
        if self._is_closed or self._cold.get(key, 0) > now:
            return
        missing = self._demand.wanted(key, now) - len(self._by_key.get(key, ()))
        for _ in range(missing):
            victim = too_many(
                (kept.key for kept in self._kept.values()), key, processes=self._processes
            )
            if victim is not None:
                if key in self._by_key:
                    return  # only the first of a target is worth another's
                self._by_key[victim][0].warm.close()
            self._keep_one(key, client, now, now + SILENT_S)

    def _keep_one(
        self, key: Key, client: Beneficiary, now: float, until: float, renewals: int = 0
    ) -> None:
        shares = self._shares
        used = shares.open_sockets + _SPARE_DESCRIPTORS
        if not descriptors.is_room_for_upstream(used, shares.other_files):
            return
        route = key.route
        mark = client.gate.mark_of(key.credential)
        tls = TlsFor(self._tls, (key.owner, mark)) if route.tls else None
        upstream = UpstreamConnection(route.target, tls=tls, alpn=route.alpn, tunnel=route.tunnel)
        warm = WarmUpstream(self, upstream)
        terms = client.gate.terms(key.credential, client.info)
        kept = _Kept(key, warm, client, terms, now, until, renewals)
        self._kept[warm] = kept
        self._by_key.setdefault(key, []).append(kept)
        kept.task = asyncio.get_running_loop().create_task(self._open(kept))

    async def _open(self, kept: _Kept) -> None:
        warm, client, route = kept.warm, kept.client, kept.key.route

        def judge(address: Address, owner: AddressOwner) -> Decision:
            warm.judged.append(address)
            return client.gate.would_dial_address(route.target, address, owner, client.info)

        shares = self._shares
        shares.open_sockets += 1  # the endpoint counts it afterwards
        try:
            if not client.gate.would_dial(route.target, client.info):
                warm.close()
                return
            dialled = await self._dialer.dial(
                route.target, judge, tunnel=route.tunnel, client=client.share
            )
        except (DialError, OSError):
            warm.is_doubtful = True
            warm.close()
            return
        except Exception:  # fail closed
            logger.exception("dialling ahead of a request failed")
            warm.close()
            return
        finally:
            shares.open_sockets -= 1
        text = f"{route.target} at {dialled.peer} for the next request"
        if not self._is_kept(kept) or not client.gate.note_warm(client.info, text):
            dialled.socket.close()
            warm.close()
            return
        try:
            await warm.connect(dialled)
        except OSError:
            warm.close()

    # --- what becomes of them

    def sweep(self) -> None:
        """Close those that nobody may use any more; called about once a second."""
        for kept in list(self._kept.values()):
            if not self._holds(kept):
                kept.warm.close()
        if not self._looked_at:
            self._looked_at = list(self._kept.values())
        for _ in range(min(_LOOKS, len(self._looked_at))):
            kept = self._looked_at.pop()
            if self._is_kept(kept) and kept.client.is_gone():
                kept.warm.close()

    def shed(self) -> bool:
        """Close all in favour of connections that are needed now; tell whether there were any."""
        found = list(self._kept.values())
        for kept in found:
            kept.warm.close()
        return bool(found)

    def close(self) -> None:
        """Close all, and open none any more."""
        self._is_closed = True
        self.shed()

    def _holds(self, kept: _Kept) -> bool:
        """Tell whether all is as it was when it was opened, which is not long ago."""
        now = self._clock()
        if now > kept.until or (not kept.warm.is_ready and now - kept.since > self._opening_s):
            return False
        if self._wall_clock() >= kept.warm.valid_until:
            return False
        try:
            client, credential = kept.client, kept.key.credential
            return client.gate.terms(credential, client.info).are_those_of(kept.terms)
        except Exception:  # fail closed
            logger.exception("a connection that was kept ready was closed after an internal error")
            return False

    def _is_allowed(self, kept: _Kept) -> bool:
        """Judge the target and its addresses as a dial would now."""
        gate, info, target = kept.client.gate, kept.client.info, kept.key.route.target

        def judge(address: Address, owner: AddressOwner) -> Decision:
            return gate.would_dial_address(target, address, owner, info)

        try:
            self._dialer.judge_again(target, kept.warm.judged, judge)
        except DialError:
            return False
        return gate.would_dial(target, info)

    def _is_kept(self, kept: _Kept) -> bool:
        return kept.warm in self._kept and self._holds(kept)

    # --- from the connections, see `Keeper`

    def count_socket(self, change: int) -> None:
        """Count a socket that was opened (1) or closed (-1)."""
        self._shares.open_sockets += change

    def gone(self, warm: WarmUpstream) -> None:
        """Forget a connection that is closed, or will be."""
        kept = self._kept.get(warm)
        if kept is None:
            return
        key = kept.key
        if warm.is_doubtful:
            self._dialer.names.forget(key.route.target.host)
            self._cold.pop(key, None)
            self._cold[key] = self._clock() + _COLD_S
            if len(self._cold) > _MOST_COLD:
                del self._cold[next(iter(self._cold))]
        self._forget(kept)
        if kept.task is not None and kept.task is not asyncio.current_task():
            kept.task.cancel()  # it may still dial
        if warm.is_ready and warm.has_ended:
            self._renew(kept)

    def _renew(self, kept: _Kept) -> None:
        """Open another one for the rest of the time, if the upstream closed it out of patience."""
        now = self._clock()
        is_patient = now - kept.since >= _PATIENT_S and kept.renewals < _RENEWALS
        if self._is_closed or not is_patient or not self._holds(kept) or kept.client.is_gone():
            return
        if not self._by_key.get(kept.key):
            self._keep_one(kept.key, kept.client, now, kept.until, kept.renewals + 1)

    def _forget(self, kept: _Kept) -> None:
        del self._kept[kept.warm]
        alike = self._by_key[kept.key]
        alike.remove(kept)
        if not alike:
            del self._by_key[kept.key]
