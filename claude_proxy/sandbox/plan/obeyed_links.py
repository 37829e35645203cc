"""Protection of what links lead to in the files that programs outside obey; pure.

Law kept: the sandbox cannot move its own wall. What such a link leads to is read-only inside. If
that cannot be, what Git obeys is refused; what others obey is watched, and named at the end.
"""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import (
    HostFacts,
    Mount,
    MountKind,
    ObeyedLink,
    PathKind,
    SandboxSpec,
)
from claude_proxy.sandbox.plan.mount_layout import Layout


def paths_to_inspect(links: Iterable[ObeyedLink]) -> Iterator[Path]:
    """Yield every path that the protection needs to know."""
    for link in links:
        yield link.target
        yield from (path.parent for path in link.through)


def protect(layout: Layout, facts: HostFacts, spec: SandboxSpec) -> list[Path]:
    """Make what the links lead to read-only; return what is to be watched instead.

    ConfigError if the run could change what Git obeys.
    """
    if spec.clone is not None:
        return []
    protection = _Protection(layout, facts, spec)
    # A directory comes before what is in it, which is read-only by then.
    for link in sorted(facts.links, key=lambda one: len(one.target.parts)):
        protection.add_target(link)
    for link in facts.links:
        protection.add_way(link)
    return protection.watched


class _Protection:
    """Adds the mounts of one run."""

    def __init__(self, layout: Layout, facts: HostFacts, spec: SandboxSpec) -> None:
        self.watched: list[Path] = []
        self._layout = layout
        self._facts = facts
        named = [facts.paths[path].real for path in spec.allow_rw]
        self._roots = {facts.paths[spec.project].real, *named}
        repositories = (*facts.git_directories, *(root / ".git" for root in spec.allow_rw))
        self._repositories = tuple(facts.paths[path].real for path in repositories)

    def add_target(self, link: ObeyedLink) -> None:
        """Make what a link leads to read-only, wherever it is writable."""
        # The branch that is checked out, in a repository without a copy of the run's own.
        branch = link.path.name == "HEAD" and self._is_in_repository(link.target)
        if not branch and self._layout.writable_places(link.target):
            self._make_read_only(link.target, link, link.target)

    def add_way(self, link: ObeyedLink) -> None:
        """Keep the links on the way from being replaced: nothing can be mounted on a link."""
        for path in link.through:
            if not self._layout.writable_places(path):
                continue
            # In a repository without a copy of the run's own, Git must write beside it.
            if self._is_in_repository(path) or not link.of_git:
                self.watched += [link.path, path]
            else:
                self._make_read_only(path.parent, link, path)

    def _is_in_repository(self, path: Path) -> bool:
        return any(path.is_relative_to(git) for git in self._repositories)

    def _make_read_only(self, path: Path, link: ObeyedLink, led_to: Path) -> None:
        kind = self._facts.paths[path].kind
        wide = any(root.is_relative_to(path) for root in self._roots)
        if wide or kind not in {PathKind.DIRECTORY, PathKind.FILE}:
            if link.of_git:
                _refuse(link, led_to, kind)
            self.watched += [link.path] if wide else [link.path, path]
            return
        for at in self._layout.writable_places(path):
            self._layout.pin_above(at)
            self._layout.put(Mount(MountKind.READ, at, path))


def _refuse(link: ObeyedLink, led_to: Path, kind: PathKind) -> None:
    first = link.through[0]
    what = "does not exist yet" if kind is PathKind.MISSING else "cannot be made read-only"
    raise ConfigError(
        f"Git outside obeys {led_to}, which the run could write and which {what}",
        where=f"{link.path}, by the symbolic link {first}",
        fix=f"replace the link by what it leads to, or remove it (rm {shlex.quote(str(first))})",
    )
