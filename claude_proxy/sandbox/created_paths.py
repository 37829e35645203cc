"""Paths that a sandbox mounts and that do not exist yet: created before the start.

Law kept: nothing is left. What a start has created that fails is removed, unless something else
uses it by now.
"""

import contextlib
import os
from collections.abc import Sequence

from claude_proxy.sandbox.plan.model import PathKind, PathToCreate, SandboxPlan


def create(planned: SandboxPlan) -> list[PathToCreate]:
    """Create what is mounted and does not exist yet, for the owner alone; return what was created.

    The last comes first, so that it can be removed in this order.
    """
    created: list[PathToCreate] = []
    try:
        for missing in planned.to_create:
            above = [path for path in missing.path.parents if not path.exists()]
            missing.path.parent.mkdir(parents=True, exist_ok=True)
            created += [PathToCreate(path, PathKind.DIRECTORY) for path in reversed(above)]
            with contextlib.suppress(FileExistsError):
                _create(missing)
                created.append(missing)
    except BaseException:
        remove(created[::-1])
        raise
    return created[::-1]


def _create(missing: PathToCreate) -> None:
    if missing.kind is PathKind.DIRECTORY:
        missing.path.mkdir(mode=0o700)
        return
    descriptor = os.open(missing.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
        file.write(missing.content)


def remove(created: Sequence[PathToCreate]) -> None:
    """Remove what a start has created that failed, unless something else uses it by now."""
    for one in created:
        with contextlib.suppress(OSError):
            if one.kind is PathKind.DIRECTORY:
                one.path.rmdir()  # only if it is empty
            elif one.path.read_bytes() == one.content:
                one.path.unlink()
