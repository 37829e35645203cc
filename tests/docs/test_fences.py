"""Examples in the pages hold: files load, commands exist, JSON parses."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from claude_proxy.cli.main import cli
from claude_proxy.config import config_yaml
from claude_proxy.config.allowlist import loader
from claude_proxy.sandbox import profiles
from tests.docs.fences import Fence, fences

LANGUAGES = {
    "console",
    "sh",
    "yaml",
    "json",
    "js",
    "text",
    "toml",
    "{toctree}",
    "{important}",
    "{glossary}",
}
COMMAND = re.compile(
    r"(?:^|[|;&(]|\bsudo |\bexec |\$\()\s*(?:[A-Z_]+=\S*\s+)*claude-proxy\b([^|;&)#\n]*)"
)


def load_policy(text: str, _directory: Path) -> None:
    loader.read(text, name="page.yaml")


def load_policy_among_others(text: str, _directory: Path) -> None:
    """Load a policy that names presets and files of an owner, of which a page shows only names."""
    other = "allow: [host.example]"
    library = loader.Library(
        preset=lambda _name: other,
        include=lambda file, _base: loader.Included(file, other, file),
    )
    loader.read(text, name="page.yaml", library=library)


def load_profile(text: str, directory: Path) -> None:
    (directory / "claude.yaml").write_text(text, "utf-8")
    profiles.load("claude", directory)


def load_config(text: str, directory: Path) -> None:
    config_yaml.load(text, directory / "config.yaml", directory)


def load_project(text: str, directory: Path) -> None:
    loader.load_narrowing(text, name="page.yaml")
    path = directory / profiles.PROJECT_FILE
    path.write_text(text, "utf-8")
    profiles.read_restrictions(path)


LOADERS: dict[str, Callable[[str, Path], None]] = {
    "policy": load_policy,
    "profile": load_profile,
    "project": load_project,
    "config": load_config,
    "policy-among-others": load_policy_among_others,
}


def named(*languages: str) -> list[object]:
    return [pytest.param(fence, id=str(fence)) for fence in fences(*languages)]


def test_every_fence_has_a_language_that_is_tested_or_known() -> None:
    assert [str(fence) for fence in fences() if fence.language not in LANGUAGES] == []


@pytest.mark.parametrize("fence", named("yaml"))
def test_a_yaml_example_loads_as_the_file_it_is(fence: Fence, tmp_path: Path) -> None:
    LOADERS[fence.kind](fence.text, tmp_path)


@pytest.mark.parametrize("fence", named("json"))
def test_a_json_example_parses(fence: Fence) -> None:
    assert json.loads(fence.text)


@pytest.mark.parametrize("fence", named("sh"))
def test_a_shell_example_parses(fence: Fence) -> None:
    done = subprocess.run(
        ["sh", "-n"], input=fence.text, text=True, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("fence", named("sh", "console", "text"))
def test_every_command_and_option_in_an_example_exists(fence: Fence) -> None:
    lines = fence.text.replace("\\\n", " ").splitlines()
    if fence.language != "sh":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        for words in COMMAND.findall(line):
            assert unknown_words(re.sub("['\"]", " ", words).split()) == []


def unknown_words(words: list[str]) -> list[str]:
    """Return the commands and options among `words` that claude-proxy does not have."""
    command: click.Command = cli
    context = click.Context(cli, info_name="claude-proxy", **cli.context_settings)
    known: set[str] = set()
    wrong: list[str] = []
    if words[:1] and words[0].startswith("-") and words[0] not in {"--version", "--help"}:
        words = ["serve", *words]
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and word != "-":
            names = {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
            if word.split("=")[0] not in names | known | {"-h", "--help"}:
                wrong.append(word)
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                wrong.append(word)
                break
            context = click.Context(inner, parent=context, info_name=word)
            command = inner
    return wrong


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["runn", "--", "claude"], ["runn"]),
        (["check", "--bdoy", "x"], ["--bdoy"]),
        (["--port", "9052"], []),
        (["run", "--", "claude", "--model", "x"], []),
        (["service", "instal"], ["instal"]),
    ],
)
def test_a_word_that_does_not_exist_is_found(words: list[str], wrong: list[str]) -> None:
    assert unknown_words(words) == wrong
