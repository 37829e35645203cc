"""Entry point of the command line: runs one command, prints every failure, returns an exit code.

A user never sees a traceback: an error says what, where and how to fix it; an internal error names
its type and nothing that may hold a secret. Commands are imported when they are invoked, as
importing mitmproxy alone takes most of a second.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, override

import click
from click.shell_completion import CompletionItem, shell_complete

from claude_proxy import __version__
from claude_proxy.cli.groups import LazyGroup
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import waiting_process
from claude_proxy.system import file_shortage

if TYPE_CHECKING:
    from claude_proxy.config.settings import Settings

type StartProxy = Callable[[Settings], int]

PROGRAM = "claude-proxy"
DEBUG_VARIABLE = "CLAUDE_PROXY_DEBUG"
COMPLETE_VARIABLE = "_CLAUDE_PROXY_COMPLETE"
DEFAULT_COMMAND = "serve"
_STARTS = {"run", "serve"}
_CONTAINER_RUN = ["container", "run"]

EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_OUTPUT = 74  # EX_IOERR; not 1, which is an answer of `check`
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as above

# The one-line descriptions are here so that `--help` need not import the commands; a test compares
# them with the commands' own.
COMMANDS = {
    "serve": "Run the proxy (the default command).",
    "run": "Run a command in a sandbox whose only network is the proxy.",
    "container": "Run any client in a container whose only network is the proxy.",
    "agree": "Show what a project's .claude-proxy.yaml restricts, and agree to it.",
    "gateway": "Run an endpoint of the Anthropic API that holds the key.",
    "config": "Show the settings in force, or check the configuration files.",
    "check": "Show what the allowlist decides about a URL.",
    "diff": "Show what policy NEW allows and OLD does not, and the other way round.",
    "lint": "Find rules that are unused, wider than used, shadowed, or lead to shared places.",
    "allow": "Add hosts to the allowlist, or remove them.",
    "ask": "Answer what running proxies ask: let a request through, or not.",
    "grants": "List the grants in force.",
    "revoke": "Revoke grants: what only they allowed is closed at once.",
    "open": "Allow every public host for a time.",
    "close": "Close what was opened: the lists alone decide again.",
    "credentials": "Show the credentials, hash a login, or forget a pinned one.",
    "learn": "Propose the narrowest entries that would have let recorded requests pass.",
    "replay": "Show which recorded requests a policy would decide differently.",
    "log": "Show what was decided, from the audit log.",
    "runs": "List the runs: name, program, start, exit code, denials.",
    "status": "Show what runs: proxies, runs and containers, and what they allow now.",
    "reload": "Make a running proxy read its policy again.",
    "stop": "Stop a running proxy, run or container.",
    "changes": "Show what a run did in its clone of the project.",
    "take": "Bring the commits of a clone over into the project.",
    "clones": "List the clones that runs worked in, or remove one.",
    "env": "Print the variables that make a client use the proxy.",
    "relay": "Relay connections between TCP and Unix sockets.",
    "service": "Install the proxy as a service of systemd or launchd.",
    "doctor": "Check the installation, its clients or its sandbox.",
    "ca": "Show, export, rotate or trust the proxy's CA.",
    "presets": "List the presets, or print one.",
    "policies": "List the policies, or print one.",
    "import": "Convert another program's policies to policy files.",
    "schema": "Print the JSON Schema of a policy file, or of config.yaml.",
    "completion": "Print the shell's completion script.",
    "help": "Show the help of a command.",
}

EPILOG = """\b
Examples:
  claude-proxy                                 listen on 127.0.0.1:9051
  claude-proxy --port 9052 --allowlist my.yaml
  claude-proxy check https://github.com/       allowed or denied, and by which rule
  claude-proxy log --denied --since 1h
  eval "$(claude-proxy env)"; claude           Claude Code through the proxy
  claude-proxy gateway --provider anthropic    the API, with the key added, on 127.0.0.1:9000
  claude-proxy config show                     every setting, and what set it

Without a command, `serve` runs: see `claude-proxy serve --help` for its options.
"""


def module_of(command: str) -> str:
    """Return the name of the module that a command is in."""
    # `import` cannot be the name of a module.
    return "claude_proxy.cli." + {"import": "import_policies"}.get(command, command)


class Commands(LazyGroup):
    """All commands; the first word may be left out, and is then `serve`."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing:
            _prepare_start(args)
        return super().resolve_command(ctx, args)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args and ctx.resilient_parsing:
            return super().parse_args(ctx, args)  # completing the first word
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = super().shell_complete(ctx, incomplete)
        default = self.get_command(ctx, DEFAULT_COMMAND)
        if default is not None and incomplete.startswith("-"):
            items += default.shell_complete(click.Context(default), incomplete)
        return items


def _prepare_start(args: list[str]) -> None:
    """Begin early what a start needs, before its options are read."""
    makes_container = args[:2] == _CONTAINER_RUN
    if args[0] in _STARTS or makes_container:
        # Until COMMAND runs, or the proxy serves: nearly all that a start makes, it keeps.
        gc.disable()
    else:
        gc.enable()
    if args[0] == "run" or makes_container:
        waiting_process.expect(args[2 if makes_container else 1 :], os.environ)


