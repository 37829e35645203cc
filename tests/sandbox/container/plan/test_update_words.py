"""An update is one step on an image, with what a package manager needs and no more."""

from pathlib import Path

import pytest

from claude_proxy.config import preset_files
from claude_proxy.sandbox.container.plan import update_words
from claude_proxy.sandbox.container.plan.update_words import (
    ALL_PRESETS,
    MANAGERS,
    containerfile,
    image_tags,
    update_options,
    work_tag,
)


def test_the_command_is_run_as_it_is_without_a_shell() -> None:
    text = containerfile("base", ["apt-get", "install", 'a "b"', "$HOME"], "1000:1000")

    assert text.splitlines() == [
        "FROM base",
        "USER 0:0",
        'RUN ["apt-get", "install", "a \\"b\\"", "$HOME"]',
        "USER 1000:1000",
    ]


def test_a_line_break_in_a_word_begins_no_instruction() -> None:
    assert len(containerfile("base", ["sh", "-c", "a\nFROM evil"], "").splitlines()) == 4


def test_an_update_has_few_capabilities_and_no_raw_sockets() -> None:
    options = update_options(Path("/w/seccomp.json"))

    assert options[:2] == ["--cap-drop", "all"]
    added = options[options.index("--cap-add") + 1].split(",")
    assert not {*added} & {"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
    assert "seccomp=/w/seccomp.json" in options


def test_the_image_that_an_update_begins_with_has_the_name_of_its_work() -> None:
    assert work_tag("update-12ab") == "localhost/claude-proxy-work-update-12ab"


def test_a_container_has_a_newest_image_and_the_one_before() -> None:
    tags = image_tags("Web")

    assert tags["latest"] == "localhost/claude-proxy-container-web:latest"
    assert tags["previous"].endswith(":previous")


@pytest.mark.parametrize("name", ALL_PRESETS)
def test_the_presets_of_package_managers_exist(name: str) -> None:
    assert name in preset_files.names()


def test_every_script_stops_at_the_first_command_that_fails() -> None:
    assert all(one.script.startswith("set -e;") for one in MANAGERS)
    assert update_words.MANAGERS[0].command[:2] == ("/bin/sh", "-c")
