"""README names everything that a user can meet, and promises nothing that is not there."""

import re
from pathlib import Path

import click
import pytest

from claude_proxy.cli import gateway, gateway_settings, main, run, serve
from claude_proxy.cli.options import TableOption
from claude_proxy.config import config_yaml
from claude_proxy.config.allowlist import loader
from claude_proxy.config.providers import PROVIDER_KEYS
from claude_proxy.policy.reason import Reason
from claude_proxy.sandbox import profiles

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")

OPTIONS = serve.command.params
OPTIONS_OF_RUN = [
    option
    for option in run.command.params
    if isinstance(option, click.Option)
    and not option.hidden
    and (not isinstance(option, TableOption) or option.field.section == "run")
]
OPTIONS_OF_GATEWAY = [
    option
    for option in gateway.command.params
    if isinstance(option, TableOption) and option.field.section == "gateway"
]
TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def sections() -> dict[str, str]:
    """Return the text of each section of README by its heading."""
    parts = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def keys_of(schema: object) -> set[str]:
    """Return the names of every property in a JSON Schema, wherever it stands."""
    if isinstance(schema, list):
        return set().union(*map(keys_of, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return set(own).union(*map(keys_of, schema.values()))


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"`claude-proxy {name}" in sections()["Commands"]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_every_option_of_serve_is_documented_with_its_variable(option: click.Parameter) -> None:
    variable = f"`{option.envvar}` " if option.envvar else ""

    assert f"| `{option.opts[0]}` | {variable}|" in sections()["Options of serve"]


def test_no_option_of_serve_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^\| `(--[a-z-]+)` \|", sections()["Options of serve"], re.MULTILINE)

    assert set(documented) == {option.opts[0] for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS_OF_RUN, ids=lambda option: str(option.name))
def test_every_option_of_run_is_documented(option: click.Option) -> None:
    text = sections()["Options of run"]
    [table] = re.findall(r"^\| option .*?\n\n", text, re.MULTILINE | re.DOTALL)

    assert f"`{option.opts[-1]}`" in table


def test_no_option_of_run_is_documented_that_is_not_there() -> None:
    cells = re.findall(r"^\| (`-.*?) \|", sections()["Options of run"], re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`(--[a-z-]+)`", cell)}

    assert documented <= {name for option in run.command.params for name in option.opts}


@pytest.mark.parametrize("option", OPTIONS_OF_GATEWAY, ids=lambda option: str(option.name))
def test_every_option_of_gateway_is_documented_with_its_variable(option: click.Option) -> None:
    assert f"| `{option.opts[0]}` | `{option.envvar}` |" in sections()["Options of gateway"]


def test_no_option_of_gateway_is_documented_that_is_not_there() -> None:
    section = sections()["Options of gateway"]
    documented = re.findall(r"^\| `(--[a-z-]+)` \|", section, re.MULTILINE)

    assert set(documented) == {option.opts[0] for option in OPTIONS_OF_GATEWAY}


@pytest.mark.parametrize("variable", gateway_settings.VARIABLES)
def test_every_variable_of_the_seed_is_documented(variable: str) -> None:
    assert f"| `{variable}` |" in sections()["Options of gateway"]


@pytest.mark.parametrize("key", [*PROVIDER_KEYS, "providers"])
def test_every_key_of_gateway_yaml_is_documented(key: str) -> None:
    assert f"| `{key}` |" in sections()["Providers"]


def test_the_example_of_gateway_yaml_loads() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", sections()["Providers"], re.DOTALL)

    assert config_yaml.load_gateway(example, Path("gateway.yaml"), None).providers


@pytest.mark.parametrize("profile", profiles.SHIPPED)
def test_every_profile_is_documented(profile: str) -> None:
    assert f"| `{profile}` |" in sections()["Profiles"]


def test_the_example_profile_loads(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", sections()["Profiles"], re.DOTALL)
    (tmp_path / "claude.yaml").write_text(example, "utf-8")

    profile = profiles.load("claude", tmp_path)

    assert {"OUR_TOKEN", "ANTHROPIC_API_KEY"} <= set(profile.pass_env)
    assert set(re.findall(r"^([a-z_]+):", example, re.MULTILINE)) == set(profiles._PROFILE_KEYS)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_documented(reason: Reason) -> None:
    assert f"| `{reason.value}` |" in sections()["Denials"]


def test_no_reason_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \|", sections()["Denials"], re.MULTILINE)

    assert set(documented) == set(Reason)


@pytest.mark.parametrize("key", sorted(keys_of(loader.schema())))
def test_every_key_of_the_allowlist_is_documented(key: str) -> None:
    assert f"| `{key}` |" in sections()["The allowlist"]


def test_no_key_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^\| `([a-z_]+)` \|", sections()["The allowlist"], re.MULTILINE)

    assert set(documented) == keys_of(loader.schema())


def test_the_examples_of_the_allowlist_load() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", sections()["The allowlist"], re.DOTALL)

    policies = [loader.load(example, name="README.md") for example in examples]

    assert "docs.python.org" in set(policies[0].hosts())
    assert any(policy.credentials for policy in policies)
    assert any(policy.restrictions and not policy.allow for policy in policies)


@pytest.mark.parametrize("preset", loader.presets(), ids=lambda preset: preset.name)
def test_every_preset_is_documented(preset: loader.Preset) -> None:
    assert f"`{preset.name}`" in sections()["Presets"]


@pytest.mark.parametrize("target", re.findall(r"`make ([a-z0-9-]+)", README))
def test_every_make_target_of_readme_is_there(target: str) -> None:
    assert target in TARGETS


def test_every_link_inside_readme_leads_somewhere() -> None:
    headings = re.findall(r"^##+ (.+)$", README, re.MULTILINE)
    plain = (re.sub(r"[^a-z0-9 -]", "", heading.lower()) for heading in headings)
    anchors = {heading.replace(" ", "-") for heading in plain}

    assert set(re.findall(r"\]\(#([^)]+)\)", README)) - anchors == set()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert re.findall(r"^## (.+)$", changelog, re.MULTILINE)[0] == "[Unreleased]"
