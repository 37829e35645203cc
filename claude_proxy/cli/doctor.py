"""`claude-proxy doctor`: checks the installation, its clients or its sandbox.

Law kept: fail closed: what could not be checked is an error, never "ok".
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.cli import options, proxy_settings, run
from claude_proxy.cli.main import wants_colour
from claude_proxy.cli.run_choices import RunOptions, run_spec_of
from claude_proxy.config.option_table import Subcommand, fields_of
from claude_proxy.config.policy_files import PolicySources
from claude_proxy.config.settings import DEFAULT_HOST, DEFAULT_PORT, Settings, TcpListen
from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.catalogue import AttackGroup, AttackResult, Outcome
from claude_proxy.doctor.checks import examine
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.engines import try_engines
from claude_proxy.doctor.finding import Finding, Level, exit_code
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.wire.authority import Authority

if TYPE_CHECKING:
    from claude_proxy.doctor.client_trust import ClientResult, Progress

EPILOG = """\b
Examples:
  claude-proxy doctor               configuration, CA, listeners, what a sandbox needs
  claude-proxy doctor --containers  starts a container that does nothing, with each engine
  claude-proxy doctor --trust       which clients use the proxy and trust its CA
  claude-proxy doctor --attack      tries to get out of a sandbox with your settings
  claude-proxy doctor --attack-here --canary 10.0.0.1:443   from inside of a pod, as its check
\b
Exit codes: 0 no problems, 1 warnings, 2 errors.
  --trust:  1 if a client ignores the proxy or the CA, 2 if one could not be tested
  --attack, --attack-here: 1 if anything got out, 2 if something could not be tried

The options of `serve`, and those of `run` that shape its sandbox, apply here too, with their
variables.
"""

# By the word that is shown: a level and an outcome can share one.
_COLOURS = {
    "ok": "green",
    "works": "green",
    "stopped": "green",
    "note": "blue",
    "warning": "yellow",
    "error": "red",
    "THROUGH": "red",
}
_HELP = {
    "dir": "With --attack: the project directory.  [default: an empty temporary one]",
    "profile": "With --attack: claude, gemini, codex, shell, or your own.  [default: shell]",
    "listen": "Where the proxy listens: ADDRESS:PORT or unix:PATH; repeatable.",
    "port": "The port that the proxy listens on.",
}
_SHOWN = {"confdir", "statedir", "allowlist", "listen", "port", "profile", "dir"}
# Options that choose the command and the output, which are fixed here.
_OF_RUN_ALONE = {
    "allow_remote",
    "forward",
    "publish",
    "branch",
    "clone",
    "command",
    "proxy",
    "gateway",
    "name",
    "shell",
    "dry_run",
    "verify",
    "skip_permissions",
    "verbose",
}
_OF_RUN = {field.name for field in fields(RunOptions)} - _OF_RUN_ALONE
_DEFAULT = TcpListen(DEFAULT_HOST, DEFAULT_PORT)
_WORD = "claude-proxy-doctor"  # the COMMAND by which a profile would be chosen


def _with_options_of_others(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `serve` and `run`; the help shows those that matter here."""
    of_run = [field for field in fields_of(Subcommand.RUN) if field.section == Subcommand.RUN]
    rows = [(field, Subcommand.SERVE) for field in fields_of(Subcommand.SERVE)]
    rows += [(field, Subcommand.RUN) for field in of_run if field.name in _OF_RUN]
    for field, command in reversed(rows):
        name = field.parameter(command)
        text, hidden = _HELP.get(name), name not in _SHOWN
        function = options.option(field.key, command, text=text, hidden=hidden)(function)
    return function


