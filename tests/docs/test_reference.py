"""The reference names everything that a user can meet, and nothing that does not exist."""

import re

import click
import pytest
import yaml

from claude_proxy.cli import gateway_settings
from claude_proxy.cli.main import cli
from claude_proxy.config.allowlist.schema import schema
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy import dialer
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.plan.profile_parser import PROFILE_KEYS
from tests.docs import texts
from tools import reference

PAGES = {
    name.removeprefix("docs/"): text
    for name, text in texts.pages().items()
    if name.startswith("docs/")
}
REASONS = yaml.safe_load(reference.REASONS.read_text("utf-8"))


@pytest.mark.parametrize("name", reference.pages())
def test_a_page_of_the_reference_is_what_the_program_says_now(name: str) -> None:
    assert PAGES[f"reference/{name}"] == reference.pages()[name], "make reference"


def test_every_command_and_option_is_in_the_reference() -> None:
    page = PAGES["reference/commands.md"]
    context = click.Context(cli, info_name="claude-proxy", **cli.context_settings)

    for name in cli.list_commands(context):
        assert f"## claude-proxy {name}\n" in page
        command = cli.get_command(context, name)
        assert command is not None
        options = [part for part in command.params if isinstance(part, click.Option)]
        section = page.partition(f"## claude-proxy {name}\n")[2].partition("\n## ")[0]
        for option in options:
            assert option.hidden or f"`{option.opts[0]}`" in section
            assert option.hidden or not isinstance(option.envvar, str) or option.envvar in section


def test_every_reason_is_explained_with_what_to_do() -> None:
    assert set(map(str, Reason)) - set(REASONS) == set()
    assert all(entry["means"] and entry["do"] for entry in REASONS.values())


def test_every_reason_of_an_upstream_that_failed_is_explained() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (texts.PACKAGE / "proxy").rglob("*.py"))
    named = set(re.findall(r'UpstreamError\(\s*"([a-z-]+)"', source))

    named |= {failure.value for failure in dialer.Failure} - {dialer.Failure.DENIED.value}

    assert named - set(REASONS) == set()


def test_no_reason_is_explained_that_does_not_exist() -> None:
    source = "\n".join(path.read_text("utf-8") for path in texts.PACKAGE.rglob("*.py"))

    assert [reason for reason in REASONS if f'"{reason}"' not in source] == []


@pytest.mark.parametrize("profile", profiles.SHIPPED)
def test_every_profile_is_documented(profile: str) -> None:
    assert f"| `{profile}` |" in PAGES["concepts/sandbox.md"]


def test_the_example_profile_shows_every_key() -> None:
    [example] = re.findall(r"```yaml profile\n(.*?)```", PAGES["concepts/sandbox.md"], re.DOTALL)

    assert set(re.findall(r"^([a-z_]+):", example, re.MULTILINE)) == set(PROFILE_KEYS)


@pytest.mark.parametrize("variable", gateway_settings.VARIABLES)
def test_every_variable_of_isoproxy_is_documented(variable: str) -> None:
    assert f"| `{variable}` |" in PAGES["concepts/gateway.md"]


def keys_of(node: object) -> set[str]:
    """Return the names of every property in a JSON Schema, at any depth."""
    if isinstance(node, list):
        return set().union(*map(keys_of, node))
    if not isinstance(node, dict):
        return set()
    own = node.get("properties", {})
    return set(own).union(*map(keys_of, node.values()))


def test_every_key_of_a_policy_file_is_documented() -> None:
    page = PAGES["reference/policy.md"] + PAGES["concepts/credentials.md"]

    assert [key for key in sorted(keys_of(schema())) if f"`{key}`" not in page] == []
