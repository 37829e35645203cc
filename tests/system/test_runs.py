"""A run is named only by who can read its token."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from claude_proxy.system.runs import (
    RECORD,
    TOKEN_FILE,
    LivingRun,
    base_of,
    bases_of,
    is_name,
    living_run,
    living_runs,
    proves_run,
    shown_name,
)

TOKEN = "ab" * 32


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "claude-proxy"
    folder = directory / "blue.fox.0123456789abcdef"
    folder.mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (folder / TOKEN_FILE).write_text(TOKEN)
    return directory


def test_a_token_proves_the_run_that_it_belongs_to(base: Path) -> None:
    assert proves_run(base, "blue.fox", TOKEN)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("blue.fox", "cd" * 32),
        ("blue.fox", ""),
        ("blue.fox", TOKEN[:-1]),
        ("blue.fox", "é" * 64),
        ("blue", TOKEN),
        ("red", TOKEN),
        ("", TOKEN),
        ("../claude-proxy/blue", TOKEN),
        ("x" * 300, TOKEN),
    ],
)
def test_anything_else_proves_nothing(base: Path, name: str, token: str) -> None:
    assert not proves_run(base, name, token)


def test_a_token_that_is_being_written_proves_nothing(base: Path) -> None:
    for held in ("", TOKEN[:10]):
        (base / "blue.fox.0123456789abcdef" / TOKEN_FILE).write_text(held)
        assert not proves_run(base, "blue.fox", held)


def test_without_the_directory_nothing_is_proved(tmp_path: Path) -> None:
    assert not proves_run(tmp_path / "missing", "blue.fox", TOKEN)


def test_a_directory_that_others_may_enter_proves_nothing(base: Path) -> None:
    base.chmod(0o755)

    assert not proves_run(base, "blue.fox", TOKEN)


def test_a_token_is_not_read_through_a_link(base: Path, tmp_path: Path) -> None:
    file = base / "blue.fox.0123456789abcdef" / TOKEN_FILE
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")

    assert not proves_run(base, "blue.fox", TOKEN)


@pytest.mark.parametrize(
    ("text", "valid"), [("a", True), ("a.b-c_1", True), ("", False), (".a", False)]
)
def test_a_name_is_a_readable_file_name(text: str, *, valid: bool) -> None:
    assert is_name(text) is valid


@pytest.mark.parametrize(
    ("text", "shown"), [("g++", "g++"), ("a, run b: c", "a??run?b??c"), ("x" * 99, "x" * 64)]
)
def test_what_a_stranger_says_is_shown_in_harmless_characters(text: str, shown: str) -> None:
    assert shown_name(text) == shown


def test_the_runtime_directory_is_used_if_the_user_owns_it(tmp_path: Path) -> None:
    assert base_of({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "claude-proxy"


@pytest.mark.parametrize("given", ["", "relative/path", "/nowhere/at/all", "/proc/1/fd/none"])
def test_without_a_usable_runtime_directory_one_in_tmp_is_used(given: str) -> None:
    expected = Path(f"/tmp/claude-proxy-{os.geteuid()}")

    assert base_of({"XDG_RUNTIME_DIR": given} if given else {}) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_runtime_directory_of_another_user_is_ignored(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)

    assert base_of({"XDG_RUNTIME_DIR": str(tmp_path)}).parent == Path("/tmp")


def test_a_service_of_the_system_uses_the_directory_that_its_unit_gives_it(tmp_path: Path) -> None:
    given = {"RUNTIME_DIRECTORY": f"{tmp_path}:/other"}

    assert base_of(given) == tmp_path / "claude-proxy"
    assert base_of(given | {"XDG_RUNTIME_DIR": "/nonexistent"}) == base_of({})


def test_proxies_are_looked_for_wherever_one_of_this_user_may_be() -> None:
    usual = Path(f"/run/user/{os.geteuid()}")

    found = bases_of({})

    assert found[0] == base_of({})
    assert usual / "claude-proxy" in found
    assert len(set(found)) == len(found)


def test_who_names_a_directory_means_that_one_alone(tmp_path: Path) -> None:
    given = {"XDG_RUNTIME_DIR": str(tmp_path)}

    assert bases_of(given) == (tmp_path / "claude-proxy",)


def record(base: Path, text: str) -> int:
    """Write the record of a run, locked as a living launcher has it; return its descriptor."""
    path = base / "blue.fox.0123456789abcdef" / RECORD
    path.write_text(text)
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_run_lives_as_long_as_its_record_is_locked(base: Path) -> None:
    facts = {"name": "blue.fox", "project": "/code", "terminal": "/dev/pts/9"}
    descriptor = record(base, json.dumps(facts) + "\n")
    known = LivingRun("blue.fox", "blue.fox.0123456789abcdef", "/code", "/dev/pts/9")

    assert living_run(base, "blue.fox") == known
    assert list(living_runs(base)) == [known]
    assert living_run(base, "other") is None
    assert living_run(base, "../etc") is None
    os.close(descriptor)
    assert living_run(base, "blue.fox") is None


@pytest.mark.parametrize("text", ["", "no json\n", "[]\n"])
def test_a_record_that_cannot_be_read_is_of_no_run(base: Path, text: str) -> None:
    descriptor = record(base, text)

    assert living_run(base, "blue.fox") is None
    os.close(descriptor)


def test_runs_in_a_directory_that_others_can_enter_are_of_nobody(base: Path) -> None:
    descriptor = record(base, json.dumps({"name": "blue.fox"}) + "\n")
    base.chmod(0o755)

    assert list(living_runs(base)) == []
    assert list(living_runs(base / "nowhere")) == []
    os.close(descriptor)
