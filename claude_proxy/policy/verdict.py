"""Verdict: all that the head of one request decides, in one value that cannot change. Pure."""

from typing import NamedTuple

from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.credentials.decision import NO_CREDENTIAL, CredentialDecision
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.request import Request

_MESSAGES_PATH = "/v1/messages"


class Verdict(NamedTuple):  # one for each request: a frozen dataclass takes three times as long
    """The decision about one request, its credential, and what restricts the rest of it."""

    decision: Decision
    credential: CredentialDecision = NO_CREDENTIAL
    restrictions: ApiRestrictions | None = None  # of the Messages API, where the host has some
    bindings: tuple[Binding, ...] = ()  # the policy's, by which the credential was decided

    def body_limit(self, request: Request) -> int | None:
        """Return how long a body may be that is judged before it leaves; None: it is not."""
        restrictions = self.restrictions
        if restrictions is None or not restrictions.judges_body_of(request):
            return None
        return restrictions.max_bytes

    def is_metered(self, request: Request) -> bool:
        """Tell whether the response says what it cost, and the owner wants to know."""
        if request.method != "POST" or not request.path.endswith(_MESSAGES_PATH):
            return False
        return bool(self.credential.credential) or self.restrictions is not None
