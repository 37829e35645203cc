"""Findings of `check` beyond the policy's own decision: the project's file, addresses, the CA.

One judge: the policy is asked about each. Where something is denied, what would allow just that is
named, and the presets that cover it.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from claude_proxy.cli import entry_warnings
from claude_proxy.cli.checked_url import Question
from claude_proxy.config.allowlist import loader
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy.advice import NO_ADVICE, Advice, DeniedAttempt, advice_for
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import AddressOwner, Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.system.own_addresses import is_known_to_be_own
from claude_proxy.wire.address import Address

_SHOWN = 3  # presets
# Denials for want of an entry of allow: a preset adds entries, and lifts no other denial.
_BY_ALLOWING = frozenset(
    {
        Reason.NO_RULE,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.METHOD_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
    }
)
type Judge = Callable[[Policy], Decision]  # what a policy decides about the very request


@dataclass(frozen=True, slots=True)
class Findings:
    """What decides about a request besides the policy, and what would help."""

    project: Decision | None = None  # a denial by the project's own file
    address: Address | None = None  # one that is denied
    address_decision: Decision | None = None
    advice: Advice = NO_ADVICE
    presets: tuple[str, ...] = ()  # that allow what is denied
    unresolved: bool = False  # the name was looked up, and has no address

    @property
    def allowed(self) -> bool:
        """Whether nothing here denies it."""
        return self.project is None and self.address_decision is None


def findings_of(
    question: Question,
    method: str,
    decision: Decision,
    policy: Policy,
    library: loader.Library,
    project: Sequence[Rule],
    *,
    judge: Judge,
    in_dns: bool,
) -> Findings:
    """Return the findings about a question to which `decision` is the policy's answer."""
    if not decision.allowed and question.note:
        return Findings(advice=advice_of(question, method, decision))  # no preset is for SSH
    if not decision.allowed:
        return Findings(
            advice=advice_of(question, method, decision),
            presets=tuple(presets_for(decision, policy, library, judge)),
        )
    found = Findings(project=_denied_by_project(question, method, policy, project))
    addresses = entry_warnings.addresses_of(question.target.host, in_dns=in_dns)
    if in_dns and not addresses and question.target.address is None:
        return replace(found, unresolved=True)
    for address in addresses:
        is_own = is_known_to_be_own(address)
        owner = AddressOwner.THIS_MACHINE if is_own else AddressOwner.OTHER
        verdict = policy.decide_address(question.target, address, owner)
        if not verdict.allowed:
            raw = policy.decide_connect(question.target).raw
            advice = advice_of(question, method, verdict, address, raw=raw)
            return Findings(found.project, address, verdict, advice)
    return found


def advice_of(
    question: Question,
    method: str,
    decision: Decision,
    address: Address | None = None,
    *,
    raw: bool = False,
) -> Advice:
    """Return what would allow just what is asked; `raw` says that the tunnel is one of tcp."""
    dialled = question.target.address if question.target.address is not None else address
    is_own = dialled is not None and is_known_to_be_own(dialled)
    if question.scheme is None:
        # Where this is not TLS, no rule of tcp is there: a tunnel of tcp is denied that for HTTP.
        wants_tcp = question.raw and decision.reason is not Reason.NOT_TLS
        scheme = RawScheme.TCP if raw or wants_tcp else Scheme.HTTPS
        return advice_for(
            DeniedAttempt(decision.reason, question.target, scheme, address=address, is_own=is_own)
        )
    return advice_for(
        DeniedAttempt(
            decision.reason,
            question.target,
            question.scheme,
            method,
            question.path,
            question.query,
            address,
            is_own,
        )
    )


def presets_for(
    decision: Decision, policy: Policy, library: loader.Library, judge: Judge
) -> Iterator[str]:
    """Yield the presets with which the policy would allow the very request, the smallest first."""
    if decision.reason not in _BY_ALLOWING:
        return
    found: list[tuple[int, str]] = []
    for name in library.names():
        with suppress(ConfigError, KeyError):
            more = loader.preset_policy(name, library)
            together = replace(
                policy,
                allow=(*policy.allow, *more.allow),
                restrictions=(*policy.restrictions, *more.restrictions),
            )
            if judge(together).allowed:
                found.append((len(more.allow), name))
    yield from (name for _, name in sorted(found)[:_SHOWN])


def _denied_by_project(
    question: Question, method: str, policy: Policy, project: Sequence[Rule]
) -> Decision | None:
    if not project:
        return None
    decision = _decide(question, method, policy.with_denials(project))
    return None if decision.allowed else decision


def _decide(question: Question, method: str, policy: Policy) -> Decision:
    """Return the decision about the tunnel, or about the request if that may be asked for."""
    if question.tunnel or question.scheme is None:
        connect = policy.decide_connect(question.target)
        unseen = connect.tls is Tls.PASSTHROUGH and question.scheme is Scheme.HTTPS
        if question.scheme is None or unseen or not connect.allowed:
            return connect
    target = question.target
    request = Request(
        question.scheme or Scheme.HTTPS, target, target, method, question.path, question.query
    )
    return policy.decide_request(request)


def authority_warnings(question: Question, connect: Decision | None, confdir: Path) -> list[str]:
    """Return a warning if clients would reject the certificate of our CA for the host."""
    if question.scheme is Scheme.HTTP or connect is None or connect.tls is not Tls.INTERCEPT:
        return []
    return list(entry_warnings.of_authority([question.target.host], confdir))


def lines_of(findings: Findings, options: Sequence[str]) -> Iterator[str]:
    """Yield the lines about the findings; `options` name the list to change."""
    if (decision := findings.project) is not None:
        rule = decision.rule
        place = "" if rule is None else f" by {rule.name} ({harmless(str(rule.source))})"
        yield f"  in runs of this project: denied ({decision.reason}){place}"
    if (decision := findings.address_decision) is not None:
        yield f"  address {findings.address}: denied ({decision.reason})"
    if (command := findings.advice.command(*options)) is not None:
        yield f"  to allow it: {command}"
    if findings.advice.text:
        yield f"  {findings.advice.text}"
    for name in findings.presets:
        named = shlex.join(("claude-proxy", "allow", "--preset", name, *options))
        yield f"  the preset {name} allows it: {named}"