@click.command(epilog=EPILOG)
@click.option("--trust", "part", flag_value="trust", help="Run the clients that are installed.")
@click.option(
    "--containers", "part", flag_value="containers", help="Start a container with each engine."
)
@click.option("--attack", "part", flag_value="attack", help="Try to get out of a live sandbox.")
@click.option(
    "--attack-here",
    "part",
    flag_value="attack-here",
    help="Try to get out of the pod that this runs in, past the proxy of HTTPS_PROXY.",
)
@click.option(
    "--canary",
    metavar="HOST:PORT",
    multiple=True,
    help="With --attack-here: what would answer if nothing was in the way; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_with_options_of_others
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    part: str | None,
    canary: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> int:
    """Check the installation, its clients or its sandbox."""
    if part == "attack-here":
        return _attack_here(canary, as_json=as_json)
    if canary:
        raise ConfigError("--canary belongs to --attack-here", where="--canary", fix="leave it out")
    values = options.in_force(context, given)
    of_run = {name: values.pop(name) for name in _OF_RUN}
    settings = proxy_settings.settings_of(values, options.config_of(context))
    if part is None:
        return _examine(settings, examine, as_json=as_json)
    if part == "containers":
        return _examine(settings, try_engines, as_json=as_json)
    try:
        if part == "trust":
            return _trust(settings, as_json=as_json)
        return _attack(settings, of_run, run.policy_sources(context, values), as_json=as_json)
    except ConfigError:
        raise
    except ClaudeProxyError as error:
        # Exit code 1 would mean that a problem was found; 2 means that the check failed.
        raise ConfigError(error.what, where=error.where, fix=error.fix) from error


def _print(facts: Mapping[str, object], lines: Iterable[str], code: int, *, as_json: bool) -> int:
    said = json.dumps({**facts, "exit": code}, indent=2) if as_json else "\n".join(lines)
    click.echo(said)
    return code


def _painted(text: str, level: Level | Outcome | None) -> str:
    if level is None or not wants_colour(sys.stdout):
        return text
    return click.style(text, fg=_COLOURS[level.value], bold=level is Outcome.THROUGH or None)


# The installation


def _examine(settings: Settings, look: Callable[[Subject], list[Finding]], *, as_json: bool) -> int:
    subject = Subject(
        settings=replace(settings, statedir=settings.statedir.absolute()),
        environ=dict(os.environ),
        platform=sys.platform,
    )
    found = look(subject)
    facts = {"findings": [asdict(finding) for finding in found]}
    return _print(facts, finding_lines(found), exit_code(found), as_json=as_json)


def finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the table, with the fix below each finding."""
    rows = list(findings)
    width = max((len(finding.name) for finding in rows), default=0)
    margin = max(map(len, Level)) + 2
    for row in rows:
        level = _painted(row.level.value.ljust(margin), row.level)
        yield f"{level}{row.name.ljust(width)}  {escape_text(row.what)}"
        for number, line in enumerate((row.fix or "").splitlines()):
            mark = "fix: " if number == 0 else "      "
            yield f"{' ' * (margin + width + 2)}{mark}{escape_text(line)}"


# Clients


def _trust(settings: Settings, *, as_json: bool) -> int:
    # Imports the sandbox's launcher.
    from claude_proxy.doctor.client_trust import exit_code_of, try_clients  # noqa: PLC0415

    place = next((at for at in settings.listen if isinstance(at, TcpListen)), _DEFAULT)
    with _progress() as progress:
        looks = try_clients(settings.place_of_ca, os.environ, address=str(place), progress=progress)
    facts = {"clients": [asdict(look) for look in looks]}
    return _print(facts, trust_lines(looks), exit_code_of(looks), as_json=as_json)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Show on standard error which client is tried: on a terminal in one line, which goes away."""
    terminal = sys.stderr.isatty()

    def show(name: str, number: int, of: int) -> None:
        text = f"trying {name} ({number} of {of})"
        click.echo(f"\r\x1b[K{text}" if terminal else text, err=True, nl=not terminal)

    try:
        yield show
    finally:
        if terminal:
            click.echo("\r\x1b[K", err=True, nl=False)


_ANSWERS = {True: "yes", False: "NO", None: "?"}
# Whether a client that ignores the proxy is led to it in a run.
_LED = {
    True: "`claude-proxy run --transparent on` leads it to the proxy",
    False: "`claude-proxy run --transparent on` does not lead it to the proxy",
    None: "",
}


def trust_lines(looks: "Sequence[ClientResult]") -> Iterator[str]:
    """Yield the table of clients, with the message and the fix below each that fails."""
    width = max((len(look.client) for look in looks), default=0)
    column = len("uses the proxy")
    yield f"{''.ljust(width)}  uses the proxy  trusts the CA"
    for look in looks:
        if not look.present:
            yield f"{look.client.ljust(width)}  not installed"
            continue
        level = Level.OK if look.good else Level.ERROR
        cells = (_ANSWERS[look.uses_proxy].ljust(column), _ANSWERS[look.trusts])
        yield _painted(f"{look.client.ljust(width)}  {'  '.join(cells)}", level)
        led = _LED[look.transparent] if look.uses_proxy is False else ""
        for mark, text in (("said:", look.said), ("fix:", look.fix), ("inside:", led)):
            if text:
                yield f"{' ' * width}  {mark} {escape_text(text)}"


# The sandbox


def _attack(
    settings: Settings, of_run: dict[str, Any], sources: PolicySources, *, as_json: bool
) -> int:
    # Imports the sandbox's launcher.
    from claude_proxy.doctor.attack.run import AttackTarget, attack  # noqa: PLC0415
    from claude_proxy.sandbox.host_facts import user_of  # noqa: PLC0415

    own_project = of_run["dir"] is None
    given = RunOptions(command=(_WORD,), **of_run)
    run_spec = run_spec_of(given, replace(settings, credentials=None), sources)
    with _secret() as token:
        aim = AttackTarget(run_spec, user_of(os.environ).home, os.environ, token, own_project)
        rows = attack(aim)
    facts = {"attacks": [asdict(row) for row in rows]}
    return _print(facts, attack_lines(rows), catalogue.exit_code(rows), as_json=as_json)


def _attack_here(canaries: Sequence[str], *, as_json: bool) -> int:
    """Attack the pod that this runs in; a table that cannot be made is an error, exit code 2."""
    from claude_proxy.doctor.attack.pod import attack_here  # noqa: PLC0415 - few need it

    found = []
    for text in canaries:
        try:
            found.append(Authority.parse(text))
        except ValueError as error:
            raise ConfigError(
                str(error), where="--canary", fix="write it like 192.0.2.1:443"
            ) from error
    try:
        rows = attack_here(os.environ, found)
    except ConfigError:
        raise
    except ClaudeProxyError as error:
        raise ConfigError(error.what, where=error.where, fix=error.fix) from error
    facts = {"attacks": [asdict(row) for row in rows]}
    return _print(facts, attack_lines(rows), catalogue.exit_code(rows), as_json=as_json)


@contextmanager
def _secret() -> Iterator[str]:
    """Set a variable to a secret, which must not be visible inside."""
    from claude_proxy.doctor.attack.canaries import SECRET_VARIABLE, fresh_token  # noqa: PLC0415

    token = os.environ[SECRET_VARIABLE] = fresh_token()
    try:
        yield token
    finally:
        del os.environ[SECRET_VARIABLE]


def attack_lines(rows: Sequence[AttackResult]) -> Iterator[str]:
    """Yield the table, grouped by target, and the totals."""
    width = max((len(row.title) for row in rows), default=0)
    for group, part in groupby(rows, key=lambda row: row.group):
        yield f"{group.value}:"
        for row in part:
            yield from _row_lines(row, width)
    yield from _sum_lines(rows)


def _row_lines(row: AttackResult, width: int) -> Iterator[str]:
    result = _painted(row.result.value.ljust(max(map(len, Outcome))), row.result)
    tries = f"{row.tries} tries" if row.tries > 1 else ""
    by = ", ".join(row.by)
    saw = f"({', '.join(row.saw)})" if row.saw and row.by else ", ".join(row.saw)
    said = " ".join(word for word in (f"by {by}" if by else "", saw) if word)
    cells = f"  {result}  {row.title.ljust(width)}  {tries.rjust(8)}  {escape_text(said)}"
    yield cells.rstrip()
    for way in row.through:
        yield f"    {_painted('got through:', Outcome.THROUGH)} {escape_text(way)}"


def _sum_lines(rows: Sequence[AttackResult]) -> Iterator[str]:
    tried = [row for row in rows if row.group not in {AttackGroup.ALLOWED, AttackGroup.CANARIES}]
    count = {result: [row for row in rows if row.result is result] for result in Outcome}
    stopped = [row for row in tried if row.result is Outcome.STOPPED]
    tries = sum(row.tries for row in tried)
    yield ""
    yield f"{len(stopped)} of {len(tried)} attacks stopped, {tries} tries in all."
    if unknown := count[Outcome.ERROR]:
        message = f"UNKNOWN: {len(unknown)} could not be tried; nothing is proved about them."
        yield _painted(message, Outcome.ERROR)
    if through := count[Outcome.THROUGH]:
        message = f"NOT SAFE: {len(through)} got through. Do not rely on this sandbox."
        yield _painted(message, Outcome.THROUGH)
