"""The property list starts the same command, keeps it running and holds no secret."""

import plistlib
from dataclasses import replace

import pytest

from claude_proxy.server.service.launchd import plist_of
from tests.server.service import plans


def test_the_command_of_the_list_is_the_plans() -> None:
    plan = replace(plans.SERVE, words=("--jsonl=/Users/a b/<&>.jsonl",))

    agent = plistlib.loads(plist_of(plan, (), home="/Users/a").encode())

    assert agent["ProgramArguments"] == [*plans.PROGRAM, "serve", "--jsonl=/Users/a b/<&>.jsonl"]
    assert agent["Label"] == "claude-proxy"
    assert agent["KeepAlive"] is True
    assert agent["RunAtLoad"] is True
    assert agent["Umask"] == 0o077
    assert agent["StandardErrorPath"] == "/Users/a/Library/Logs/claude-proxy.log"
    assert agent["SoftResourceLimits"]["NumberOfFiles"] >= 2 * plan.connections
    assert "EnvironmentVariables" not in agent


def test_more_words_come_last() -> None:
    agent = plistlib.loads(plist_of(plans.SERVE, ("--key-file=/k",), home="/").encode())

    assert agent["ProgramArguments"][-1] == "--key-file=/k"


def test_a_word_that_no_list_could_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="a unit file cannot contain"):
        plist_of(plans.SERVE, ("a\0",), home="/")