@click.command(
    cls=Commands,
    texts=COMMANDS,
    module_of=module_of,
    name=PROGRAM,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def cli() -> None:
    """Keep Claude Code and other coding agents to the hosts that an allowlist names.

    The proxy decrypts what its clients send, checks every connection and request against one
    allowlist, denies everything else and records each decision.
    """


def start_proxy(settings: "Settings") -> int:
    """Run the proxy until it is stopped, and end the process; ClaudeProxyError if it fails."""
    from claude_proxy.server.app import serve  # noqa: PLC0415 - imports mitmproxy when it is run

    code = serve(settings)
    # Everything is closed and written. The interpreter's own end takes a second on a busy machine,
    # and would wait for any thread.
    os._exit(code)


def main(arguments: Sequence[str] | None = None, *, start: StartProxy = start_proxy) -> int:
    """Run one command line and return its exit code; print every failure, raise none."""
    _fill_closed_descriptors()
    try:
        return _printing(arguments, start)
    except BrokenPipeError:
        # The reader (`head`, a closed pager) has seen enough.
        _drop_output()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ClaudeProxyError as error:
        shown = file_shortage.explained(error) or error
        _print_error(shown.lines())
        return shown.exit_code
    except click.ClickException as error:
        _print_usage_error(error)
        return error.exit_code
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _report_unexpected(error)
    finally:
        waiting_process.discard()
        gc.enable()


def _report_unexpected(error: Exception) -> int:
    """Print an error that nothing has explained; return the exit code."""
    if (shortage := file_shortage.explained(error)) is not None:
        _print_error(shortage.lines())
        return shortage.exit_code
    # Not the message: it may quote a secret.
    _print_error(
        [
            f"error: internal error ({type(error).__name__}); this is a bug of {PROGRAM}",
            f"  fix:   set {DEBUG_VARIABLE}=1 to see the traceback, and report it",
        ]
    )
    return EXIT_INTERNAL


class OutputError(ClaudeProxyError):
    """The output of a command could not be written."""

    exit_code = EXIT_OUTPUT


def _printing(arguments: Sequence[str] | None, start: StartProxy) -> int:
    """Run one command line; raise OutputError if its output cannot be written."""
    try:
        return _run(arguments, start)
    except BrokenPipeError:
        raise
    except OSError as error:
        if not _is_of_output(error):
            raise
        _drop_output()
        raise OutputError(
            f"the output cannot be written: {(error.strerror or '').lower()}",
            where="standard output",
            fix="check where it leads to: the disk may be full",
        ) from error


def _is_of_output(error: OSError) -> bool:
    """Tell whether printing failed, and not something that the command itself did."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    codes = {click.echo.__code__, _run.__code__}
    return innermost is not None and innermost.tb_frame.f_code in codes


def _drop_output() -> None:
    """Discard what is still buffered.

    Writing it would fail again, with a message, when the interpreter flushes at its exit.
    """
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fill_closed_descriptors() -> None:
    """Open /dev/null for the standard streams that the caller has closed (`>&-`).

    Otherwise the next file or socket would get their numbers, and what is printed to them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Python has no stream object where the descriptor was closed at its start.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _run(arguments: Sequence[str] | None, start: StartProxy) -> int:
    # Not click's own `main`, which exits the process; this one must return.
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        return shell_complete(cli, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with cli.make_context(PROGRAM, given, obj=start) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as stop:
        result = stop.exit_code
    except (click.Abort, EOFError) as abort:
        raise KeyboardInterrupt from abort
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _print_usage_error(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    # click spreads the choices of an argument over lines.
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    fix = f"see `{context.command_path} --help`" if isinstance(context, click.Context) else None
    if isinstance(error, click.NoSuchOption):
        message = f"no such option {error.option_name}"
        fix = _option_meant(error) or fix
    elif isinstance(error, click.BadParameter) and _is_flag(error.param):
        # click lists every spelling that it takes, the empty one first.
        message = f"{message.rpartition(' is not a valid boolean')[0]} is not true or false"
        fix = "write true or false (1 or 0, yes or no, on or off are taken, too)"
    lines = [f"error: {_lower_first(message)}"]
    if fix is not None:
        lines.append(f"  fix:   {fix}")
    _print_error(lines)


def _is_flag(param: click.Parameter | None) -> bool:
    return param is not None and isinstance(param.type, click.types.BoolParamType)


def _option_meant(error: click.NoSuchOption) -> str | None:
    """Return the fix that names the option most like one that does not exist."""
    from claude_proxy.config.strict_yaml.fields import nearest  # noqa: PLC0415 - few are mistyped

    if error.ctx is None:
        return None
    params = error.ctx.command.get_params(error.ctx)
    options = [param for param in params if isinstance(param, click.Option) and not param.hidden]
    known = [name for each in options for name in (*each.opts, *each.secondary_opts)]
    return nearest(error.option_name, [name for name in known if name.startswith("--")])


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:].removesuffix(".")


def _print_error(lines: Sequence[str]) -> None:
    """Print each error with the program's name before it, and its details indented."""
    for line in lines:
        text = f"{PROGRAM}: {line}" if line.startswith("error:") else line
        with contextlib.suppress(OSError):  # where nobody can read it, the exit code is left
            click.echo(_coloured(text, sys.stderr), err=True)


def _coloured(line: str, stream: TextIO) -> str:
    """Return `line` with its "error:" in red if `stream` is a terminal that wants colour."""
    if not wants_colour(stream):
        return line
    return line.replace("error:", click.style("error:", fg="red", bold=True), 1)


def wants_colour(stream: TextIO) -> bool:
    """Tell whether to colour what is printed to `stream` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
