"""Groups of commands: a name that no command has is answered with the one that is meant.

Nothing is run but what was typed: a near miss is named, never taken.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, override

import click
from click.shell_completion import CompletionItem

from claude_proxy.errors import ConfigError

PROGRAM = "claude-proxy"

# What people type who know other programs, and what it is called here.
_OTHER_NAMES: Mapping[str, str] = {
    "deny": "write the host below deny: in the policy file; `allow --remove` takes an entry out",
    "disallow": "run `claude-proxy allow --remove HOST`",
    "exec": "run `claude-proxy run -- COMMAND`",
    "install": "run `claude-proxy service install`",
    "logs": "run `claude-proxy log`",
    "proxy": "run `claude-proxy serve`",
    "remove": "run `claude-proxy allow --remove HOST`",
    "rotate": "run `claude-proxy ca rotate`",
    "sandbox": "run `claude-proxy run -- COMMAND`",
    "shell": "run `claude-proxy run --shell`",
    "start": "run `claude-proxy serve`, or `claude-proxy service install`",
    "kill": "run `claude-proxy stop NAME`",
    "ps": "run `claude-proxy status`",
    "test": "run `claude-proxy check URL`, or `claude-proxy doctor`",
    "trust": "run `claude-proxy ca trust`",
    "uninstall": "run `claude-proxy service uninstall`",
    "version": "run `claude-proxy --version`",
}


class Group(click.Group):
    """A group that names the command that was meant."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        is_option = name.startswith("-")
        if ctx.resilient_parsing or is_option or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        from claude_proxy.config.strict_yaml.nodes import harmless  # noqa: PLC0415 - see _fix_of

        raise ConfigError(
            f'there is no command "{harmless(name)}"',
            where=ctx.command_path,
            fix=self._fix_of(ctx, name),
        )

    def _fix_of(self, ctx: click.Context, name: str) -> str:
        # Both import YAML, which no command that is spelled right should wait for.
        from claude_proxy.config.strict_yaml.fields import nearest  # noqa: PLC0415
        from claude_proxy.config.strict_yaml.nodes import harmless  # noqa: PLC0415

        known = self.list_commands(ctx)
        meant = nearest(name.lower(), known)
        if meant is not None:
            return meant
        if ctx.parent is None:
            if name.lower() in _OTHER_NAMES:
                return _OTHER_NAMES[name.lower()]
            import shutil  # noqa: PLC0415 - as above

            if shutil.which(name) is not None:
                return f"to run {harmless(name)} in a sandbox: {PROGRAM} run -- {harmless(name)}"
        return f"use one of {', '.join(known)}" if ctx.parent else f"see `{PROGRAM} --help`"


class LazyGroup(Group):
    """A group whose commands are modules, imported when they are invoked.

    `texts` are the one-line descriptions by command, so that no command is imported to be listed;
    `module_of` names the module whose `command` it is.
    """

    def __init__(
        self, *, texts: Mapping[str, str], module_of: Callable[[str], str], **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self._texts = texts
        self._module_of = module_of

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._texts)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._texts:
            return None
        command: click.Command = import_module(self._module_of(cmd_name)).command
        return command

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [
            CompletionItem(name, help=text)
            for name, text in self._texts.items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._texts.items()))
