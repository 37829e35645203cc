"""Nobody is advised to install the program by its name: on the public index it is another one."""

import re

import pytest

from tests.docs import texts

INSTALLER = r"(?:pipx|pip3?|uvx|uv (?:tool|pip|add)|poetry add|pdm add|conda|brew|easy_install)"
BY_NAME = re.compile(
    rf"\b{INSTALLER}\b(?!\s+(?:un)?inject\b|\s+uninstall\b)"  # `pipx inject` names an environment
    r"(?:(?!\.whl|git\+|--from|--spec|`|\.\s|\n)[^;|&])*?"
    r"(?<![\w/.-])claude[-_.]proxy(?![\w/-]|\.[a-z]|\s+uninstall)",
    re.IGNORECASE,
)


def test_no_text_advises_an_installation_by_name() -> None:
    found = {place: BY_NAME.findall(text) for place, text in texts.everything().items()}

    assert {place: names for place, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "advice",
    [
        "pipx install claude-proxy",
        "pip install claude-proxy",
        "pip install --user 'claude-proxy[keyring]'",
        "python -m pip install -U claude_proxy",
        "uvx claude-proxy run -- claude",
        "uv tool install claude-proxy",
        "sudo PIPX_HOME=/opt/pipx pipx install --global claude-proxy==0.1.0",
        "pipx run claude-proxy",
    ],
)
def test_an_installation_by_name_is_found(advice: str) -> None:
    assert BY_NAME.search(advice)


@pytest.mark.parametrize(
    "advice",
    [
        "pipx install dist/claude_proxy-0.1.0-py3-none-any.whl",
        "uv tool install dist/*.whl",
        "uvx --from dist/claude_proxy-0.1.0-py3-none-any.whl claude-proxy run",
        "pipx install git+https://git.example/claude-proxy.git",
        "pipx uninstall claude-proxy",
        "uv tool uninstall claude-proxy",
        "pipx inject claude-proxy keyring",
        "pip install requests. claude-proxy then",
    ],
)
def test_a_file_or_an_address_is_good_advice(advice: str) -> None:
    assert not BY_NAME.search(advice)
