"""Grants in force: what a running proxy knows of the store, and the policy of each run by it.

Fail closed: the clocks are read for each decision, so that a grant ends on time without a timer; a
store that cannot be read grants nothing. What this class knows may lag behind the store by one look
(uses that another proxy took, a revocation nobody told it of), so a use is always taken there.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from claude_proxy.control import present
from claude_proxy.control.grant_store import GrantStore, News
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.policy.granted_policy import with_grants
from claude_proxy.policy.grants import End, Grant, GrantedRun, Moment
from claude_proxy.policy.policy import Policy

logger = logging.getLogger(__name__)

_SPENT = 256  # that are remembered, for the requests that took their last uses
_POLICIES = 256  # of runs, and of what their connections hold


class RunFacts(NamedTuple):
    """What is known of a living run."""

    run: GrantedRun
    project: str | None


# Returns the facts of a living run by its name; None: there is none.
type FindRun = Callable[[str], RunFacts | None]


class Ended(NamedTuple):
    """A grant that has ended, and why."""

    grant: Grant
    why: End


class Changes(NamedTuple):
    """What is different since the last look."""

    made: tuple[Grant, ...] = ()
    ended: tuple[Ended, ...] = ()
    news: tuple[News, ...] = ()  # to be recorded by this process
    stopped: tuple[Grant, ...] = ()  # that were used up, and by which nothing may go on any more


class _OfRun(NamedTuple):
    facts: RunFacts | None
    grants: tuple[Grant, ...]


class GrantsInForce:
    """The grants that one process judges by."""

    def __init__(
        self,
        statedir: Path,
        find_run: FindRun,
        clock: Callable[[], Moment] = present.now,
    ) -> None:
        self._statedir = statedir
        self._find_run = find_run
        self._clock = clock
        self._store: GrantStore | None = None
        self._version = -1
        self._problem = ""
        self._known: dict[int, Grant] = {}
        self._spent: dict[int, Grant] = {}  # whose uses are taken, but perhaps still going on
        self._of_runs: dict[str | None, _OfRun] = {}
        self._last_taken: list[Ended] = []
        self._policies: dict[tuple[int, ...], Policy] = {}
        self._base: Policy | None = None

    # --- asked by the gate

    def policy_for(self, policy: Policy, run: str | None, held: Collection[int] = ()) -> Policy:
        """Return the policy with the grants in force for a run, and those that are `held`.

        What is held are the grants whose uses are going on: they may be used up by now.
        """
        if not self._known and not held:
            return policy
        now = self._clock()
        there = [grant for grant in self._of_run(run) if grant.end(now) is None]
        if held:
            there += [
                grant
                for grant in self._spent.values()
                if grant.number in held and self._goes_on(grant, now)
            ]
        return self._with(policy, there) if there else policy

    def take(self, number: int) -> bool:
        """Take one use of a counted grant in the store; False if there was none left.

        Then it grants nothing any more. So it does if the store cannot be written.
        """
        grant, store = self._known.get(number), self._store
        if grant is None or store is None:
            return False
        now = self._clock()
        if grant.end(now) is not None:
            return False
        try:
            left = store.take_use(number, now)
        except ConfigError as error:
            self._lose(error)
            return False
        if not left:
            try:
                why = End.USES if left is not None else self._why(grant)
            except ConfigError as error:
                self._lose(error)
                return False
            self._spend(grant, keep=why is End.USES)
            self._last_taken.append(Ended(grant, why))
        else:
            self._known[number] = replace(grant, uses_left=left)
            self._of_runs.clear()
        return left is not None

    def is_counted(self, number: int) -> bool:
        """Tell whether each request by a grant is a use of it."""
        grant = self._known.get(number)
        return grant is not None and grant.is_counted

    def goes_on(self, number: int, *, held: bool) -> bool:
        """Tell whether what a grant has allowed may go on; `held`: it took a use."""
        now = self._clock()
        if (grant := self._known.get(number)) is not None:
            return grant.end(now) is None
        spent = self._spent.get(number)
        return held and spent is not None and self._goes_on(spent, now)

    @property
    def has_spent(self) -> bool:
        """Whether a grant is used up whose connections may still be open."""
        return bool(self._spent)

    def in_force(self) -> list[Grant]:
        """Return all grants in force, for any run."""
        now = self._clock()
        return [grant for grant in self._known.values() if grant.end(now) is None]

    def used_up(self) -> list[Grant]:
        """Return the grants that are used up, and by which something may still go on."""
        now = self._clock()
        return [
            replace(spent, uses_left=0)
            for spent in self._spent.values()
            if self._goes_on(spent, now)
        ]

    # --- kept up to date

    def look(self) -> Changes:
        """Notice what has changed: the store, the clocks, the runs. Called about once a second."""
        self._forget_other_runs()
        try:
            if not self._is_stale():
                return self._note_ends({})
        except ConfigError as error:
            return self._lose(error)
        return self.refresh()

    def refresh(self) -> Changes:
        """Read the store; return what has changed."""
        try:
            self._store = self._store or GrantStore.open(self._statedir)
            store = self._store
            if store is None:
                return Changes()
            self._version = store.version()
            there = {grant.number: grant for grant in store.standing(self._clock())}
            before, self._known = self._known, there
            self._of_runs.clear()
            made = tuple(grant for number, grant in there.items() if number not in before)
            gone = {number: grant for number, grant in before.items() if number not in there}
            ends = self._note_ends(gone)
            news = (*ends.news, *store.take_news())
            stopped = (*ends.stopped, *self._drop_spent(self._was_revoked))
        except ConfigError as error:
            return self._lose(error)
        self._problem = ""
        return Changes(made, ends.ended, news, stopped)

    def close(self) -> None:
        """Close the store; nothing is granted any more."""
        self._known.clear()
        self._spent.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _is_stale(self) -> bool:
        if self._store is None:
            return True
        return self._store.version() != self._version

    def _lose(self, error: ConfigError) -> Changes:
        """Grant nothing, as the store cannot be used."""
        if self._problem != error.what:
            self._problem = error.what
            logger.warning("%s", "; ".join(line.strip() for line in error.lines()))
        ended = tuple(Ended(grant, End.STORE) for grant in self._known.values())
        stopped = tuple(self._spent.values())
        self.close()
        self._of_runs.clear()
        return Changes(ended=ended, stopped=stopped)

    def _note_ends(self, gone: Mapping[int, Grant]) -> Changes:
        """Return what has ended, and note in the store what no process has noted."""
        now, store = self._clock(), self._store
        ended, self._last_taken = self._last_taken, []
        ended += [Ended(grant, self._why(grant)) for grant in gone.values()]
        for grant in list(self._known.values()):
            why = grant.end(now) or self._end_of_run(grant)
            if why is not None:
                del self._known[grant.number]
                self._of_runs.clear()
                if store is not None:
                    store.end(grant.number, why, now)
                ended.append(Ended(grant, why))
        for each in ended:
            if each.why is End.USES and each.grant.number not in self._spent:
                self._spend(each.grant, keep=True)
        news = store.take_news() if ended and store is not None else ()
        stopped = self._drop_spent(
            lambda spent: not self._goes_on(spent, now) or self._end_of_run(spent) is not None
        )
        return Changes(ended=tuple(ended), news=tuple(news), stopped=stopped)

    def _why(self, grant: Grant) -> End:
        found = None if self._store is None else self._store.get(grant.number)
        return End.REVOKED if found is None or found.ended is None else found.ended

    def _end_of_run(self, grant: Grant) -> End | None:
        if grant.run is None:
            return None
        facts = self._find_run(grant.run.name)
        return None if facts is not None and facts.run == grant.run else End.RUN

    # --- used up

    def _spend(self, grant: Grant, *, keep: bool) -> None:
        self._known.pop(grant.number, None)
        self._of_runs.clear()
        if keep:
            self._spent[grant.number] = grant
            while len(self._spent) > _SPENT:
                del self._spent[next(iter(self._spent))]

    def _drop_spent(self, is_over: Callable[[Grant], bool]) -> tuple[Grant, ...]:
        """Forget and return those by which nothing may go on any more."""
        found = tuple(filter(is_over, self._spent.values()))
        for spent in found:
            del self._spent[spent.number]
        return found

    def _was_revoked(self, spent: Grant) -> bool:
        found = None if self._store is None else self._store.get(spent.number)
        return found is None or found.ended is not End.USES

    @staticmethod
    def _goes_on(spent: Grant, now: Moment) -> bool:
        return replace(spent, uses_left=spent.uses).end(now) is None

    # --- of one run

    def _of_run(self, run: str | None) -> tuple[Grant, ...]:
        found = self._of_runs.get(run)
        if found is None:
            facts = None if run is None else self._find_run(run)
            which, project = (None, None) if facts is None else facts
            there = tuple(each for each in self._known.values() if each.concerns(which, project))
            if len(self._of_runs) >= _POLICIES:
                self._of_runs.clear()
            found = self._of_runs[run] = _OfRun(facts, there)
        return found.grants

    def _forget_other_runs(self) -> None:
        """Forget what a run was granted whose name is another one's now."""
        for run, known in list(self._of_runs.items()):
            if run is not None and self._find_run(run) != known.facts:
                del self._of_runs[run]

    def _with(self, policy: Policy, grants: Iterable[Grant]) -> Policy:
        if policy is not self._base:
            self._base, self._policies = policy, {}
        unique = {grant.number: grant for grant in grants}
        key = tuple(unique)
        found = self._policies.get(key)
        if found is None:
            if len(self._policies) >= _POLICIES:
                self._policies.clear()
            found = self._policies[key] = with_grants(policy, list(unique.values()))
        return found
