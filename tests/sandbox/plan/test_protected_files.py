"""What mounts protect is told from the mounts alone."""

from pathlib import Path

from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.protected_files import protected_files

PROJECT, HOST = Path("/p"), Path("/host/p")


def found(*mounts: Mount) -> set[Path]:
    return set(protected_files([Mount(MountKind.WRITE, PROJECT, HOST), *mounts]))


def test_a_read_only_mount_in_something_writable_protects_its_source() -> None:
    assert found(Mount(MountKind.READ, PROJECT / ".envrc", HOST / ".envrc")) == {HOST / ".envrc"}


def test_a_cover_protects_what_it_hides() -> None:
    assert found(
        Mount(MountKind.BLANK, PROJECT / ".env", "{blank}"),
        Mount(MountKind.EMPTY, PROJECT / "secrets"),
    ) == {HOST / ".env", HOST / "secrets"}


def test_what_is_on_the_sandboxs_own_file_systems_needs_no_protection() -> None:
    home = Mount(MountKind.EMPTY, Path("/home/ann"))

    assert found(home, Mount(MountKind.READ, Path("/home/ann/.gitconfig"), Path("/x"))) == set()


def test_a_mount_that_only_pins_a_directory_protects_nothing_in_it() -> None:
    assert found(Mount(MountKind.WRITE, PROJECT / ".claude", HOST / ".claude")) == set()
