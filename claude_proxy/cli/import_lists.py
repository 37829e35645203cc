"""Commands `import squid`, `tinyproxy`, `srt`, `claude-code`, `hosts`: one policy file from a list.

Law kept: no quiet downgrade. What means less is printed line by line, and nothing that is there is
overwritten unless --force says so.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import completers, paths
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config import policy_files, preset_files
from claude_proxy.config.file_states import POLICIES
from claude_proxy.config.imports import source_files
from claude_proxy.config.imports.draft import Draft
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.strict_yaml.nodes import harmless, quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.difference import difference
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule
from claude_proxy.system import file_replacement

_COMPARED = 1_000  # rules of both policies, from which on entries are compared by their text
_SHOWN = 100  # remarks, and lines of what is opened; --json has all
_WRITING = """\b
The policy is printed; what could not be kept goes to standard error, line by line:
  not carried over   the line has no counterpart, and nothing of it is allowed
  narrower           less is allowed than the other program allowed
Nothing is ever allowed that the other file denies.
"""

type Converter = Callable[..., Draft]
type Command = Callable[..., int]


def _examples(*lines: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  claude-proxy import {line}" for line in lines)])


def _writing(convert: Converter) -> Command:
    """Add the options that say where the policy goes, and write or print it there."""

    @click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
    @click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write the policy to this file.  [default: print it]",
    )
    @click.option(
        "--policy",
        "policy_name",
        metavar="NAME",
        shell_complete=completers.policies,
        help="Write it to policies/NAME.yaml in --confdir, for `run --policy NAME`.",
    )
    @click.option("--force", is_flag=True, help="Overwrite a file that exists.")
    @confdir_option("the directory policies/")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: the policy and all remarks.")
    @wraps(convert)
    def command(
        file: Path,
        *,
        output: Path | None,
        policy_name: str | None,
        force: bool,
        confdir: Path | None,
        as_json: bool,
        **more: Any,
    ) -> int:
        target = _target(output, policy_name, confdir, force=force)
        if target is not None and _is_same(file, target):
            fix = "name another file with --output"
            raise ConfigError(
                "the policy would replace the imported file", where="--output", fix=fix
            )
        draft = convert(file, **more)
        _finish(draft, target, force=force, as_json=as_json, confdir=confdir)
        return 0

    decorated: Command = command
    return decorated


@click.command(
    "squid",
    epilog=_WRITING
    + "\n"
    + _examples(
        "squid /etc/squid/squid.conf",
        "squid squid.conf --root ./copy-of-the-machine --policy office",
        "squid squid.conf --client 10.0.0.7     the lines that count for one client",
    ),
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the files are that the configuration names: a copy of the machine's files.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="ADDRESS|ACL",
    help="Decide the lines for a client with this address, or that matches this acl; repeatable.",
)
@_writing
def squid(file: Path, *, root: Path | None, clients: tuple[str, ...]) -> Draft:
    """Convert the http_access lines of a squid.conf."""
    from claude_proxy.config.imports import squid as converter  # noqa: PLC0415 - by its command

    text = source_files.read(file, "configuration")
    library = source_files.SourceFiles(file, root)
    return converter.convert(text, name=_name(file), library=library, clients=clients)


@click.command(
    "tinyproxy",
    epilog=_WRITING
    + "\n"
    + _examples(
        "tinyproxy /etc/tinyproxy/tinyproxy.conf",
        "tinyproxy tinyproxy.conf --root . --output allowlist.yaml",
    ),
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the filter file is that the configuration names: a copy of the machine's files.",
)
@_writing
def tinyproxy(file: Path, *, root: Path | None) -> Draft:
    """Convert a tinyproxy.conf and its filter file."""
    from claude_proxy.config.imports import tinyproxy as converter  # noqa: PLC0415 - as above

    text = source_files.read(file, "configuration")
    return converter.convert(text, name=_name(file), library=source_files.SourceFiles(file, root))


_HTTP = click.option(
    "--http",
    "plain_http",
    is_flag=True,
    help="Also allow plain HTTP on port 80, where the list does.",
)


@click.command(
    "srt",
    epilog=_WRITING
    + "\n"
    + _examples("srt ~/.srt-settings.json", "srt ~/.srt-settings.json --policy work"),
)
@_HTTP
@_writing
def srt(file: Path, *, plain_http: bool) -> Draft:
    """Convert the settings of sandbox-runtime."""
    from claude_proxy.config.imports import srt as converter  # noqa: PLC0415 - as above

    text = source_files.read(file, "settings file")
    return converter.convert(text, name=_name(file), plain_http=plain_http)


@click.command(
    "claude-code",
    epilog=_WRITING
    + "\n"
    + _examples(
        "claude-code ~/.claude/settings.json", "claude-code .claude/settings.json --policy work"
    ),
)
@_HTTP
@_writing
def claude_code(file: Path, *, plain_http: bool) -> Draft:
    """Convert the domains in Claude Code's settings."""
    from claude_proxy.config.imports import claude_code as converter  # noqa: PLC0415 - as above

    text = source_files.read(file, "settings file")
    return converter.convert(text, name=_name(file), plain_http=plain_http)


