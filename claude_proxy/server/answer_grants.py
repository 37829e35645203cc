"""Grants of answers: what the owner allowed for longer than what waits, kept in the store."""

from collections.abc import Callable

from claude_proxy.config.settings import Settings
from claude_proxy.control import present
from claude_proxy.control.answers import AnswerError, Reply, Verdict
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.policy.grants import SECOND_NS, GrantedRun
from claude_proxy.policy.questions import Subject
from claude_proxy.policy.rules import Rule
from claude_proxy.system.runs import living_run


class MakeGrants:
    """Makes the grants of answers, of the run that asked alone if it was one."""

    def __init__(self, settings: Settings, refresh: Callable[[], object]) -> None:
        self._settings = settings
        self._refresh = refresh  # has this process read the store

    def __call__(self, subject: Subject, rule: Rule, reply: Reply, by: str) -> int:
        """Return the number of the grant; ClaudeProxyError if there can be none."""
        run = self._run_of(subject)
        if reply.verdict is Verdict.RUN and run is None:
            raise AnswerError(
                "this was not asked by a run",
                fix="allow it for a time, for a number of uses, or always",
            )
        lasts_ns = None if reply.seconds is None else max(1, round(reply.seconds * SECOND_NS))
        reason = f"answer to: {subject}"
        draft = Draft((rule,), by, reason, run=run, lasts_ns=lasts_ns, uses=reply.times)
        store = GrantStore.open(self._settings.statedir, make=True)
        if store is None:
            raise AnswerError(
                "the store of grants cannot be made",
                where=str(self._settings.statedir),
                fix="check its owner, its mode and the free space, or answer once",
            )
        with store:
            grant = store.make(draft, present.now())
        self._refresh()
        return grant.number

    def _run_of(self, subject: Subject) -> GrantedRun | None:
        base = self._settings.runs
        if subject.run is None:
            return None
        found = None if base is None else living_run(base, subject.run)
        if found is None:
            raise AnswerError(
                "the run that asked has ended",
                where=f"run {subject.run}",
                fix="see what still asks with `claude-proxy ask --list`",
            )
        return GrantedRun(found.name, found.folder)
