"""The command `schema`: prints the JSON Schema of a policy file or of config.yaml, for editors."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from claude_proxy.config import config_schema
from claude_proxy.config.allowlist import schema as policy_schema

EXAMPLES = """\b
Save them once, and begin your files with the line that YAML editors look for:
  claude-proxy schema > ~/.config/claude-proxy/allowlist.schema.json
  # yaml-language-server: $schema=allowlist.schema.json
  claude-proxy schema config > ~/.config/claude-proxy/config.schema.json
  # yaml-language-server: $schema=config.schema.json
"""

_SCHEMAS: Mapping[str, Callable[[], Any]] = {
    "allowlist": policy_schema.schema,
    "config": config_schema.schema,
}


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Choice(list(_SCHEMAS)), default="allowlist")
def command(file: str) -> int:
    """Print the JSON Schema of a policy file, or of config.yaml."""
    click.echo(json.dumps(_SCHEMAS[file](), indent=2))
    return 0
