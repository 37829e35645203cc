"""Codex's settings are carried without variables and headers, or not at all."""

import tomllib
from pathlib import Path

import pytest

from claude_proxy.sandbox.plan.agent_settings import filter_of

PROJECT = Path("/src/app")

GOOD = """\
model = "o5"
approval_policy = "on-request"
model_max_output_tokens = 4096
[projects."/src/app"]
trust_level = "trusted"
[projects."/src/other"]
trust_level = "trusted"
[mcp_servers.files]
command = "npx"
args = ["-y", "@scope/server"]
env = { KEY = "SECRET" }
[mcp_servers.docs]
url = "https://mcp.example/x"
bearer_token_env_var = "DOCS_TOKEN"
[mcp_servers.docs.http_headers]
Authorization = "Bearer SECRET"
[shell_environment_policy]
inherit = "core"
set = { GH_TOKEN = "SECRET" }
"""


def carried(text: str) -> tuple[str, tuple[str, ...]] | None:
    filter_ = filter_of(".codex/config.toml", PROJECT, {})
    assert filter_ is not None
    found = filter_(text.encode())
    return None if found is None else (found.content.decode(), found.left_out)


def test_settings_are_carried_without_variables_headers_and_other_projects() -> None:
    found = carried(GOOD)

    assert found is not None
    text, left_out = found
    settings = tomllib.loads(text)
    assert "SECRET" not in text
    assert settings["model"] == "o5"
    assert settings["model_max_output_tokens"] == 4096
    assert list(settings["projects"]) == ["/src/app"]
    assert settings["mcp_servers"]["files"] == {"command": "npx", "args": ["-y", "@scope/server"]}
    assert {"mcp_servers.files.env", "mcp_servers.docs.http_headers"} <= set(left_out)


@pytest.mark.parametrize(
    "text",
    [
        "model = ",
        'x = {token = "SECRET"}',
        '[mcp_servers.a]\ncommand = "x"\nargs = ["--api-key", "SECRET"]',
        '[mcp_servers.a]\nargs = [\n  "ghp_0123456789abcdefghij",\n]',
        "[mcp_servers.a]\nenv = {\n",
        'notify = """\napi_key = "x"\n"""\nother = ["sk-0123"]',
        '[model_providers.a]\nurl = "https://ann:secret@llm.example"\nwire = ["Bearer x"]',
    ],
)
def test_a_file_in_which_a_secret_may_be_left_is_not_carried(text: str) -> None:
    found = carried(text)

    assert found is None


def test_a_key_that_may_be_secret_is_left_out_and_named() -> None:
    found = carried('model = "o5"\nexperimental_bearer_token = "SECRET"\n')

    assert found == ('model = "o5"\n', ("experimental_bearer_token",))
