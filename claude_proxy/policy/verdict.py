"""Verdict: everything that is decided from the head of a request, as one immutable value. Pure."""

from typing import NamedTuple

from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.credentials.decision import NO_CREDENTIAL, CredentialDecision
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.request import Request

_MESSAGES_PATH = "/v1/messages"


class Verdict(NamedTuple):  # one for each request: a frozen dataclass takes three times as long
    """The decision about one request, its credential, and the restrictions on its body."""

    decision: Decision
    credential: CredentialDecision = NO_CREDENTIAL
    restrictions: ApiRestrictions | None = None  # of the Messages API, if the host has any
    bindings: tuple[Binding, ...] = ()  # those by which the credential was decided

    def body_limit(self, request: Request) -> int | None:
        """Return the largest body in bytes if it has to be judged before it leaves, else None."""
        restrictions = self.restrictions
        if restrictions is None or not restrictions.judges_body_of(request):
            return None
        return restrictions.max_bytes

    def is_metered(self, request: Request) -> bool:
        """Return whether to count the token usage that the response reports."""
        if request.method != "POST" or not request.path.endswith(_MESSAGES_PATH):
            return False
        return bool(self.credential.credential) or self.restrictions is not None
