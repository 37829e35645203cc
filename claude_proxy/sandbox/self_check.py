"""Shows that a sandbox is what it should be, before anything runs in it: four checks, four lines.

Law 11: one check that goes wrong stops the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from claude_proxy.sandbox.netns import HOST, NetworkProbe

USUAL_ALLOWED = "api.anthropic.com:443"
# The last is a name that cannot exist (RFC 2606), for lists that allow the ones before it.
USUAL_DENIED = ("mozilla.org:443", "example.com:443", "not-allowed.invalid:443")

_ALLOWED_STATUS = 200
_DENIED_STATUS = 403


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """One thing that was looked at."""

    right: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.right else 'WRONG':5}  {self.text}"


def checks(ways: NetworkProbe, port: int, allowed: str, denied: str) -> Iterator[SelfCheck]:
    """Yield the checks in the order in which they are printed."""
    if ways.direct is None:
        yield SelfCheck(False, "a connection past the proxy has a route")
    else:
        yield SelfCheck(True, f"a connection past the proxy fails: {ways.direct}")
    heard = ways.allowed is not None or ways.denied is not None
    yield SelfCheck(
        heard, f"the proxy {'answers' if heard else 'does not answer'} on {HOST}:{port}"
    )
    yield _answered(allowed, "allowed", ways.allowed, _ALLOWED_STATUS)
    yield _answered(denied, "denied", ways.denied, _DENIED_STATUS)


def _answered(target: str, judged: str, status: int | None, wanted: int) -> SelfCheck:
    if status == wanted:
        return SelfCheck(True, f"{target} is {judged}: {status}")
    came = "no answer" if status is None else str(status)
    return SelfCheck(False, f"{target} should be {judged}, with {wanted}; came: {came}")


def all_right(found: Sequence[SelfCheck]) -> bool:
    """Tell whether every check went well."""
    return all(check.right for check in found)