@click.command(
    "hosts",
    epilog=_WRITING
    + "\n"
    + _examples(
        "hosts allowed.txt",
        "hosts --deny blocklist.txt --output blocked.yaml",
        "hosts /etc/hosts        names with 0.0.0.0 or 127.0.0.1 are denied",
    ),
)
@click.option("--deny", is_flag=True, help="Deny the names of the list, in place of allowing them.")
@_HTTP
@_writing
def hosts(file: Path, *, deny: bool, plain_http: bool) -> Draft:
    """Convert a list of hosts, one in each line, or an /etc/hosts."""
    from claude_proxy.config.imports import hosts as converter  # noqa: PLC0415 - as above

    text = source_files.read(file, "list")
    return converter.convert(text, name=_name(file), deny=deny, plain_http=plain_http)


COMMANDS: tuple[click.Command, ...] = (squid, tinyproxy, srt, claude_code, hosts)


def _name(file: Path) -> str:
    return "standard input" if str(file) == source_files.STANDARD_INPUT else str(file)


# Where the policy goes.


def _target(
    output: Path | None, policy_name: str | None, confdir: Path | None, *, force: bool
) -> Path | None:
    if output is not None and policy_name is not None:
        fix = "give one of them"
        raise ConfigError("--output and --policy name two files", where="--policy", fix=fix)
    if policy_name is not None:
        if preset_files.is_name(policy_name) is None:
            what = f"{quoted(policy_name)} is no name of a policy"
            fix = "write lower-case letters, digits, dots, hyphens and underscores"
            raise ConfigError(what, where="--policy", fix=fix)
        directory = (confdir or paths.default_confdir()) / POLICIES
        return directory / f"{policy_name}{preset_files.SUFFIX}"
    if output is None and force:
        what, fix = "--force is for a file, and the policy is printed", "add --output or --policy"
        raise ConfigError(what, where="--force", fix=fix)
    return output


def _is_same(file: Path, target: Path) -> bool:
    try:
        return file.samefile(target)
    except OSError:
        return False


def _finish(
    draft: Draft, target: Path | None, *, force: bool, as_json: bool, confdir: Path | None
) -> None:
    text, new = draft.text(), draft.policy()
    before = None if target is None else _text_there(target)
    old, complaint = _old_policy(target, before, confdir)
    change = _change(old, new)
    if as_json:
        click.echo(json.dumps(_facts(draft, text, change, target), indent=2))
    elif target is None:
        click.echo(text, nl=False)
    _print_remarks(draft, quiet=as_json)
    if before is not None and target is not None and not as_json:
        _print_change(before, text, target)
    if complaint is not None:
        click.echo(f"the file that is there cannot be compared: {harmless(complaint)}", err=True)
    _print_opened(change, quiet=as_json)
    if target is not None:
        if before is not None and not force:
            raise ConfigError(
                "the file exists, and nothing was written",
                where=str(target),
                fix="name another file, or overwrite it with --force",
            )
        _write(target, text)
        if not as_json:
            click.echo(f"wrote {harmless(str(target))}")


