"""Path guards: refuse to show or to write protected paths, whichever option asks for it; pure.

Laws kept: secrets stay outside, the sandbox cannot move its own wall, no quiet downgrade. A path
is checked as written and after symbolic links.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import protected_paths, system_mounts
from claude_proxy.sandbox.plan.model import HostFacts, PathKind

# Refused as a project and as writable paths: too much of the host, or not ordinary files.
SYSTEM_ROOTS = frozenset(
    Path(f"/{name}")
    for name in (
        *("Applications", "Library", "System", "Users", "Volumes", "bin", "boot", "dev", "etc"),
        *("home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "nix", "opt", "private"),
        *("proc", "root", "run", "sbin", "snap", "srv", "sys", "tmp", "usr", "usr/bin"),
        *("usr/lib", "usr/local", "usr/sbin", "usr/share", "var", "var/lib", "var/tmp"),
    )
)
NO_FILES = (Path("/dev"), Path("/proc"), Path("/sys"))
# These contain generated files in the sandbox, so the host's cannot be shown in their place.
REBUILT = frozenset({Path("/"), Path("/etc"), Path("/run")})
_CONFIGURATION = (Path("/boot"), Path("/etc"), Path("/run"), *NO_FILES)


class PathGuards:
    """What one run must not see, and the checks that refuse it."""

    def __init__(self, facts: HostFacts) -> None:
        self._facts = facts
        self._home = facts.user.home
        other = protected_paths.of_proxies(facts.user.uid)
        ours = (facts.confdir, facts.statedir, facts.run_directory, *other)
        self._protected = frozenset(
            self.with_real(protected_paths.protected(self._home, facts.environ, *ours))
        )
        secret = protected_paths.secret(self._home, facts.environ)
        self._secret = frozenset(self.with_real(secret))
        self.walls = self._protected | self._secret  # there or not
        # The usual places: a variable may name a file of the project.
        named = self.with_real(protected_paths.named_by_variable(self._home, facts.environ))
        self._refused_in_project = self._protected | (frozenset(secret) - frozenset(named))

    def hidden(self, named: Iterable[Path]) -> list[Path]:
        """Return the real paths of everything to hide, except secrets that were named."""
        found = {path for path in self._protected | self._secret if self._exists(path)}
        return sorted({self._facts.paths[path].real for path in found} - set(self.with_real(named)))

    def protected_ancestor(self, path: Path) -> Path | None:
        """Return the protected path that contains this one, or is it."""
        return next((place for place in (path, *path.parents) if place in self._protected), None)

    def with_real(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield each path as given and without symbolic links."""
        for path in paths:
            yield path
            yield self._facts.paths[path].real

    def refuse_wide(self, path: Path, what: str, where: str, fix: str) -> None:
        """Refuse the whole home directory, or a system directory."""
        if path in SYSTEM_ROOTS or path == Path("/"):
            raise ConfigError(f"{what} would be a system directory", where=where, fix=fix)
        for home in self.with_real((self._home,)):
            if home.is_relative_to(path):
                raise ConfigError(
                    f"{what} would be your whole home directory",
                    where=where,
                    fix=fix,
                )
        if any(path.is_relative_to(root) for root in _CONFIGURATION):
            raise ConfigError(f"{what} is in a system directory", where=where, fix=fix)

    def refuse_hidden(self, path: Path, where: str, fix: str) -> None:
        """Refuse a path that is protected."""
        protected = self.protected_ancestor(path)
        if protected is not None:
            raise ConfigError(f"{protected} is never shown to a run", where=where, fix=fix)

    def refuse_holding(self, path: Path, where: str, fix: str) -> None:
        """Refuse a project that contains a protected path, or the place of a secret.

        Also where there is none yet: it may be made during the run.
        """
        self._refuse_below(path, self._refused_in_project, where, fix)

    def refuse_containing(self, path: Path, where: str, fix: str) -> None:
        """Refuse to show a directory that contains a protected path, or the place of a secret."""
        self._refuse_below(path, self.walls, where, fix)

    def refuse_secrets(self, path: Path, real: Path, where: str, fix: str) -> None:
        """Refuse to show a path that is protected, contains a secret, or leads to one by a link.

        A secret is shown only by the name of its file, or by one in the directory that it is in.
        """
        for place in (path, real):
            self.refuse_hidden(place, where, fix)
            self.refuse_containing(place, where, fix)
        secret = self.led_to(path, real)
        if secret is not None:
            raise ConfigError(
                f"it is a symbolic link that leads to {secret}, which may hold a secret",
                where=where,
                fix=f"name {real} itself, if it is to be shown",
            )

    def refuse_secret_directory(self, path: Path, real: Path, where: str) -> None:
        """Refuse to show a whole directory that is there for a secret: its files have names."""
        for place in (path, real):
            if place in self._secret and self._facts.paths[place].kind is PathKind.DIRECTORY:
                raise ConfigError(
                    f"{place} is a directory in which a secret has its place",
                    where=where,
                    fix="name the file in it that is needed",
                )

    def led_to(self, path: Path, real: Path) -> Path | None:
        """Return the protected or secret path to which a link leads, unless the link is in one."""
        if self.protected_ancestor(path) is not None or self._secret_around(path) is not None:
            return None
        return self.protected_ancestor(real) or self._secret_around(real)

    def contains_secret(self, *places: Path) -> bool:
        """Tell whether one of these must not be shown without being named."""
        return any(
            self.protected_ancestor(place) is not None
            or self._secret_around(place) is not None
            or self._first_below(place, self.walls) is not None
            for place in places
        )

    def _refuse_below(self, path: Path, walls: Iterable[Path], where: str, fix: str) -> None:
        found = self._first_below(path, walls)
        if found is not None:
            why = "is never shown to a run" if found in self._protected else "may hold a secret"
            raise ConfigError(f"it contains {found}, which {why}", where=where, fix=fix)

    def _first_below(self, path: Path, walls: Iterable[Path]) -> Path | None:
        """Return a wall below a path; one that exists, if there is any."""
        # As text: there are more than a thousand walls, and this is asked at each start.
        above = f"{str(path).rstrip('/')}/"
        found = [wall for wall in walls if str(wall).startswith(above)]
        return min(found, key=lambda wall: (not self._exists(wall), wall), default=None)

    def _secret_around(self, path: Path) -> Path | None:
        return next((place for place in (path, *path.parents) if place in self._secret), None)

    def refuse_home(self) -> None:
        """Refuse a home directory that cannot be hidden."""
        home = self._home
        inside_system = any(home.is_relative_to(name) for name in system_mounts.DIRECTORIES)
        if (
            home == Path("/")
            or inside_system
            or any(home.is_relative_to(d) for d in _CONFIGURATION)
        ):
            raise ConfigError(
                "the home directory is a system directory, so it cannot be hidden",
                where=f"HOME={home}",
                fix="set HOME to your own directory",
            )

    def _exists(self, path: Path) -> bool:
        return self._facts.paths[path].kind is not PathKind.MISSING
