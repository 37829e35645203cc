"""Grants: what a person has allowed for a while, for a number of requests or for one run.

Fail closed: a grant that nothing bounds cannot be created, and one whose end is in doubt has ended.
Pure.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import PurePosixPath

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.policy.shown_rules import shown as shown_rule

SECOND_NS = 1_000_000_000
LONGEST_OPEN_NS = 24 * 3600 * SECOND_NS

GRANT_PLACE = "grant "  # and its number: where its rules are written
_SHOWN = 3  # rules of a preset, in one line


class GrantKind(StrEnum):
    """What a grant opens."""

    ALLOW = "allow"  # named hosts
    OPEN = "open"  # every public host


class End(StrEnum):
    """Why a grant is no longer in force."""

    TIME = "time-over"
    CLOCK = "clock-changed"  # so that its end is in doubt
    USES = "used-up"
    RUN = "run-ended"
    REVOKED = "revoked"
    CLOSED = "closed"  # `claude-proxy close`
    STORE = "store-unusable"  # for the proxies that cannot read it


@dataclass(frozen=True, slots=True)
class Moment:
    """A time by two clocks, of which only one can be set; in nanoseconds."""

    wall_ns: int
    boot_ns: int  # since the boot, with the time that the machine slept
    boot: str  # which boot: the id that the kernel gave it


@dataclass(frozen=True, slots=True)
class GrantedRun:
    """The run that a grant is for: no later one of the same name."""

    name: str
    folder: str  # the name of its directory, which no other run has


@dataclass(frozen=True, slots=True)
class Grant:
    """Allow rules that end: by time, by a number of uses, with a run, or because they are revoked.

    Raises ValueError if nothing bounds it, or if it would open more than its kind may.
    """

    number: int
    rules: tuple[Rule, ...]
    made_ns: int  # since 1970
    since: Moment  # from when its time counts: when it was made, or seen first in a later boot
    by: str  # the user who made it
    reason: str = ""
    kind: GrantKind = GrantKind.ALLOW
    run: GrantedRun | None = None  # None: of every run
    project: str | None = None  # the directory whose runs it is for; None: any
    lasts_ns: int | None = None
    uses: int | None = None  # how many it was made for
    uses_left: int | None = None
    ended: End | None = None

    def __post_init__(self) -> None:
        if self.lasts_ns is None and self.uses is None and self.run is None:
            raise ValueError("a grant needs an end: a time, a number of uses, or a run")
        if not self.rules or (self.lasts_ns is not None and self.lasts_ns <= 0):
            raise ValueError("a grant that opens nothing")
        if (self.uses is None) != (self.uses_left is None) or self.uses == 0:
            raise ValueError("a grant has no use")
        if self.kind is GrantKind.OPEN:
            self._check_open()

    def _check_open(self) -> None:
        if self.lasts_ns is None or self.lasts_ns > LONGEST_OPEN_NS:
            raise ValueError("everything can be open for a day at most")
        if any(rule.scheme is RawScheme.TCP or rule.addresses for rule in self.rules):
            raise ValueError("only public hosts can be opened, for http and https")

    @property
    def ends_ns(self) -> int | None:
        """When it ends by the wall clock; None: not by time."""
        return None if self.lasts_ns is None else self.since.wall_ns + self.lasts_ns

    @property
    def is_counted(self) -> bool:
        """Whether it is for a number of uses."""
        return self.uses is not None

    @property
    def text(self) -> str:
        """What it opens, in one line."""
        if self.kind is GrantKind.OPEN:
            return "every public host"
        shown = [*map(shown_rule, self.rules[:_SHOWN])]
        more = len(self.rules) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")

    @property
    def scope(self) -> str:
        """Whom it is for, in a few words."""
        if self.run is not None:
            return f"run {self.run.name}"
        return f"runs in {self.project}" if self.project is not None else "every proxy of this user"

    @property
    def whom(self) -> str:
        """The same with its preposition: `for run build`."""
        return f"for {self.scope}"

    def left_ns(self, now: Moment) -> int | None:
        """Return how much of its time is left; None: it does not end by time.

        The time since the boot cannot be set, so a clock that is set back prolongs nothing; one
        that is set forward may end a grant early. A grant of an earlier boot has no such time.
        """
        if self.lasts_ns is None:
            return None
        if now.boot != self.since.boot:
            return 0
        passed = max(now.wall_ns - self.since.wall_ns, now.boot_ns - self.since.boot_ns)
        return max(0, self.lasts_ns - passed)

    def end(self, now: Moment) -> End | None:
        """Return why the grant is over; None: it is in force."""
        if self.ended is not None:
            return self.ended
        if self.uses_left is not None and self.uses_left <= 0:
            return End.USES
        if self.lasts_ns is None:
            return None
        since = self.since
        went_back = now.wall_ns < since.wall_ns or now.boot_ns < since.boot_ns
        if now.boot != since.boot or went_back:
            return End.CLOCK
        return None if self.left_ns(now) else End.TIME

    def after_boot(self, now: Moment, highest_ns: int) -> "Grant":
        """Return the grant as it counts in a later boot, with the rest of its time.

        `highest_ns` is the highest time that any proxy has seen: an earlier one means that the
        clock was set back meanwhile, so that nobody knows how much time has passed.
        """
        if self.since.boot == now.boot or self.ended is not None or self.lasts_ns is None:
            return self
        if now.wall_ns < max(self.since.wall_ns, highest_ns):
            return replace(self, ended=End.CLOCK)
        left = self.since.wall_ns + self.lasts_ns - now.wall_ns
        if left <= 0:
            return replace(self, ended=End.TIME)
        return replace(self, since=now, lasts_ns=left)

    def concerns(self, run: GrantedRun | None, project: str | None) -> bool:
        """Tell whether it is for a client of this run, which works in this project."""
        if self.run is not None and self.run != run:
            return False
        if self.project is None:
            return True
        if run is None or project is None:
            return False
        return PurePosixPath(project).is_relative_to(self.project)


def place_of(number: int) -> Location:
    """Return where the rules of a grant are from."""
    return Location(f"{GRANT_PLACE}{number}", 0, 0)


def number_of(rule: Rule | None) -> int | None:
    """Return the number of the grant that a rule is of; None: it is of a list."""
    if rule is None or rule.source.line or not rule.source.file.startswith(GRANT_PLACE):
        return None
    return int(rule.source.file.removeprefix(GRANT_PLACE))


def of_grant(rules: Iterable[Rule], number: int) -> tuple[Rule, ...]:
    """Return rules as those of a grant."""
    return tuple(replace(rule, source=place_of(number)) for rule in rules)


def everything() -> Rule:
    """Return the rule of a grant that opens every public host."""
    return Rule(
        pattern=HostPattern.every(),
        scheme=None,
        ports=None,
        methods=None,
        paths=None,
        tls=Tls.INTERCEPT,
        addresses=(),
        note="",
        source=place_of(0),
    )
