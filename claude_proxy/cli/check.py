"""Command `check`: what a policy decides about one URL; no packet is sent, no secret is read.

Law kept: one judge. It asks the policy the proxy's questions, in the same order, and judges the
path as it is written: what a client would change before sending, such as letters that are not
ASCII, is refused. It names the credential that a request would carry, and does not read it.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import options, paths
from claude_proxy.cli.shared_options import allowlist_option, confdir_option, policy_option
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.conflicts import unreached
from claude_proxy.config.allowlist.messages import LARGEST_BODY
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.strict_yaml.nodes import harmless, quoted
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Binding, bound_to
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.policy.summary import describe_restrictions, describe_use
from claude_proxy.wire.authority import Authority, normalise_host

EXAMPLES = """\b
Examples:
  claude-proxy check https://github.com/anthropics/claude-code
  claude-proxy check --method POST https://api.example.com/v1/items
  claude-proxy check git.corp.example:8443       only the tunnel
  claude-proxy check --policy shell https://github.com/
  claude-proxy check --body request.json https://api.anthropic.com/v1/messages
\b
Exit codes: 0 allowed, 1 denied, 2 the URL or the allowlist is not valid.
"""

# A WebSocket begins as a GET, and its clients open a tunnel even for ws:// (RFC 6455, 4.1).
_SCHEMES = {
    "https": (Scheme.HTTPS, 443, True),
    "wss": (Scheme.HTTPS, 443, True),
    "http": (Scheme.HTTP, 80, False),
    "ws": (Scheme.HTTP, 80, True),
}
_parts = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?.*",
    re.DOTALL,
).fullmatch
_JSON = ((b"content-type", b"application/json"),)
_is_method = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch
_is_sent_as_written = re.compile(r"[!-~]*").fullmatch


@dataclass(frozen=True, slots=True)
class Question:
    """What is checked: a request, or without a scheme only a tunnel."""

    url: str
    target: Authority
    scheme: Scheme | None
    tunnel: bool  # whether the client opens a tunnel by CONNECT first
    path: str
    query: str = ""


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
    def allowed(self) -> bool:
        """Whether everything that was asked is allowed."""
        decisions = [
            each for each in (self.connect, self.request, self.content) if each is not None
        ]
        return bool(decisions) and all(each.allowed for each in decisions)


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
@confdir_option("the allowlist")
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
    confdir: Path | None,
    as_json: bool,
    **named: Any,
) -> int:
    """Show what the allowlist decides about a URL."""
    named = options.in_force(context, named)
    allowlist_file: Path | None = named["allowlist_file"]
    policy_name: str | None = named["policy_name"]
    if method is None:
        method = "GET" if body_file is None else "POST"
    if _is_method(method) is None:
        fix = "write it in capitals, such as GET"
        raise ConfigError(f'"{method}" is not a method', where="--method", fix=fix)
    question = question_of(url)
    body = None if body_file is None else _body_of(body_file, question)
    if policy_name is None:
        file = allowlist_file or paths.allowlist_path(confdir or paths.default_confdir())
        asked = ("allowlist", str(file))
        policy = policy_files.load(file, confdir or paths.default_confdir()).policy
    else:
        asked = ("policy", policy_name)
        policy = _policy_named(policy_name, confdir, allowlist_file)
    answer = answer_of(question, method, policy, body)
    for binding in unreached(policy):
        what = f"no rule allows a host of the credential {binding.name}"
        click.echo(f"warning: {what} ({harmless(str(binding.source))})", err=True)
    if as_json:
        click.echo(json.dumps(_facts(question, method, answer, asked), indent=2))
    else:
        for line in _lines(question, method, answer, asked):
            click.echo(line)
    return 0 if answer.allowed else 1


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


def question_of(url: str) -> Question:
    """Read what the user wrote; raise ConfigError if no client could ask for it."""
    found = _parts(url)
    if found is None:  # pragma: no cover - the pattern matches every text
        raise _unusable(url, "it cannot be read")
    name = found["scheme"]
    if name is None:
        if found["path"] or "?" in url or "#" in url:
            raise _unusable(url, "it has a path but no scheme", fix=f"write https://{url}")
        return Question(url, _target_of(url, url, 443), None, tunnel=True, path="")
    if name.lower() not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise _unusable(url, f"the scheme {name} is not known", fix=f"begin it with one of {known}")
    scheme, port, tunnel = _SCHEMES[name.lower()]
    path = found["path"] or "/"
    if _is_sent_as_written(path) is None:
        fix = "percent-encode the path as a client sends it"
        raise _unusable(url, "the path has characters that are never sent", fix=fix)
    target = _target_of(url, found["authority"], port)
    return Question(url, target, scheme, tunnel, path, found["query"] or "")


def answer_of(question: Question, method: str, policy: Policy, body: bytes | None = None) -> Answer:
    """Ask the policy what the proxy would ask it."""
    connect = policy.decide_connect(question.target) if question.tunnel else None
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
    bound = bound_to(question.target, policy.credentials)
    # Where a host has several, each is for other ports.
    bindings = sorted(bound, key=lambda each: question.target.port not in each.ports)
    binding = bindings[0] if bindings else None
    unjudged = decision.allowed and body is not None and content is None
    return Answer(connect, decision, content, narrowing, binding, unjudged)


def _is_unseen(question: Question, connect: Decision | None) -> bool:
    """Tell whether the request would travel in TLS that the proxy does not open."""
    passed = connect is not None and connect.tls is Tls.PASSTHROUGH
    return passed and question.scheme is Scheme.HTTPS


def _target_of(url: str, text: str, port: int) -> Authority:
    if "@" in text:
        raise _unusable(url, "it has user info", fix="leave out what is before the @")
    try:
        # A client turns letters that are not ASCII into A-labels before it asks.
        host, _, rest = text.partition(":")
        if not host.isascii():
            text = normalise_host(host, unicode=True) + (f":{rest}" if rest else "")
        return Authority.parse(text, default_port=port)
    except ValueError as error:
        raise _unusable(url, str(error)) from error


def _unusable(url: str, why: str, *, fix: str = "") -> ConfigError:
    shown = quoted(url)
    usual = "write a URL such as https://example.com/path, or HOST:PORT"
    return ConfigError(f"{shown} cannot be checked: {why}", where="URL", fix=fix or usual)


def _lines(question: Question, method: str, answer: Answer, asked: tuple[str, str]) -> list[str]:
    word = "allowed" if answer.allowed else "denied"
    lines = [f"{word}: {harmless(question.url)}"]
    if answer.connect is not None:
        lines.append(f"  CONNECT {question.target}: {_told(answer.connect)}")
    if answer.request is not None:
        lines += _lines_of_request(question, method, answer, answer.request)
    elif _is_unseen(question, answer.connect):
        lines.append(f"  {method} {question.path}: not judged, as TLS is passed through")
    lines.append(f"  {' '.join(asked)}")
    return lines


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
    if (binding := answer.binding) is not None:
        told = _unusable_by(binding, question) or describe_use(binding.use)
        lines.append(f"  credential {binding.name}: {harmless(told)} ({binding.source})")
    return lines


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
        "allowed": answer.allowed,
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
