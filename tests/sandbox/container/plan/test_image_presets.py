"""Images of agents have the name of their profile, and are checked by running what is in them."""

import pytest

from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.container.plan.image_presets import (
    PRESETS,
    ImagePreset,
    build_arguments,
)


def test_every_shipped_profile_has_an_image() -> None:
    assert {*PRESETS} == {*profiles.SHIPPED}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_an_image_is_checked_with_its_agent_and_git(preset: ImagePreset) -> None:
    assert ("git", "--version") in preset.checks
    if preset.program is not None:
        assert (preset.program, "--version") in preset.checks


def test_claude_code_sends_no_telemetry_and_does_not_update_itself() -> None:
    found = PRESETS["claude"].environment

    quiet = ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER")
    assert all(found[name] == "1" for name in (*quiet, "DISABLE_ERROR_REPORTING"))


def test_arguments_that_are_not_given_are_the_containerfiles_own() -> None:
    assert build_arguments(PRESETS["shell"]) == {}
    assert build_arguments(PRESETS["claude"], mirror="http://m.example/d") == {
        "APT_MIRROR": "http://m.example/d",
        "NPM_PACKAGES": "@anthropic-ai/claude-code",
    }
