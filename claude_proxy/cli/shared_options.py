"""Options about the owner's files, for the commands that read or write them.

Precedence: option, CLAUDE_PROXY_* variable, config.yaml, default.
"""

from pathlib import Path

import click
from click.core import ParameterSource

from claude_proxy.cli import options
from claude_proxy.cli.options import Decorator
from claude_proxy.config.option_table import Subcommand


def allowlist_option(text: str) -> Decorator:
    """Return `--allowlist`, passed on as `allowlist_file`."""
    return options.option("allowlist", Subcommand.SERVE, parameter="allowlist_file", text=text)


def policy_option(text: str) -> Decorator:
    """Return `--policy`, passed on as `policy_name`."""
    return options.option("policy", Subcommand.SERVE, parameter="policy_name", text=text)


def statedir_option(text: str) -> Decorator:
    """Return `--statedir`, passed on as `statedir`."""
    text += "  [default: ~/.local/state/claude-proxy]"
    return options.option("statedir", Subcommand.SERVE, text=text)


def confdir_option(kept: str, *, reads_config: bool = True) -> Decorator:
    """Return `--confdir`, where `kept` is kept among other things.

    It makes the values of config.yaml the defaults of the other options, unless told not to.
    """
    return click.option(
        "--confdir",
        envvar="CLAUDE_PROXY_CONFDIR",
        show_envvar=True,
        is_eager=True,
        callback=options.load_config if reads_config else None,
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help=f"Where {kept} is kept.  [default: ~/.config/claude-proxy]",
    )


def confdir_as_given(context: click.Context) -> tuple[str, ...]:
    """Return `--confdir` as it was given on the command line, for a command that is advised.

    None for the variable, which holds for that command, too.
    """
    given = context.get_parameter_source("confdir") is ParameterSource.COMMANDLINE
    return ("--confdir", str(context.params["confdir"])) if given else ()
