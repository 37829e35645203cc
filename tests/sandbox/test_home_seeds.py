"""What is copied into a home is plain files of a bounded size, whatever lies beside them."""

import json
import os
from pathlib import Path

import pytest

from claude_proxy.sandbox import home_seeds
from claude_proxy.sandbox.home_seeds import copy_seed, read_plain, write_new
from claude_proxy.sandbox.plan.model import AgentHome, Seed


def seeded(source: Path, target: Path, *, name: str = ".tool/x", **changes: object) -> list[str]:
    home = AgentHome(target.parent, target.parent, (".tool/",), **changes)  # type: ignore[arg-type]
    return copy_seed(Seed(name, source), home, target)


def test_a_directory_is_copied_with_times_and_executable_files(tmp_path: Path) -> None:
    source = tmp_path / "skills"
    (source / "a").mkdir(parents=True)
    script = source / "a/run.sh"
    script.write_text("x")
    script.chmod(0o755)
    os.utime(script, ns=(1_000_000_000, 2_000_000_000))

    assert seeded(source, tmp_path / "copy") == []

    copy = tmp_path / "copy/a/run.sh"
    assert copy.read_text() == "x"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert copy.stat().st_mtime_ns == 2_000_000_000


def test_links_pipes_and_sockets_are_not_copied(tmp_path: Path) -> None:
    source = tmp_path / "skills"
    source.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    (source / "link").symlink_to(secret)
    (source / "directory").symlink_to(tmp_path)
    os.mkfifo(source / "pipe")
    (source / "plain").touch()

    [line] = seeded(source, tmp_path / "copy")

    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["plain"]
    assert "2 symbolic links" in line


@pytest.mark.parametrize("name", [".tool/x", ".claude/settings.json"])
def test_a_seed_that_is_a_link_is_named_and_not_copied(tmp_path: Path, name: str) -> None:
    (tmp_path / "real").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to("real")

    [line] = seeded(link, tmp_path / "copy", name=name)

    assert "symbolic link" in line
    assert not (tmp_path / "copy").exists()


def test_a_seed_that_is_missing_is_no_matter(tmp_path: Path) -> None:
    assert seeded(tmp_path / "none", tmp_path / "copy") == []


def test_a_pipe_is_neither_read_nor_copied(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert seeded(tmp_path / "pipe", tmp_path / "copy") == []
    assert read_plain(tmp_path / "pipe") is None


def test_a_directory_that_is_too_large_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_seeds, "_MOST_BYTES", 10)
    source = tmp_path / "plugins"
    source.mkdir()
    (source / "large").write_bytes(bytes(11))

    [line] = seeded(source, tmp_path / "copy")

    assert str(source) in line
    assert not (tmp_path / "copy").exists()


def test_a_directory_with_too_many_files_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_seeds, "_MOST_ENTRIES", 2)
    source = tmp_path / "plugins"
    source.mkdir()
    for name in "abc":
        (source / name).touch()

    assert "not copied" in seeded(source, tmp_path / "copy")[0]


def test_of_too_many_transcripts_the_newest_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "projects/-p"
    source.mkdir(parents=True)
    text = json.dumps({"cwd": str(tmp_path)})
    monkeypatch.setattr(home_seeds, "_MOST_BYTES", len(text) + 1)
    for second, name in enumerate(("old", "new")):
        (source / f"{name}.jsonl").write_text(text)
        os.utime(source / f"{name}.jsonl", (second, second))
    (source / "other.jsonl").write_text('{"cwd": "/src/other"}')

    [line] = seeded(source, tmp_path / "copy")

    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["new.jsonl"]
    assert "the oldest 1" in line


def test_a_file_that_contains_a_credential_that_stays_outside_is_not_copied(
    tmp_path: Path,
) -> None:
    source = tmp_path / "settings"
    source.write_text("KEY")

    [line] = seeded(source, tmp_path / "copy", exposed=(source,))

    assert "credential" in line
    assert not (tmp_path / "copy").exists()


def test_settings_that_are_not_valid_are_not_copied_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "settings.json"
    source.write_text('{"env": {"KEY": "SECRET"}')

    [line] = seeded(source, tmp_path / "copy", name=".claude/settings.json")

    assert "not copied" in line
    assert not (tmp_path / "copy").exists()


def test_what_may_be_secret_in_settings_is_left_out_and_named(tmp_path: Path) -> None:
    source = tmp_path / "settings.json"
    source.write_text('{"model": "opus", "env": {"GH_TOKEN": "SECRET", "A": "1"}}')

    [line] = seeded(source, tmp_path / "copy", name=".claude/settings.json")

    assert "env.GH_TOKEN" in line
    assert "SECRET" not in line + (tmp_path / "copy").read_text()


def test_servers_that_start_inside_are_named_with_their_commands(tmp_path: Path) -> None:
    source = tmp_path / ".claude.json"
    source.write_text('{"mcpServers": {"docs": {"command": "npx", "args": ["-y", "docs"]}}}')

    [line] = seeded(source, tmp_path / "copy", name=".claude.json")

    assert line.endswith("docs (npx -y docs)")


def test_a_file_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_new(tmp_path / "x/file", b"one")

    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x/file", b"two")
    assert (tmp_path / "x/file").stat().st_mode & 0o777 == 0o600
