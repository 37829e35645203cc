"""TLS sessions of upstreams that are resumed: kept apart by client, few, and not for long.

Laws kept: a resumed handshake shows no certificate, so a session is used only for the name that was
verified, by the same roots, and while that certificate is valid. Nothing of one client reaches
another: an upstream knows by a session who comes again, so each client has its own.
"""

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

from claude_proxy.proxy.tls_records import certificate_ends
from claude_proxy.wire.authority import Authority

KEPT_S: Final = 300.0
MOST: Final = 128


class SessionKey(NamedTuple):
    """For whom and for what a session is kept."""

    owner: Hashable  # a client or run, and the credential that it used, with its value
    target: Authority  # its host is the name that was verified
    alpn: tuple[bytes, ...]  # what was offered


@dataclass(slots=True, eq=False)
class _Kept:
    """A connection whose certificate was verified, and the session that was read from it."""

    until: float
    source: ssl.SSLObject | None
    session: ssl.SSLSession | None = None
    valid_until: float = 0.0  # of the certificate, by the clock on the wall


class TlsSessions:
    """The sessions of one set of roots."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._kept: OrderedDict[SessionKey, _Kept] = OrderedDict()
        # Targets at which a handshake failed that resumed one: they are not asked to again.
        self._refusing: OrderedDict[Authority, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: SessionKey, verified: ssl.SSLObject) -> None:
        """Keep the session of a handshake in which the certificate of the target was verified."""
        if verified.session_reused:
            return  # what it resumed is as good, and no older than it may be
        now = self._clock()
        self._kept[key] = _Kept(now + KEPT_S, verified)
        self._kept.move_to_end(key)
        # In the order in which they were kept, which is that in which their time is over.
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= MOST and self._kept[oldest].until > now:
                break
            del self._kept[oldest]

    def session_for(self, key: SessionKey) -> ssl.SSLSession | None:
        """Return the session to resume; None: the handshake is a full one."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.source is not None:
            self._read(kept, kept.source)
        now = self._clock()
        is_over = now >= kept.until or self._wall_clock() >= kept.valid_until
        if is_over or self._refusing.get(key.target, now) > now:
            del self._kept[key]
            return None
        return kept.session

    def failed(self, key: SessionKey, *, resumed: bool) -> None:
        """Forget a session after a failed handshake, and resume none where one was the reason."""
        self._kept.pop(key, None)
        if resumed:
            self._refusing[key.target] = self._clock() + KEPT_S
            self._refusing.move_to_end(key.target)
            if len(self._refusing) > MOST:
                self._refusing.popitem(last=False)

    def _read(self, kept: _Kept, source: ssl.SSLObject) -> None:
        """Read the session of a connection.

        It is read when it is wanted, because it takes a while, and because a server of TLS 1.3
        sends the ticket after the handshake. One that may not be resumed makes a full handshake.
        """
        kept.source = None
        kept.session = session = source.session
        kept.valid_until = certificate_ends(source)
        if session is None:
            kept.until = 0.0
            return
        if session.has_ticket and session.ticket_lifetime_hint:
            kept.until = min(kept.until, self._clock() + session.ticket_lifetime_hint)
