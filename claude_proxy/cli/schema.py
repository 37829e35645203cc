"""The command `schema`: prints the JSON Schema of a policy file or of config.yaml, for editors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import paths
from claude_proxy.cli.shared_options import confdir_option
from claude_proxy.config import config_schema
from claude_proxy.config.allowlist import schema as policy_schema
from claude_proxy.config.file_states import PRESETS
from claude_proxy.config.owner_files import OwnerFiles

EXAMPLES = """\b
Save them once, and begin your files with the line that YAML editors look for:
  claude-proxy schema > ~/.config/claude-proxy/allowlist.schema.json
  # yaml-language-server: $schema=allowlist.schema.json
  claude-proxy schema config > ~/.config/claude-proxy/config.schema.json
  # yaml-language-server: $schema=config.schema.json
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Choice(["allowlist", "config"]), default="allowlist")
@confdir_option("the directory presets/")
def command(file: str, *, confdir: Path | None) -> int:
    """Print the JSON Schema of a policy file, or of config.yaml."""
    click.echo(json.dumps(_schema_of(file, confdir), indent=2))
    return 0


def _schema_of(file: str, confdir: Path | None) -> Mapping[str, Any]:
    if file == "config":
        return config_schema.schema()
    own = OwnerFiles(confdir or paths.default_confdir()).own_names(PRESETS)
    return policy_schema.schema(own)
