"""Summary of denials: what was denied, how often, and the line that would allow it.

Law kept: advice is never wider than what was asked. Equal denials are one line with a count; only
the most frequent are shown, and the rest is counted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field
from ipaddress import ip_address
from typing import NamedTuple

from claude_proxy.audit.escape import escape_field
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.events import TCP_SCHEME, DecisionMade, Phase
from claude_proxy.policy.advice import Advice, DeniedAttempt, advice_for
from claude_proxy.policy.git_push import PUSH_QUERY, push_path
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, RuleScheme
from claude_proxy.system.own_addresses import is_known_to_be_own
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

SHOWN = 5  # lines of a summary
_MOST_KINDS = 512  # a client that asks for a million names must not fill the memory

# What is denied is the host as a whole, whichever request met it.
_OF_THE_HOST = frozenset(
    {
        Reason.NO_RULE,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.ADDRESS_NOT_ALLOWED,
        Reason.PROXY_LOOP,
    }
)
_PLAIN_PORT = 80
_TUNNELS = frozenset({"", "CONNECT", "SOCKS"})


class DeniedRow(NamedTuple):
    """What the audit log holds of a denial, and how often it was recorded."""

    phase: str
    scheme: str
    target: str
    method: str
    path: str
    reason: str
    rule_source: str | None
    address: str | None = None  # "10.1.2.3:443", the one that was denied
    times: int = 1

    @classmethod
    def of(cls, event: DecisionMade) -> "DeniedRow":
        """Return the row of one decision."""
        return cls(
            event.phase,
            event.scheme,
            event.target,
            event.method,
            event.path,
            event.reason,
            event.rule_source,
        )


@dataclass(slots=True)
class _Kind:
    """Denials that differ in nothing that matters to a reader."""

    subject: str
    reason: str
    advice: Advice
    rule_source: str | None
    count: int = 0


@dataclass(slots=True)
class Denials:
    """Denials, gathered by kind."""

    total: int = 0
    _kinds: dict[tuple[str, str], _Kind] = field(default_factory=dict)

    def add(self, row: DeniedRow) -> None:
        """Count a row."""
        self.total += row.times
        kind = _kind_of(row)
        known = self._kinds.get((kind.subject, kind.reason))
        if known is None:
            if len(self._kinds) >= _MOST_KINDS:
                return  # counted in the total
            known = self._kinds[kind.subject, kind.reason] = kind
        known.count += row.times

    def lines(self, *options: str, shown: int = SHOWN) -> Iterator[str]:
        """Yield a line for each of the most frequent kinds; `options` name the list to change."""
        for kind in self._most_frequent(shown):
            what = f"{kind.count}x {kind.subject} ({escape_field(kind.reason)})"
            yield what + _done(kind, options)

    def commands(self, shown: int = SHOWN) -> list[str]:
        """Return the commands that would allow the most frequent kinds, each once."""
        kinds = self._most_frequent(len(self._kinds))
        found = dict.fromkeys(kind.advice.command() for kind in kinds)
        return [command for command in found if command is not None][:shown]

    def hidden(self, shown: int = SHOWN) -> int:
        """Return how many denials are in no line."""
        return self.total - sum(kind.count for kind in self._most_frequent(shown))

    def _most_frequent(self, shown: int) -> list[_Kind]:
        return sorted(self._kinds.values(), key=lambda kind: -kind.count)[:shown]


def summary(
    rows: Iterable[DeniedRow], *, options: tuple[str, ...], more: str, heading: str
) -> list[str]:
    """Return the lines about denials, none if there were none.

    `heading` is the first line with {} for how many, `more` the command that shows all of them.
    """
    denials = Denials()
    # The frequent ones first, as only so many kinds are remembered.
    for row in sorted(rows, key=lambda row: -row.times):
        denials.add(row)
    if not denials.total:
        return []
    lines = [
        heading.format(attempts(denials.total)),
        *(f"  {line}" for line in denials.lines(*options)),
    ]
    if hidden := denials.hidden():
        lines.append(f"  and {hidden} more: {more}")
    return lines


def attempts(count: int) -> str:
    """Return a count in words for a sentence."""
    return "1 attempt" if count == 1 else f"{count} attempts"


def _kind_of(row: DeniedRow) -> _Kind:
    reason = _reason_of(row.reason)
    advice = Advice()
    if reason is not None:
        target, address = _target_of(row.target), _address_of(row.address)
        reached = [address, None if target is None else target.address]
        advice = advice_for(
            DeniedAttempt(
                reason,
                target,
                _scheme_of(row),
                row.method,
                *_path_and_query(row.path),
                address=address,
                is_own=any(each is not None and is_known_to_be_own(each) for each in reached),
            )
        )
    return _Kind(_subject_of(row, reason), row.reason, advice, row.rule_source)


def _done(kind: _Kind, options: tuple[str, ...]) -> str:
    """Return what can be done about a kind, with what comes before it in the line."""
    if (command := kind.advice.command(*options)) is not None:
        return f": {command}"
    if kind.advice.text:
        return f": {kind.advice.text[:1].lower()}{kind.advice.text[1:].removesuffix('.')}"
    if kind.reason == Reason.DENY_RULE and kind.rule_source is not None:
        return f": denied by {escape_field(kind.rule_source)}"
    return ""


def _subject_of(row: DeniedRow, reason: Reason | None) -> str:
    if row.phase == Phase.CLIENT:
        return "a client that may not use the proxy"
    if row.method in _TUNNELS or row.scheme not in {"http", "https"} or not row.target:
        return escape_field(row.target or "a request that names no target")
    default_port = ":443" if row.scheme == "https" else ":80"
    place = f"{row.scheme}://{row.target.removesuffix(default_port)}"
    if reason in _OF_THE_HOST:
        return escape_field(place)
    path, query = _path_and_query("" if row.path == "*" else row.path)
    path += f"?{query}" if query else ""
    return f"{escape_field(row.method)} {escape_field(place + path)}"


def _path_and_query(recorded: str) -> tuple[str, str]:
    """Return the path, and of the query, which may hold a secret, only that it asks for a push."""
    path, _, query = recorded.partition("?")
    return path, "" if push_path(path, query) is None else PUSH_QUERY


def _reason_of(text: str) -> Reason | None:
    try:
        return Reason(text)
    except ValueError:
        return None  # of another version


def _target_of(text: str) -> Authority | None:
    try:
        return Authority.parse(text)
    except ValueError:
        return None


def _address_of(text: str | None) -> Address | None:
    try:
        return None if text is None else ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def _scheme_of(row: DeniedRow) -> RuleScheme:
    if row.scheme == TCP_SCHEME:
        return RawScheme.TCP
    if row.scheme == "http" or (not row.scheme and row.target.endswith(f":{_PLAIN_PORT}")):
        return Scheme.HTTP
    return Scheme.HTTPS
