"""A notice is shown once, and again rather than never."""

from pathlib import Path

from claude_proxy.system import shown_once


def test_a_notice_is_new_once(tmp_path: Path) -> None:
    assert [shown_once.is_new(tmp_path, "a notice") for _ in range(3)] == [True, False, False]


def test_another_notice_is_new(tmp_path: Path) -> None:
    shown_once.is_new(tmp_path, "a notice")

    assert shown_once.is_new(tmp_path, "another notice")
    assert not shown_once.is_new(tmp_path, "a notice")


def test_the_stamp_does_not_contain_the_notice_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    shown_once.is_new(tmp_path, "the host internal.example")

    [stamp] = tmp_path.iterdir()
    assert "internal" not in stamp.read_text()
    assert stamp.stat().st_mode & 0o777 == 0o600


def test_a_notice_that_cannot_be_noted_is_shown_each_time(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    assert [shown_once.is_new(nowhere, "a notice") for _ in range(2)] == [True, True]


def test_a_link_in_the_place_of_the_stamps_is_not_followed(tmp_path: Path) -> None:
    shown_once.is_new(tmp_path, "a notice")
    [stamp] = tmp_path.iterdir()
    stamp.unlink()
    target = tmp_path / "target"
    stamp.symlink_to(target)

    assert shown_once.is_new(tmp_path, "a notice")
    assert not target.exists()


def test_the_stamps_do_not_grow_without_bound(tmp_path: Path) -> None:
    for number in range(1100):
        shown_once.is_new(tmp_path, f"notice {number}")

    [stamps] = tmp_path.iterdir()
    assert stamps.stat().st_size <= 64 * 1024 + 65
    assert shown_once.is_new(tmp_path, "one more")
