"""A run's copy of the allowlist is replaced as a whole, and never by what is not in force."""

from pathlib import Path

from claude_proxy.config.settings import Settings
from claude_proxy.sandbox import shown_list

NAME = "allowlist.yaml"
GIT = "gitconfig"


def files(text: bytes) -> dict[str, bytes]:
    return {NAME: text, GIT: b"", "ca.pem": b"not copied"}


def settings(tmp_path: Path, text: str) -> Settings:
    tmp_path.chmod(0o700)
    file = tmp_path / NAME
    file.write_text(text)
    file.chmod(0o600)
    return Settings(file, tmp_path / "conf", tmp_path / "state")


def test_the_copy_is_another_file_each_time(tmp_path: Path) -> None:
    shown_list.write(tmp_path / "list", files(b"old"))
    reader = (tmp_path / "list" / NAME).open("rb")

    shown_list.write(tmp_path / "list", files(b"new"))

    with reader:
        assert reader.read() == b"old"
    assert (tmp_path / "list" / NAME).read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "list").iterdir()) == [NAME, GIT]


def test_the_copy_has_no_credentials(tmp_path: Path) -> None:
    text = "allow: [b.example]\ncredentials:\n  - canary: here\n"

    shown_list.follow(tmp_path / "list", settings(tmp_path, text))

    copy = (tmp_path / "list" / NAME).read_text()
    assert "b.example" in copy
    assert "canary" not in copy


def test_a_list_that_cannot_be_read_leaves_the_copy_before(tmp_path: Path) -> None:
    shown_list.write(tmp_path / "list", files(b"old"))

    shown_list.follow(tmp_path / "list", Settings(tmp_path / "gone", tmp_path, tmp_path))

    assert (tmp_path / "list" / NAME).read_bytes() == b"old"


def test_a_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    shown_list.follow(tmp_path / "gone" / "list", settings(tmp_path, "allow: []\n"))


def test_a_copy_left_half_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / f".{NAME}.new").write_bytes(b"half of a very long text")

    shown_list.write(tmp_path / "list", files(b"new"))

    assert (tmp_path / "list" / NAME).read_bytes() == b"new"


def test_gits_settings_follow_the_list_too(tmp_path: Path) -> None:
    shown_list.write(tmp_path / "list", files(b"old"))

    shown_list.follow(tmp_path / "list", settings(tmp_path, "allow: [code.example]\n"))

    assert "git@code.example:" in (tmp_path / "list" / GIT).read_text()
