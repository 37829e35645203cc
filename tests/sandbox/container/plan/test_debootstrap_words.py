"""Command lines of debootstrap check signatures, and take no option for a suite."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.debootstrap_words import (
    archive_words,
    debootstrap_words,
    mmdebstrap_words,
    refuse_odd_suite,
)

ROOT = Path("/w/root")


def test_signatures_are_always_checked() -> None:
    words = debootstrap_words("debootstrap", "trixie", ROOT, "http://m.example/debian")

    assert "--force-check-gpg" in words
    assert "--no-check-gpg" not in words
    assert words[-3:] == ["trixie", "/w/root", "http://m.example/debian"]


def test_without_a_mirror_the_program_has_its_own() -> None:
    assert debootstrap_words("debootstrap", "stable", ROOT, None)[-1] == "/w/root"
    assert mmdebstrap_words("mmdebstrap", "stable", Path("/w/a.tar"), None)[-1] == "/w/a.tar"


def test_an_archive_carries_nothing_of_the_machine_that_made_it() -> None:
    words = archive_words(ROOT, Path("/w/a.tar"))

    assert {"--exclude=./etc/resolv.conf", "--exclude=./etc/hostname"} <= {*words}
    assert "--one-file-system" in words


@pytest.mark.parametrize("suite", ["", "-x", "--help", "a b", "../x", "Trixie", "x;y", "a" * 40])
def test_what_is_no_suite_is_refused(suite: str) -> None:
    with pytest.raises(ConfigError, match="suite"):
        refuse_odd_suite(suite)


@pytest.mark.parametrize("suite", ["stable", "trixie", "noble", "bookworm-backports"])
def test_suites_are_taken(suite: str) -> None:
    refuse_odd_suite(suite)
