"""What settings of Git name is found by Git's own rules, and a plain value names nothing."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.plan.git_settings import (
    HOOKS,
    Places,
    Setting,
    named_files,
    named_paths,
    settings_in,
)

TOP = Path("/home/ann/repo")
PROJECT = TOP / "part"
PLACES = Places(PROJECT, TOP, Path("/home/ann"))


def test_a_listing_is_read_with_its_origins() -> None:
    listing = (
        b"file:.git/config\0core.hookspath\nhooks dir\0"
        b"file:/home/ann/.gitconfig\0alias.x\n!a\nb\0"
        b"command line:\0core.bare\0"
    )

    assert list(settings_in(listing, TOP)) == [
        Setting("core.hookspath", "hooks dir", TOP / ".git/config"),
        Setting("alias.x", "!a\nb", Path("/home/ann/.gitconfig")),
        Setting("core.bare", ""),
    ]


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        (Setting("core.hookspath", "part/hooks"), PROJECT / "hooks"),
        (Setting("core.hookspath", "~/repo/part/hooks"), PROJECT / "hooks"),
        (Setting("core.attributesfile", "part/attributes"), PROJECT / "attributes"),
        (Setting("init.templatedir", "part/template"), PROJECT / "template"),
        (Setting("include.path", "../part/c", TOP / ".git/config"), PROJECT / "c"),
        (Setting("includeif.onbranch:x.path", "../part/c", TOP / ".git/config"), PROJECT / "c"),
    ],
)
def test_a_setting_that_is_a_path_names_it_whether_it_exists_or_not(
    setting: Setting, path: Path
) -> None:
    assert path in set(named_paths([setting], PLACES))


def test_a_file_that_settings_are_in_counts() -> None:
    assert PROJECT / "c" in set(named_paths([Setting("x.y", "z", PROJECT / "c")], PLACES))


def test_of_hooks_in_the_root_only_the_hooks_count() -> None:
    found = set(named_paths([Setting("core.hookspath", "part")], PLACES))

    assert found == {PROJECT / hook for hook in HOOKS}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("core.fsmonitor", "part/x.sh"),
        ("filter.a.clean", "python3 part/x.sh %f"),
        ("filter.a.process", "'part/x.sh' --fast"),
        ("diff.a.textconv", "sh -c 'part/x.sh'"),
        ("merge.a.driver", "FOO=1 part/x.sh %O %A"),
        ("alias.go", "!part/x.sh; true"),
        ("core.sshcommand", "ssh -F part/x.sh"),
        ("credential.https://forge.test.helper", "!f() { part/x.sh; }; f"),
        ("remote.origin.uploadpack", "part/x.sh"),
        ("hook.later.command", "part/x.sh"),
        ("some.setting.of.tomorrow", "part/x.sh"),
        ("core.pager", "x.sh"),
    ],
)
def test_a_script_that_a_setting_runs_is_named(key: str, value: str) -> None:
    assert PROJECT / "x.sh" in set(named_files([Setting(key, value)], PLACES))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user.name", "part/x.sh"),
        ("branch.main.remote", "part/x.sh"),
        ("remote.origin.url", "part/x.sh"),
        ("alias.l", "log part/x.sh"),
        ("core.excludesfile", "part/x.sh"),
    ],
)
def test_a_value_that_is_no_program_names_none(key: str, value: str) -> None:
    assert not set(named_files([Setting(key, value)], PLACES))


def test_a_value_with_an_open_quote_is_read_all_the_same() -> None:
    found = set(named_files([Setting("core.editor", "part/x.sh 'open")], PLACES))

    assert PROJECT / "x.sh" in found
