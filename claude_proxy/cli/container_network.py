"""Options and settings of the proxy that images are built and updated through."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import click

from claude_proxy.cli import options
from claude_proxy.cli.run import settings_of
from claude_proxy.config.option_table import Subcommand
from claude_proxy.config.settings import Settings
from claude_proxy.sandbox.signals import Interrupted, Interruptions

# Which way out the proxy takes, and where it records. What it allows is the work's own.
_KEYS = (
    "confdir",
    "statedir",
    "upstream_proxy",
    "no_upstream_proxy",
    "upstream_ca",
    "resolve",
    "audit_days",
    "audit_failure",
    "audit_size",
)
_HIDDEN = frozenset({"audit_days", "audit_failure", "audit_size"})  # of config.yaml


def network_options(function: Any) -> Any:
    """Add the options about the proxy of a build to a command."""
    decorators = [
        options.option(key, Subcommand.RUN, hidden=key in _HIDDEN) for key in reversed(_KEYS)
    ]
    return reduce(lambda done, decorate: decorate(done), decorators, function)


def network_settings(context: click.Context, given: dict[str, Any]) -> Settings:
    """Return the settings of the proxy, and take its options out of `given`."""
    values: Mapping[str, Any] = options.in_force(context, given)
    own = {name: values[name] for name in _KEYS}
    for name in _KEYS:
        del given[name]
    return settings_of({**_UNSET, **own}, options.config_of(context), gateway={"gateway": ()})


_UNSET: Mapping[str, Any] = {"policy": None, "allowlist": None, "cadir": None}


def until_interrupted(work: Callable[[], int]) -> int:
    """Do what may take minutes; a signal ends it in order, and is the exit code (128+n)."""
    with Interruptions():
        try:
            return work()
        except Interrupted as interrupted:
            return 128 + interrupted.number
