"""Self-check of a sandbox (--verify): four checks before COMMAND starts.

Law kept: no quiet downgrade: if one check fails, COMMAND is not started.
"""

from collections.abc import Iterator, Sequence

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.loopback_sockets import HOST
from claude_proxy.sandbox.netns import NetworkProbe

USUAL_ALLOWED = "api.anthropic.com:443"
# The last name cannot exist (RFC 2606, section 2); it is for allowlists that allow the others.
USUAL_DENIED = ("mozilla.org:443", "example.com:443", "not-allowed.invalid:443")

_ALLOWED_STATUS = 200
_DENIED_STATUS = 403


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """One check and its result."""

    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.passed else 'WRONG':5}  {self.text}"


def checks(probe: NetworkProbe, port: int, allowed: str, denied: str) -> Iterator[SelfCheck]:
    """Yield the checks in the order in which they are printed."""
    if probe.direct is None:
        yield SelfCheck(False, "a connection past the proxy has a route")
    else:
        yield SelfCheck(True, f"a connection past the proxy fails: {probe.direct}")
    answered = probe.allowed is not None or probe.denied is not None
    yield SelfCheck(
        answered, f"the proxy {'answers' if answered else 'does not answer'} on {HOST}:{port}"
    )
    yield _connect_check(allowed, "allowed", probe.allowed, _ALLOWED_STATUS)
    yield _connect_check(denied, "denied", probe.denied, _DENIED_STATUS)


def _connect_check(target: str, decision: str, status: int | None, wanted: int) -> SelfCheck:
    if status == wanted:
        return SelfCheck(True, f"{target} is {decision}: {status}")
    answer = "no answer" if status is None else str(status)
    return SelfCheck(
        False, f"{target} should be {decision} with {wanted}, but the answer was: {answer}"
    )


def all_passed(results: Sequence[SelfCheck]) -> bool:
    """Tell whether every check passed."""
    return all(check.passed for check in results)