def _text_there(target: Path) -> str | None:
    if not os.path.lexists(target):
        return None
    try:
        return target.read_bytes()[: source_files.MAX_BYTES].decode("utf-8", "replace")
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        what, fix = f"the file cannot be read: {reason}", "name another file with --output"
        raise ConfigError(what, where=str(target), fix=fix) from error


@dataclass(frozen=True, slots=True)
class _Change:
    """What the policy opens, and closes, as lines."""

    opens: tuple[str, ...]
    closes: tuple[str, ...] = ()


def _change(old: Policy | None, new: Policy) -> _Change:
    rules = new.rules_count + (0 if old is None else old.rules_count)
    if rules > _COMPARED or old is None:
        # Nothing to compare with, or more than is compared in a few seconds.
        before = Policy() if old is None else old
        return _Change(
            (
                *_added(before.allow, new.allow),
                *_added(new.deny, before.deny, "no longer denied: "),
            ),
            (*_added(new.allow, before.allow), *_added(before.deny, new.deny, "denied: "))
            if old is not None
            else (),
        )
    found = difference(old, new)
    return _Change(tuple(map(str, found.opens)), tuple(map(str, found.closes)))


def _added(old: Iterable[Rule], new: Iterable[Rule], said: str = "") -> Iterator[str]:
    known = set(map(str, old))
    return (f"{said}{rule}" for rule in new if str(rule) not in known)


def _old_policy(
    target: Path | None, before: str | None, confdir: Path | None
) -> tuple[Policy | None, str | None]:
    if target is None or before is None:
        return None, None
    try:
        files = OwnerFiles(confdir or target.parent)
        return policy_files.read_file(files, target).policy, None
    except ClaudeProxyError as error:
        return None, error.what


def _write(target: Path, text: str) -> None:
    # Where a link leads, as an editor would write it.
    path = Path(os.path.realpath(target))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_replacement.locked(path):
            file_replacement.replace(path, text.encode(), 0o600)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        what, fix = f"the file cannot be written: {reason}", "name a file that you may write"
        raise ConfigError(what, where=str(target), fix=fix) from error


# What is printed.


def _print_remarks(draft: Draft, *, quiet: bool) -> None:
    if quiet:
        return
    found = draft.remarks
    for remark in found[:_SHOWN]:
        click.echo(harmless(str(remark)), err=True)
    if len(found) > _SHOWN:
        more = len(found) - _SHOWN
        lines = "1 more line is" if more == 1 else f"{more} more lines are"
        click.echo(f"{lines} not shown; --json has all", err=True)


def _print_change(before: str, after: str, target: Path) -> None:
    name = harmless(str(target))
    for line in difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, n=2, lineterm=""
    ):
        click.echo(harmless(line))


def _print_opened(change: _Change, *, quiet: bool) -> None:
    if quiet:
        return
    if not change.opens:
        click.echo("opens nothing", err=True)
    for title, found in (("opens", change.opens), ("closes", change.closes)):
        for each in found[:_SHOWN]:
            click.echo(f"{title}: {harmless(each)}", err=True)
        if len(found) > _SHOWN:
            click.echo(f"{title}: {len(found) - _SHOWN} more; --json has all", err=True)


def _facts(draft: Draft, text: str, change: _Change, target: Path | None) -> dict[str, Any]:
    return {
        "policy": text,
        "remarks": [
            {
                "kind": each.kind,
                "what": each.what,
                "file": each.source.file,
                "line": each.source.line,
                "fix": each.fix,
            }
            for each in draft.remarks
        ],
        "opens": list(change.opens),
        "closes": list(change.closes),
        "output": None if target is None else str(target),
    }
