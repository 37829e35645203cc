"""Refuses what must not be shown or written, whatever asks for it; pure.

Laws kept: what must stay outside is never shown (9), the sandbox cannot move its own wall (10), and
a wish that cannot be kept is an error with a fix (11). A path is judged as it is written and as
what it leads to.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import protected_paths, system_mounts
from claude_proxy.sandbox.plan.model import HostFacts, PathKind

# As a project, or writable: too much of the machine, or not files at all.
_SYSTEM_ROOTS = frozenset(
    Path(f"/{name}")
    for name in (
        *("Applications", "Library", "System", "Users", "Volumes", "bin", "boot", "dev", "etc"),
        *("home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "nix", "opt", "private"),
        *("proc", "root", "run", "sbin", "snap", "srv", "sys", "tmp", "usr", "usr/bin"),
        *("usr/lib", "usr/local", "usr/sbin", "usr/share", "var", "var/lib", "var/tmp"),
    )
)
NO_FILES = (Path("/dev"), Path("/proc"), Path("/sys"))
# Files of ours lie in these, which could not be put into what is read-only.
REBUILT = frozenset({Path("/"), Path("/etc"), Path("/run")})
_CONFIGURATION = (Path("/boot"), Path("/etc"), Path("/run"), *NO_FILES)


class PathGuards:
    """What one run must not see, and the refusals that keep it so."""

    def __init__(self, facts: HostFacts) -> None:
        self._facts = facts
        self._home = facts.user.home
        ours = (facts.confdir, facts.statedir, facts.run_directory)
        self._never = frozenset(
            self.with_real(protected_paths.protected(self._home, facts.environ, *ours))
        )
        self._secret = frozenset(self.with_real(protected_paths.secret(self._home, facts.environ)))
        self._standing = sorted(wall for wall in self._never if self._exists(wall))

    def hidden(self, named: Iterable[Path]) -> list[Path]:
        """Return where everything lies that is to be hidden, but for secrets that were named."""
        found = {wall for wall in self._never | self._secret if self._exists(wall)}
        return sorted({self._facts.paths[wall].real for wall in found} - set(self.with_real(named)))

    def around(self, path: Path) -> Path | None:
        """Return what is never shown and holds this path, or is it."""
        return next((place for place in (path, *path.parents) if place in self._never), None)

    def with_real(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield each path and what it leads to."""
        for path in paths:
            yield path
            yield self._facts.paths[path].real

    def refuse_wide(self, path: Path, what: str, where: str, fix: str) -> None:
        """Refuse the whole home, or a directory of the system."""
        if path in _SYSTEM_ROOTS or path == Path("/"):
            raise ConfigError(f"{what} would be a directory of the system", where=where, fix=fix)
        for home in self.with_real((self._home,)):
            if home.is_relative_to(path):
                raise ConfigError(
                    f"{what} would be your whole home directory, with everything in it",
                    where=where,
                    fix=fix,
                )
        if any(path.is_relative_to(root) for root in _CONFIGURATION):
            raise ConfigError(f"{what} lies in a directory of the system", where=where, fix=fix)

    def refuse_hidden(self, path: Path, where: str, fix: str) -> None:
        """Refuse what is never shown."""
        wall = self.around(path)
        if wall is not None:
            raise ConfigError(f"{wall} is never shown to a run", where=where, fix=fix)

    def refuse_holding(self, path: Path, where: str, fix: str) -> None:
        """Refuse to have written what holds something that is never shown: it could be moved."""
        for wall in self._standing:
            if wall.is_relative_to(path):
                raise ConfigError(
                    f"it holds {wall}, which is never shown to a run", where=where, fix=fix
                )

    def refuse_home(self) -> None:
        """Refuse a home that cannot be made empty."""
        home = self._home
        inside_system = any(home.is_relative_to(name) for name in system_mounts.DIRECTORIES)
        if (
            home == Path("/")
            or inside_system
            or any(home.is_relative_to(d) for d in _CONFIGURATION)
        ):
            raise ConfigError(
                "the home directory is a directory of the system, so it cannot be hidden",
                where=f"HOME={home}",
                fix="set HOME to a directory of your own",
            )

    def _exists(self, path: Path) -> bool:
        return self._facts.paths[path].kind is not PathKind.MISSING
