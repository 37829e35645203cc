"""Agent home: what a run keeps of its agent's settings and history, for one project; pure.

Law kept: secrets stay outside. Each agent's directory inside is the project's own. Nothing that is
written there reaches the user's, and no other project's history is in it. The record is beside what
is mounted, never in it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import AgentHome, CredentialIsolation, Profile, Seed

HOMES = "homes"  # in the directory of the state
RECORD = "home.json"  # in one home: of which project it is, and what was copied into it

# Each agent's own variable for the directory of its settings, and what is in it.
_MOVED_BY_VARIABLE = (
    (".claude.json", "CLAUDE_CONFIG_DIR", ".claude.json"),
    (".claude", "CLAUDE_CONFIG_DIR", ""),
    (".codex", "CODEX_HOME", ""),
)
_PROJECT = "{project}"  # in a seed: the name that Claude Code gives to a project's directory
_READABLE = 40  # characters of a project's name in the name of its home


def directory_of(statedir: Path, project: Path) -> Path:
    """Return where the home of a project is; `project` is without links."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", project.name)[:_READABLE].lstrip(".-")
    digest = hashlib.sha256(str(project).encode("utf-8", "surrogateescape")).hexdigest()
    return statedir / HOMES / f"{readable or 'project'}-{digest[:16]}"


def home_of(  # noqa: PLR0913 - separate facts
    profile: Profile,
    isolation: CredentialIsolation,
    *,
    home: Path,
    environ: Mapping[str, str],
    statedir: Path,
    project: Path,
) -> AgentHome | None:
    """Return the agent's home for a run; None if its profile keeps nothing.

    Raises ConfigError if the profile copies something that is not kept.
    """
    state = tuple(_outermost(profile))
    if not state:
        return None
    logins, withheld = [], []
    for name in _below(profile, "home_login", state):
        source = outside(name, home, environ)
        if source in isolation.logins:
            withheld.append(name)
        else:
            logins.append(Seed(name, source))
    named = (
        name.replace(_PROJECT, _name_of(project)) for name in _below(profile, "home_seed", state)
    )
    return AgentHome(
        directory=directory_of(statedir, project),
        project=project,
        state=state,
        seeds=tuple(Seed(name, outside(name, home, environ)) for name in named),
        logins=tuple(logins),
        withheld=tuple(withheld),
        exposed=isolation.exposed,
        environ=environ,
    )


def outside(name: str, home: Path, environ: Mapping[str, str]) -> Path:
    """Return where something of an agent's is on the host, which a variable may say."""
    pure = PurePosixPath(name)
    for above, variable, inside in _MOVED_BY_VARIABLE:
        given = environ.get(variable, "")
        if given.startswith("/") and pure.is_relative_to(above):
            return Path(given, inside, pure.relative_to(above))
    return home / name


def shared(profile: Profile) -> Profile:
    """Return the profile of --share-agent-home: the agent's files are those of the user's home."""
    return replace(
        profile,
        home_write=(*profile.home_write, *_outermost(profile)),
        home_state=(),
        home_seed=(),
        home_login=(),
    )


def _outermost(profile: Profile) -> Iterator[str]:
    """Yield what is kept; what the profile shares with the user's home is not."""
    written = [PurePosixPath(name) for name in profile.home_write]
    kept = [PurePosixPath(name) for name in profile.home_state]
    for name in dict.fromkeys(profile.home_state):
        pure = PurePosixPath(name)
        if not any(pure.is_relative_to(above) for above in written) and not any(
            pure != above and pure.is_relative_to(above) for above in kept
        ):
            yield name


def _below(profile: Profile, key: str, state: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of a key; each has to be in something that is kept, or be it."""
    names: tuple[str, ...] = getattr(profile, key)
    written = [PurePosixPath(name) for name in profile.home_write]
    for name in names:
        pure = PurePosixPath(name)
        if any(pure.is_relative_to(above) for above in written):
            continue
        if not any(
            pure.is_relative_to(PurePosixPath(above)) and (above.endswith("/") or above == name)
            for above in state
        ):
            raise ConfigError(
                "it is not in a file or directory of home_state, so it cannot be copied into one",
                where=f"profile {profile.name}, {key}: {name}",
                fix="add the file, or the directory with a final /, to home_state",
            )
        yield name.rstrip("/")


def _name_of(project: Path) -> str:
    # As Claude Code names the directory of a project's transcripts.
    return re.sub(r"[^a-zA-Z0-9]", "-", str(project))
