"""What the host could take away is guarded, and nothing else."""

from pathlib import Path

from claude_proxy.sandbox.plan.guarded_mounts import guarded_mounts
from claude_proxy.sandbox.plan.model import GuardedMount, GuardKind, Mount, MountKind

HOME = Path("/home/ann")
PROJECT = HOME / "project"
READ, WRITE, EMPTY, BLANK = (
    MountKind.READ,
    MountKind.WRITE,
    MountKind.EMPTY,
    MountKind.BLANK,
)
BASE = (Mount(EMPTY, HOME), Mount(WRITE, PROJECT, PROJECT))


def same(kind: MountKind, name: str) -> Mount:
    """Mount an entry of the project on itself."""
    return Mount(kind, PROJECT / name, PROJECT / name)


def test_a_read_only_entry_of_the_project_is_guarded_from_the_project() -> None:
    found = guarded_mounts((*BASE, same(READ, ".envrc")), (), {})

    assert found == (GuardedMount(GuardKind.READ, PROJECT, PROJECT / ".envrc"),)


def test_a_mount_on_a_file_system_of_the_sandbox_is_not_guarded() -> None:
    shown = Mount(READ, HOME / ".gitconfig", HOME / ".gitconfig")

    assert guarded_mounts((*BASE, shown), (), {}) == ()


def test_a_read_only_entry_of_what_is_read_only_is_not_guarded() -> None:
    project = (Mount(READ, PROJECT, PROJECT), same(READ, ".envrc"))

    assert guarded_mounts(project, (), {}) == ()


def test_a_hidden_entry_of_what_is_read_only_is_guarded() -> None:
    project = (Mount(READ, PROJECT, PROJECT), Mount(BLANK, PROJECT / ".env", "{blank}"))

    found = guarded_mounts(project, (PROJECT / ".env",), {})

    assert found == (GuardedMount(GuardKind.HIDE, PROJECT, PROJECT / ".env"),)


def test_a_directory_on_the_way_is_guarded_and_is_no_base() -> None:
    found = guarded_mounts((*BASE, same(WRITE, "sub"), same(READ, "sub/.envrc")), (), {})

    assert found == (
        GuardedMount(GuardKind.PIN, PROJECT, PROJECT / "sub"),
        GuardedMount(GuardKind.READ, PROJECT, PROJECT / "sub/.envrc"),
    )


def test_a_writable_directory_that_leads_to_no_protection_is_not_guarded() -> None:
    assert guarded_mounts((*BASE, same(WRITE, "sub")), (), {}) == ()


def test_a_directory_of_the_runs_own_over_an_entry_is_guarded() -> None:
    own = Mount(WRITE, PROJECT / ".git", Path("/state/repository"))

    found = guarded_mounts((*BASE, own), (), {})

    assert found == (GuardedMount(GuardKind.OWN, PROJECT, PROJECT / ".git"),)


def test_a_cover_with_content_is_put_back_as_it_was() -> None:
    found = guarded_mounts((*BASE, Mount(BLANK, PROJECT / "roots.pem", "{blank}")), (), {})

    assert found == (GuardedMount(GuardKind.OWN, PROJECT, PROJECT / "roots.pem"),)


def test_what_does_not_exist_is_guarded_where_it_could_appear() -> None:
    awaited = {PROJECT / ".mcp.json": GuardKind.READ, HOME / ".npmrc": GuardKind.READ}

    found = guarded_mounts(BASE, (), awaited)

    assert found == (GuardedMount(GuardKind.READ, PROJECT, PROJECT / ".mcp.json"),)
