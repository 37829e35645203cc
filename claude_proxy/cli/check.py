"""Command `check`: what a policy decides about one URL; no packet is sent, no secret is read.

Law kept: one judge. It asks the policy the proxy's questions, in the same order, and judges the
path as it is written: what a client would change before sending, such as letters that are not
ASCII, is refused. It names the credential that a request would carry, and does not read it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import check_findings, entry_warnings, grant_options, options, paths
from claude_proxy.cli.check_findings import Findings
from claude_proxy.cli.checked_grants import Openings, openings_of
from claude_proxy.cli.checked_url import Question, question_of
from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_as_given,
    confdir_option,
    policy_option,
)
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.conflicts import unreached
from claude_proxy.config.allowlist.messages import LARGEST_BODY
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Binding, bound_to
from claude_proxy.policy.credentials.database import is_for_requests
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.policy.summary import describe_restrictions, describe_use

EXAMPLES = """\b
Examples:
  claude-proxy check https://github.com/anthropics/claude-code
  claude-proxy check --method POST https://api.example.com/v1/items
  claude-proxy check git.corp.example:8443       only the tunnel
  claude-proxy check tcp://db.corp.example:5432
  claude-proxy check git@github.com:anthropics/claude-code.git
  claude-proxy check --look-up https://git.corp.example/
  claude-proxy check --policy shell https://github.com/
  claude-proxy check --body request.json https://api.anthropic.com/v1/messages
