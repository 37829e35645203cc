"""Recorded attempts: rows of the audit log as what rules can speak of.

Law kept: what was recorded is what is read. A client's text becomes a target, method or path only
if it is a valid one; nothing is guessed, corrected or shortened.
"""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from claude_proxy.audit.queries import AuditReader, RunFilter
from claude_proxy.audit.state import GIVEN_UP
from claude_proxy.events import PASSTHROUGH_SCHEME, TCP_SCHEME, Phase
from claude_proxy.policy.git_push import PUSH_QUERY, push_path
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Address
from claude_proxy.wire.authority import Authority

LOOKUP: Final = "LOOKUP"  # the method of a lookup, as the gate records it
_TUNNELS: Final = frozenset({"", "CONNECT", "SOCKS"})
_ALLOWING: Final = {Reason.RULE_MATCHED.value, Reason.ANSWERED.value}
_DENIALS: Final = frozenset(reason.value for reason in Reason) - _ALLOWING
_ASK: Final = Reason.ASK.value
_FORMS: Final = {PASSTHROUGH_SCHEME: Form.PASSTHROUGH, TCP_SCHEME: Form.RAW}
_REMEMBERED: Final = 65_536
# Columns of a PlainRow: a million named ones take as long as the rest.
BEFORE_KEY: Final = 3
_RUN, _PHASE, _SCHEME, _TARGET, _ALLOWED, _REASON = 3, 4, 5, 6, 9, 10


class RowKey(NamedTuple):
    """What equal rows have in common, as it is recorded."""

    run: str | None
    phase: str
    scheme: str
    target: str
    method: str
    path: str
    allowed: bool
    reason: str
    error: str | None
    upstream: str | None
    granted: bool = False  # by a grant or an answer, if it was allowed

    @property
    def is_allowed(self) -> bool:
        """Whether it was allowed, and stayed so to the end."""
        return bool(self.allowed) and self.error not in _DENIALS

    @property
    def outcome(self) -> str:
        """Why it was denied in the end, else the reason of the decision."""
        return self.error if self.error in _DENIALS and self.error else self.reason

    @property
    def came_to_nothing(self) -> bool:
        """Whether it was allowed but nothing was reached: a name or an address that is not."""
        is_answered = self.upstream is not None or self.error in {None, GIVEN_UP}
        return self.is_allowed and not is_answered

    def attempt(self) -> RecordedAttempt | None:
        """Return what rules can speak of; None if its target is no valid one."""
        target = _target_of(self.target)
        if target is None or self.phase == Phase.CLIENT:
            return None
        address = _address_of(self.upstream)
        if self.method == LOOKUP:
            return RecordedAttempt(Form.LOOKUP, Scheme.HTTPS, target)
        if self.scheme in _FORMS:
            return RecordedAttempt(_FORMS[self.scheme], Scheme.HTTPS, target, address=address)
        if self.method in _TUNNELS or not self.path:
            return RecordedAttempt(Form.TUNNEL, Scheme.HTTPS, target, address=address)
        scheme = Scheme.HTTP if self.scheme == Scheme.HTTP else Scheme.HTTPS
        path, query = self.path, ""
        if "?" in path:  # it may hold a secret, and no rule speaks of it but of a push
            path, _, query = path.partition("?")
            query = "" if push_path(path, query) is None else PUSH_QUERY
        return RecordedAttempt(Form.REQUEST, scheme, target, self.method, path, query, address)


type PlainRow = tuple[Any, ...]  # id, connection, how often, and the columns of a RowKey


def recorded_rows(
    reader: AuditReader, *, since_ns: int = 0, run: RunFilter | None = None
) -> Iterator[PlainRow]:
    """Yield all that was asked of the proxy since a time, or by one run, oldest first.

    What was asked for is the requests. A tunnel counts only if nothing was asked for inside, and
    comes last. Columns are those of `AuditReader.recorded_pages`.
    """
    tunnels: dict[tuple[str | None, int, str], PlainRow] = {}
    for page in reader.recorded_pages(since_ns=since_ns, run=run):
        for row in page:
            phase = row[_PHASE]
            if phase == "connect":
                if (row[_ALLOWED] or row[_REASON] == _ASK) and row[_SCHEME] not in _FORMS:
                    tunnels[row[_RUN], row[1], row[_TARGET]] = row
                    continue
            elif tunnels and phase == "request":
                tunnels.pop((row[_RUN], row[1], row[_TARGET]), None)
            yield row
    yield from tunnels.values()


def counted_rows(
    reader: AuditReader, *, since_ns: int = 0, run: RunFilter | None = None
) -> Iterator[tuple[RowKey, int]]:
    """Yield the same with names, each row with how many equal ones it stands for."""
    for row in recorded_rows(reader, since_ns=since_ns, run=run):
        yield RowKey._make(row[BEFORE_KEY:]), row[BEFORE_KEY - 1]


def subject_of(row: RowKey) -> str:
    """Return what was asked for as it was recorded; a terminal needs it escaped."""
    attempt = row.attempt()
    if attempt is None or attempt.form is not Form.REQUEST:
        form = "tunnel" if attempt is None else attempt.form.value
        return f"{form} {row.target}"
    return f"{attempt.method} {url_of(attempt)}"


def url_of(attempt: RecordedAttempt) -> str:
    """Return where a request went, without the scheme's usual port."""
    usual = ":443" if attempt.scheme == "https" else ":80"
    path = "" if attempt.path == "*" else attempt.path
    return f"{attempt.scheme}://{str(attempt.target).removesuffix(usual)}{path}"


@lru_cache(maxsize=_REMEMBERED)
def _target_of(text: str) -> Authority | None:
    try:
        return Authority.parse(text)
    except ValueError:
        return None


@lru_cache(maxsize=_REMEMBERED)
def _address_of(text: str | None) -> Address | None:
    try:
        return None if text is None else ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
