"""Each path has one mount, and what hides something is mounted after what would show it."""

from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.mount_layout import Layout

WORK = Path("/work")


def a_layout(*mounts: Mount) -> Layout:
    layout = Layout()
    for mount in mounts:
        layout.put(mount)
    return layout


def shown(at: Path, source: Path | None = None, kind: MountKind = MountKind.READ) -> Mount:
    return Mount(kind, at, source or at)


def test_mounts_are_made_in_order_of_depth() -> None:
    deep, flat = shown(WORK / "a/b"), shown(WORK)

    assert a_layout(deep, flat).mounts() == [flat, deep]


def test_a_mount_replaces_another_one_at_the_same_path() -> None:
    hidden = Mount(MountKind.EMPTY, WORK)
    layout = a_layout(shown(WORK), hidden)

    assert layout.mounts() == [hidden]
    assert not layout.is_shown(WORK)
    assert layout.showing(WORK) == []


def test_a_path_is_visible_wherever_a_mount_shows_it() -> None:
    layout = a_layout(shown(WORK), shown(Path("/other"), WORK))

    assert {mount.at for mount in layout.showing(WORK / "file")} == {WORK, Path("/other")}


def test_a_link_shows_what_it_leads_to() -> None:
    layout = a_layout(shown(Path("/usr")), Mount(MountKind.LINK, Path("/lib"), "/usr/lib"))

    assert layout.is_shown(Path("/lib/file"))
    assert layout.holds(Path("/"))


def test_only_a_writable_mount_that_is_nearest_makes_a_path_writable() -> None:
    layout = a_layout(shown(WORK, kind=MountKind.WRITE), shown(WORK / "fixed"))

    assert layout.writable_places(WORK / "file") == [WORK / "file"]
    assert layout.writable_places(WORK / "fixed/file") == []
    assert layout.is_written(WORK)
    assert not layout.is_written(WORK / "fixed")


def test_a_directory_above_a_mask_is_a_mount_and_cannot_be_renamed() -> None:
    layout = a_layout(shown(WORK, kind=MountKind.WRITE))

    layout.pin_above(WORK / "a/b/secret")

    assert [mount.at for mount in layout.mounts()] == [WORK, WORK / "a", WORK / "a/b"]


def test_a_generated_file_has_a_placeholder_for_its_content() -> None:
    layout = Layout()

    layout.add_file(Path("/etc/hosts"), b"127.0.0.1 localhost\n")

    [mount] = layout.mounts()
    assert layout.files[str(mount.source)] == b"127.0.0.1 localhost\n"


def test_the_root_and_what_is_sealed_become_read_only_at_the_end() -> None:
    words = list(a_layout(Mount(MountKind.EMPTY, WORK, mode="0755", sealed=True)).words())

    assert words == [
        *("--perms", "0755", "--tmpfs", "/work"),
        *("--remount-ro", "/work", "--remount-ro", "/"),
    ]


def test_a_covered_file_shows_generated_content() -> None:
    layout = a_layout(shown(WORK))

    layout.cover_file(WORK / "file", b"content")

    mount = layout.nearest(WORK / "file")
    assert mount is not None
    assert (mount.kind, layout.files[str(mount.source)]) == (MountKind.BLANK, b"content")
    assert not layout.is_shown(WORK / "file")


def test_a_directory_that_becomes_read_only_keeps_no_writable_pin() -> None:
    layout = a_layout(shown(WORK, kind=MountKind.WRITE))
    layout.pin_above(WORK / "a/b/c/file")
    layout.put(shown(WORK / "a/b/c/file"))

    layout.put(shown(WORK / "a/b"))

    assert not layout.is_written(WORK / "a/b/c")
    assert layout.is_written(WORK / "a")


def test_a_pin_in_what_is_writable_within_a_read_only_directory_stays() -> None:
    layout = a_layout(shown(WORK, kind=MountKind.WRITE), shown(WORK / "a/w", kind=MountKind.WRITE))
    layout.pin_above(WORK / "a/w/b/file")

    layout.put(shown(WORK / "a"))

    assert layout.nearest(WORK / "a/w/b") == shown(WORK / "a/w/b", kind=MountKind.WRITE)
