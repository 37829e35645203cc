"""A history leaves a home without credentials, and enters another one without links."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import history
from claude_proxy.sandbox.container.plan import history_selection

SESSION = ".claude/projects/-workspace/1.jsonl"
TOKEN = "ghp_" + "a" * 36


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    files = {
        SESSION: '{"text": "hello"}\n',
        ".claude/history.jsonl": '{"display": "hello"}\n',
        ".claude/file-history/1/ab@v1": "old\n",
        ".claude/plans/p.md": "# plan\n",
        ".claude/.credentials.json": '{"accessToken": "secret"}',
        ".claude/settings.json": '{"model": "opus", "apiKeyHelper": "/bin/x"}',
        ".claude.json": '{"numStartups": 2, "oauthAccount": {"a": 1}}',
        ".bashrc": "x",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    return home


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "history.tar.gz"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    other = tmp_path / "other"
    other.mkdir()
    return other


def files_in(home: Path) -> dict[str, str]:
    found = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_text() for path in found}


def archive_of(archive: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content))
    return archive


def test_a_history_comes_to_another_home_without_logins(
    home: Path, archive: Path, other: Path
) -> None:
    exported = history.export(home, archive, redact=False, replace=False)
    imported = history.restore(archive, other, replace=False)

    found = files_in(other)
    assert exported.files == imported.files == len(found) == 6
    assert found[SESSION] == '{"text": "hello"}\n'
    assert ".claude/.credentials.json" not in found
    assert "apiKeyHelper" not in found[".claude/settings.json"]
    assert "oauthAccount" not in found[".claude.json"]


def test_an_archive_is_the_owners_alone(home: Path, archive: Path) -> None:
    history.export(home, archive, redact=False, replace=False)

    assert archive.stat().st_mode & 0o777 == 0o600


def test_what_looks_like_a_credential_stops_the_export(home: Path, archive: Path) -> None:
    (home / SESSION).write_text(f'{{"text": "a"}}\n{{"text": "{TOKEN}"}}\n')

    with pytest.raises(ClaudeProxyError, match="looks like a credential") as caught:
        history.export(home, archive, redact=False, replace=False)

    assert f"{SESSION}:2" in str(caught.value.where)
    assert TOKEN not in "\n".join(caught.value.lines())
    assert not archive.exists()
    assert [path.name for path in archive.parent.iterdir()] == ["home"]


def test_what_looks_like_a_credential_can_be_replaced(
    home: Path, archive: Path, other: Path
) -> None:
    (home / SESSION).write_text(f'{{"text": "{TOKEN}"}}\n')

    done = history.export(home, archive, redact=True, replace=False)
    history.restore(archive, other, replace=False)

    assert done.redacted == 1
    assert (other / SESSION).read_text() == '{"text": "[REDACTED]"}\n'


def test_links_and_pipes_of_a_home_are_not_followed(
    home: Path, archive: Path, other: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text("secret")
    (home / ".claude/projects/-workspace/link.jsonl").symlink_to(secret)
    (home / ".claude/projects/elsewhere").symlink_to(tmp_path)
    os.mkfifo(home / ".claude/projects/-workspace/pipe.jsonl")

    history.export(home, archive, redact=False, replace=False)
    history.restore(archive, other, replace=False)

    assert "secret" not in "".join(files_in(other).values())


def test_a_home_whose_directory_is_a_link_has_no_history(
    home: Path, archive: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".claude").symlink_to(home / ".claude")

    with pytest.raises(ClaudeProxyError, match="no history"):
        history.export(empty, archive, redact=False, replace=False)


def test_an_archive_that_exists_is_kept_unless_it_is_to_be_replaced(
    home: Path, archive: Path
) -> None:
    archive.write_text("mine")

    with pytest.raises(ConfigError, match="exists"):
        history.export(home, archive, redact=False, replace=False)
    assert archive.read_text() == "mine"

    history.export(home, archive, redact=False, replace=True)
    assert archive.read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", ".claude/../../x", ".bashrc", ".claude/.credentials.json", "x"],
)
def test_an_entry_that_is_no_history_refuses_the_whole_archive(
    archive: Path, other: Path, name: str
) -> None:
    archive_of(archive, (SESSION, b"x"), (name, b"x"))

    with pytest.raises(ClaudeProxyError, match="nothing was written"):
        history.restore(archive, other, replace=True)

    assert files_in(other) == {}


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE),
        *(tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE),
    ],
)
def test_links_devices_and_pipes_refuse_the_whole_archive(
    archive: Path, other: Path, kind: bytes
) -> None:
    archive_of(archive, (SESSION, b""), kind=kind)

    with pytest.raises(ClaudeProxyError, match="not a plain file"):
        history.restore(archive, other, replace=True)


def test_a_link_in_the_home_is_not_written_through(
    home: Path, archive: Path, other: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (other / ".claude").symlink_to(outside)
    history.export(home, archive, redact=False, replace=False)

    with pytest.raises(ClaudeProxyError, match="not a directory of its own"):
        history.restore(archive, other, replace=True)

    assert files_in(outside) == {}


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(
    home: Path, archive: Path, other: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (other / ".claude.json").symlink_to(outside)
    history.export(home, archive, redact=False, replace=False)

    kept = history.restore(archive, other, replace=False)
    assert ".claude.json" in kept.kept
    history.restore(archive, other, replace=True)

    assert outside.read_text() == "mine"
    assert not (other / ".claude.json").is_symlink()


def test_a_directory_in_place_of_a_file_is_an_error_that_leaves_nothing_behind(
    archive: Path, other: Path
) -> None:
    (other / ".claude/history.jsonl").mkdir(parents=True)
    archive_of(archive, (".claude/history.jsonl", b"x"))

    with pytest.raises(ClaudeProxyError, match="cannot be written: is a directory") as caught:
        history.restore(archive, other, replace=True)

    assert caught.value.where == ".claude/history.jsonl in the container's home"
    assert [path.name for path in (other / ".claude").iterdir()] == ["history.jsonl"]


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    archive: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_selection, "MOST_OF_A_FILE", 3)
    archive_of(archive, (SESSION, b"1234"))

    with pytest.raises(ClaudeProxyError, match="larger than a file of the history may be"):
        history.restore(archive, other, replace=True)


def test_files_that_are_there_are_kept(home: Path, archive: Path, other: Path) -> None:
    history.export(home, archive, redact=False, replace=False)
    (other / ".claude").mkdir()
    (other / ".claude/history.jsonl").write_text("mine")

    done = history.restore(archive, other, replace=False)

    assert done.kept == (".claude/history.jsonl",)
    assert (other / ".claude/history.jsonl").read_text() == "mine"


def test_an_archive_of_somebody_else_is_reduced_too(archive: Path, other: Path) -> None:
    settings = b'{"model": "opus", "hooks": {"Stop": []}, "env": {"A": "1"}}'
    archive_of(archive, (".claude/settings.json", settings), (".claude.json", b'{"x": 1}'))

    done = history.restore(archive, other, replace=False)

    assert done.files == 1
    assert "hooks" not in (other / ".claude/settings.json").read_text()


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive_is_an_error(archive: Path, other: Path, data: bytes) -> None:
    archive.write_bytes(data)

    with pytest.raises(ConfigError, match="cannot be read"):
        history.restore(archive, other, replace=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_the_owner_of_the_home(home: Path, archive: Path, other: Path) -> None:
    os.chown(other, 1234, 1234)
    history.export(home, archive, redact=False, replace=False)

    history.restore(archive, other, replace=False)

    assert {path.stat().st_uid for path in other.rglob("*")} == {1234}
