"""Command `schema`: prints the JSON Schema of a policy file, for editors."""

import json

import click

from claude_proxy.config.allowlist.schema import schema

EXAMPLES = """\b
Save it once, and begin your allowlist with the line that YAML editors look for:
  claude-proxy schema > ~/.config/claude-proxy/allowlist.schema.json
  # yaml-language-server: $schema=allowlist.schema.json
"""


@click.command(epilog=EXAMPLES)
def command() -> int:
    """Print the JSON Schema of the allowlist file."""
    click.echo(json.dumps(schema(), indent=2))
    return 0