\b
A grant in force that allows what the list denies is named, with its end and for whom it is.
\b
Exit codes: 0 allowed, 1 denied, 2 the URL or the allowlist is not valid. With grants it is that of
a client that belongs to no run.
"""

_JSON = ((b"content-type", b"application/json"),)
_is_method = lazy_pattern(r"[A-Z][A-Z0-9-]*").fullmatch


@dataclass(frozen=True, slots=True)
class Answer:
    """The decisions in their order; None where a question does not come up."""

    connect: Decision | None
    request: Decision | None
    content: Decision | None = None
    narrowing: ApiRestrictions | None = None  # what requests to the host may ask for
    binding: Binding | None = None  # the credential that is for the host
    unjudged: bool = False  # whether there is a body that nothing narrows

    @property
    def decision(self) -> Decision:
        """The denial if something is denied, else the last decision."""
        asked = [each for each in (self.connect, self.request, self.content) if each is not None]
        return next((each for each in asked if not each.allowed), asked[-1])


@click.command(epilog=EXAMPLES)
@click.argument("url")
@click.option("--method", help="The method of the request.  [default: GET, with --body POST]")
@click.option(
    "--body",
    "body_file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Judge this body of a request to the Messages API, too; - is standard input.",
)
@allowlist_option(
    "The allowlist file.  [default: allowlist.yaml in --confdir, else the shipped one]"
)
@click.option(
    "--look-up",
    is_flag=True,
    help="Look the name up in DNS and judge its addresses; without it only the hosts file is read.",
)
@click.option(
    "--dir",
    "project",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The project whose own .claude-proxy.yaml holds, too.  [default: the current directory]",
)
@confdir_option("the allowlist")
@grant_options.statedir_option()
@policy_option("Check against this policy instead of the allowlist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    context: click.Context,
    /,
    url: str,
    *,
    method: str | None,
    body_file: Path | None,
    look_up: bool,
    project: Path | None,
    confdir: Path | None,
    statedir: Path | None,
    as_json: bool,
    **named: Any,
) -> int:
    """Show what the allowlist decides about a URL."""
    named = options.in_force(context, named)
    allowlist_file: Path | None = named["allowlist_file"]
    policy_name: str | None = named["policy_name"]
    method = _method_of(method, body_file)
    question = question_of(url)
    body = None if body_file is None else _body_of(body_file, question)
    if policy_name is None:
        file = allowlist_file or paths.allowlist_path(confdir or paths.default_confdir())
        asked = ("allowlist", str(file))
        policy = policy_files.load(file, confdir or paths.default_confdir()).policy
    else:
        asked = ("policy", policy_name)
        policy = _policy_named(policy_name, confdir, allowlist_file)
    place = confdir or paths.default_confdir()
    answer = answer_of(question, method, policy, body)
    denials, problem = entry_warnings.project_denials(
        entry_warnings.current_directory() if project is None else project.absolute()
    )
    library = OwnerFiles(place).library

    def judge(each: Policy) -> Decision:
        return answer_of(question, method, each, body).decision

    def find(decision: Decision, each: Policy) -> Findings:
        return check_findings.findings_of(
            question, method, decision, each, library, denials, judge=judge, in_dns=look_up
        )

    found = find(answer.decision, policy)
    listed = answer.decision.allowed and found.allowed
    granted = Openings() if listed else openings_of(policy, found, judge, find, statedir)
    warnings = check_findings.authority_warnings(question, answer.connect, place)
    if found.unresolved:
        warnings.append(f"{question.target.host} does not resolve here: no address was found")
    for warning in filter(None, [*warnings, problem, granted.problem]):
        click.echo(f"warning: {warning}", err=True)
    for binding in unreached(policy):
        what = f"no rule allows a host of the credential {binding.name}"
        click.echo(f"warning: {what} ({harmless(str(binding.source))})", err=True)
    allowed = listed or granted.for_anybody
    asks = None if allowed else _asking(question, method, policy, body)
    options_of_list = _options_of_list(context, allowlist_file, policy_name)
    if as_json:
        facts = _facts(question, method, answer, asked) | _facts_of(found, options_of_list)
        facts["asks"] = asks is not None
        facts["grants"] = granted.facts()
        click.echo(json.dumps({**facts, "allowed": allowed}, indent=2))
    else:
        lines = _lines(question, method, answer, asked, allowed=allowed)
        if asks is not None:
            lines[-1:-1] = [
                f"  its owner is asked first, by {asks.name} ({harmless(str(asks.source))})"
            ]
        lines[-1:-1] = granted.lines()
        if not granted.for_anybody:
            lines[-1:-1] = check_findings.lines_of(found, options_of_list)
        click.echo("\n".join(lines))
    return 0 if allowed else 1


def _method_of(given: str | None, body_file: Path | None) -> str:
    if given is None:
        return "GET" if body_file is None else "POST"
    method = given.upper()
    if _is_method(method) is None:
        fix = "name a method, such as GET"
        raise ConfigError(f'"{method}" is not a method', where="--method", fix=fix)
    return method


def _asking(question: Question, method: str, policy: Policy, body: bytes | None) -> Rule | None:
    """Return the rule by which the owner is asked before this is allowed, if there is one."""
    if not policy.ask:
        return None
    answered = answer_of(question, method, policy.as_answered(), body).decision
    return answered.rule if answered.allowed else None


def _options_of_list(
    context: click.Context, allowlist_file: Path | None, policy_name: str | None
) -> tuple[str, ...]:
    """Return the options with which a command changes the list that was asked."""
    named: tuple[str, ...] = ()
    if policy_name is not None:
        named = ("--policy", policy_name)
    elif allowlist_file is not None:
        named = ("--allowlist", str(allowlist_file))
    return (*named, *confdir_as_given(context))


def _facts_of(found: Findings, options_of_list: tuple[str, ...]) -> dict[str, Any]:
    return {
        "project": _decision_facts(found.project),
        "address": None if found.address is None else str(found.address),
        "allow_command": found.advice.command(*options_of_list),
        "presets": list(found.presets),
    }


def _policy_named(name: str, confdir: Path | None, allowlist_file: Path | None) -> Policy:
    if allowlist_file is not None:
        what, fix = "--policy and --allowlist exclude each other", "drop one of them"
        raise ConfigError(what, where="--policy, --allowlist", fix=fix)
    files = OwnerFiles(confdir or paths.default_confdir())
    return policy_files.served(policy_files.read_named(files, name))


def _body_of(file: Path, question: Question) -> bytes:
    if question.scheme is None:
        fix = "write the URL with its scheme, or drop --body"
        raise ConfigError("a tunnel has no body", where="--body", fix=fix)
    try:
        # What is larger is denied for its size, whatever it contains.
        if str(file) == "-":
            return sys.stdin.buffer.read(LARGEST_BODY + 1)
        with file.open("rb") as opened:
            return opened.read(LARGEST_BODY + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        what = f"the body cannot be read: {reason}"
        raise ConfigError(what, where=str(file), fix="name a file that is there") from error


def answer_of(question: Question, method: str, policy: Policy, body: bytes | None = None) -> Answer:
    """Ask the policy what the proxy would ask it."""
    decide = policy.decide_raw if question.raw else policy.decide_connect
    connect = decide(question.target) if question.tunnel else None
    if question.scheme is None and connect is not None and connect.raw:
        return Answer(connect, None, binding=policy.database_at(question.target))
    if question.scheme is None or (connect is not None and not connect.allowed):
        return Answer(connect, None)
    if _is_unseen(question, connect):
        return Answer(connect, None)
    request = Request(
        question.scheme,
        question.target,
        question.target,
        method,
        question.path,
        question.query,
        () if body is None else _JSON,
    )
    decision = policy.decide_head(request)
    narrowing = policy.restrictions_for(question.target)
    judged = decision.allowed and narrowing is not None and narrowing.judges_body_of(request)
    content = policy.decide_content(request, body) if judged and body is not None else None
    for_requests = filter(is_for_requests, policy.credentials)
    bound = bound_to(question.target, for_requests)
    # Where a host has several, each is for other ports.
    bindings = sorted(bound, key=lambda each: question.target.port not in each.ports)
    binding = bindings[0] if bindings else None
    unjudged = decision.allowed and body is not None and content is None
    return Answer(connect, decision, content, narrowing, binding, unjudged)


def _is_unseen(question: Question, connect: Decision | None) -> bool:
    """Tell whether the request would travel in TLS that the proxy does not open."""
    passed = connect is not None and connect.tls is Tls.PASSTHROUGH
    return passed and question.scheme is Scheme.HTTPS


def _lines(
    question: Question, method: str, answer: Answer, asked: tuple[str, str], *, allowed: bool
) -> list[str]:
    lines = [f"{'allowed' if allowed else 'denied'}: {harmless(question.url)}"]
    if question.note:
        lines.append(f"  {harmless(question.note)}")
    if answer.connect is not None:
        lines.append(f"  CONNECT {question.target}: {_told(answer.connect)}")
        if question.scheme is None and answer.connect.allowed:
            lines.append(f"  inside: {_spoken_inside(answer.connect, answer.binding)}")
            lines += _lines_of_credential(question, answer)
    if answer.request is not None:
        lines += _lines_of_request(question, method, answer, answer.request)
    elif _is_unseen(question, answer.connect):
        lines.append(f"  {method} {question.path}: not judged, as TLS is passed through")
    lines.append(f"  {' '.join(asked)}")
    return lines


def _spoken_inside(connect: Decision, binding: Binding | None) -> str:
    """Say what a client may speak in an open tunnel; `binding` logs it in to a database there."""
    if binding is not None:
        return "PostgreSQL's protocol, with the placeholder in place of the password"
    if connect.raw:
        tls = "TLS must name the host" if connect.secure else "TLS is denied"
        return f"any protocol but HTTP; {tls}"
    spoken = ["TLS"] * connect.secure + ["plain HTTP"] * connect.plain
    return f"{' or '.join(spoken)}, and nothing else"


def _lines_of_request(
    question: Question, method: str, answer: Answer, decision: Decision
) -> list[str]:
    lines = [f"  {method} {question.path}: {_told(decision)}"]
    if answer.content is not None:
        word = "allowed" if answer.content.allowed else "denied"
        lines.append(f"  body: {word} ({answer.content.reason})")
    elif answer.unjudged:
        lines.append("  body: not judged, as nothing says what it may ask for")
    if (narrowing := answer.narrowing) is not None:
        lines.append(f"  narrowed: {describe_restrictions(narrowing)} ({narrowing.source})")
    return lines + _lines_of_credential(question, answer)


def _lines_of_credential(question: Question, answer: Answer) -> list[str]:
    binding = answer.binding
    if binding is None:
        return []
    told = _unusable_by(binding, question) or describe_use(binding.use)
    return [f"  credential {binding.name}: {harmless(told)} ({binding.source})"]


def _unusable_by(binding: Binding, question: Question) -> str | None:
    """Return why the request carries no credential, if it carries none."""
    if question.scheme is Scheme.HTTP:
        return "none goes over plain HTTP"
    if question.target.port not in binding.ports:
        return f"none goes to port {question.target.port}"
    return None


def _told(decision: Decision) -> str:
    word = "allowed" if decision.allowed else "denied"
    told = f"{word} ({decision.reason})"
    rule = decision.rule
    return told if rule is None else f"{told} by {rule.name} ({rule.source})"


def _facts(
    question: Question, method: str, answer: Answer, asked: tuple[str, str]
) -> dict[str, Any]:
    return {
        "url": question.url,
        "allowed": answer.decision.allowed,
        "target": str(question.target),
        "method": method if question.scheme is not None else None,
        "path": question.path or None,
        "connect": _decision_facts(answer.connect),
        "request": _decision_facts(answer.request),
        "content": _decision_facts(answer.content),
        "narrowing": _narrowing_facts(answer.narrowing),
        "credential": _credential_facts(question, answer.binding),
        asked[0]: asked[1],
    }


def _decision_facts(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    return {
        "allowed": decision.allowed,
        "reason": decision.reason.value,
        "tls": None if decision.tls is None else decision.tls.value,
        "rule": _rule_facts(decision.rule),
        **({"raw": True} if decision.raw else {}),
    }


def _narrowing_facts(narrowing: ApiRestrictions | None) -> dict[str, Any] | None:
    if narrowing is None:
        return None
    return {"limits": describe_restrictions(narrowing), "source": str(narrowing.source)}


def _credential_facts(question: Question, binding: Binding | None) -> dict[str, Any] | None:
    if binding is None:
        return None
    return {
        "name": binding.name,
        "usable": _unusable_by(binding, question) is None,
        "use": describe_use(binding.use),
        "source": str(binding.source),
    }


def _rule_facts(rule: Rule | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {"name": rule.name, "source": str(rule.source), "note": rule.note}
