"""What a start creates is its owner's alone, and is removed again unless something is in it."""

import stat
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox import created_paths
from claude_proxy.sandbox.plan.model import PathKind, PathToCreate
from tests.support.container_parts import a_run_plan


def test_what_is_missing_is_created_for_the_owner_alone(tmp_path: Path) -> None:
    hooks, file = tmp_path / "git/hooks", tmp_path / "file"
    wanted = (
        PathToCreate(hooks, PathKind.DIRECTORY),
        PathToCreate(file, PathKind.FILE, b"text"),
    )

    created = created_paths.create(replace(a_run_plan(), to_create=wanted))

    assert stat.S_IMODE(hooks.stat().st_mode) == 0o700
    assert (stat.S_IMODE(file.stat().st_mode), file.read_bytes()) == (0o600, b"text")
    created_paths.remove(created)
    assert list(tmp_path.iterdir()) == []


def test_what_something_else_uses_by_now_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    wanted = (PathToCreate(file, PathKind.FILE, b"text"),)
    created = created_paths.create(replace(a_run_plan(), to_create=wanted))
    file.write_bytes(b"another's")

    created_paths.remove(created)

    assert file.read_bytes() == b"another's"
