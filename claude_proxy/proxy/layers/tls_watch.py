"""Watch over a client's TLS: ends the attempt of its tunnel, and says if the client trusts no CA.

Law kept: what happened is what is shown. The tunnel of a client that rejects our certificate has
failed, with its reason; one whose client goes on to send a request has served its purpose.
"""

import re
from dataclasses import dataclass

from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.client_tls import (
    ClientTlsFailure,
    failure_in_handshake,
    failure_without_request,
)
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.session import Session
from claude_proxy.wire.authority import Authority

GIVEN_UP = "client-closed"
_PRODUCT = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,31}").match  # RFC 9110, section 10.1.5
_TIMED_OUT = "handshake-timeout"


@dataclass(frozen=True, slots=True, eq=False)
class TlsWatch:
    """Learns how the TLS of a client went in the tunnel to `target`, which `attempt` opened."""

    session: Session
    attempt: Attempt
    target: Authority

    def trusted(self) -> None:
        """End the attempt: the requests have attempts of their own."""
        self.session.gate.end(self.attempt)

    def failed(self, error: str) -> None:
        """End the attempt with the reason of a failed handshake."""
        is_prompt = self.session.gate.is_prompt(self.attempt)
        self._end(failure_in_handshake(error, is_prompt=is_prompt))

    def left(self, error: str | None) -> None:
        """End the attempt of a client that left before it sent anything."""
        is_prompt = self.session.gate.is_prompt(self.attempt)
        self._end(failure_without_request(error, is_prompt=is_prompt))

    def timed_out(self) -> None:
        """End the attempt of a handshake that took too long."""
        self.session.gate.end(self.attempt, _TIMED_OUT)

    def no_certificate(self) -> None:
        """End the attempt of a tunnel in which no certificate can be shown."""
        self.session.gate.end(self.attempt, Reason.INTERNAL_ERROR.value)

    def _end(self, failure: ClientTlsFailure | None) -> None:
        session = self.session
        if failure is None or session.loss != GIVEN_UP:  # else the proxy closed the connection
            session.gate.end(self.attempt, session.loss)
            return
        if not self.attempt.ended and not session.closing:
            product = _PRODUCT(session.agent or b"")
            session.gate.warn_of_client(
                session.client_info,
                (failure.code, self.target.host, session.agent),
                lambda name: failure.sentence(name, self.target.host),
                session.program,
                None if product is None else product[0].decode(),
            )
        session.gate.end(self.attempt, failure.code)
