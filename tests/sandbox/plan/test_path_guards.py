"""A protected path is neither shown nor writable, whichever option asks for it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import protected_paths
from claude_proxy.sandbox.plan.model import (
    PathKind,
    Profile,
    User,
)
from claude_proxy.sandbox.plan.path_guards import PathGuards
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    CONFDIR,
    HOME,
    PROJECT,
    STATEDIR,
    a_spec,
    paths,
    some_facts,
)
from tests.sandbox.plan.plans import is_covered, refused, triples


@pytest.mark.parametrize(
    "name", [".ssh", ".aws/config", ".gnupg", ".kube/config", ".docker", ".mozilla"]
)
@pytest.mark.parametrize("option", ["allow_ro", "allow_rw"])
def test_a_protected_path_cannot_be_allowed(name: str, option: str) -> None:
    path = HOME / name

    error = refused(a_spec(**{option: (path,)}), some_facts(paths(path)))

    assert "is never shown" in error.what


@pytest.mark.parametrize(
    "path", [CONFDIR, STATEDIR, STATEDIR / "audit", Path("/run/user/1000/bus")]
)
def test_the_policy_the_audit_log_and_the_session_bus_cannot_be_allowed(path: Path) -> None:
    assert "is never shown" in refused(a_spec(allow_ro=(path,)), some_facts(paths(path))).what


def test_a_link_to_a_protected_path_cannot_be_allowed() -> None:
    found = paths(HOME / ".ssh", links={HOME / "keys": HOME / ".ssh"})

    assert "is never shown" in refused(a_spec(allow_ro=(HOME / "keys",)), some_facts(found)).what


def test_the_target_of_a_protected_link_cannot_be_allowed() -> None:
    dotfiles = Path("/data/dotfiles/ssh")
    found = paths(dotfiles, links={HOME / ".ssh": dotfiles})

    assert "is never shown" in refused(a_spec(allow_ro=(dotfiles,)), some_facts(found)).what


def test_a_directory_that_contains_a_protected_path_cannot_be_writable() -> None:
    data = Path("/data")
    found = paths(data, data / "ssh", links={HOME / ".ssh": data / "ssh"})

    assert "which is never shown" in refused(a_spec(allow_rw=(data,)), some_facts(found)).what


@pytest.mark.parametrize(
    "project",
    [
        *("/", "/home", "/usr", "/etc", "/etc/x", "/tmp", "/var", "/proc/1", "/sys/x", "/run/x"),
        *(str(HOME), str(CONFDIR), str(CONFDIR.parent), str(HOME / ".ssh/x"), str(STATEDIR / "x")),
    ],
)
def test_a_project_cannot_be_the_home_a_system_directory_or_contain_a_protected_path(
    project: str,
) -> None:
    error = refused(a_spec(project=Path(project)), some_facts(paths(Path(project))))

    assert "--dir" in (error.fix or "")


def test_a_project_that_is_a_link_to_the_home_is_refused() -> None:
    found = paths(links={Path("/data/p"): HOME})

    refused(a_spec(project=Path("/data/p")), some_facts(found))


@pytest.mark.parametrize("path", ["/", "/etc", "/run", "/dev/sda", "/proc/1", "/sys"])
def test_a_generated_directory_cannot_be_allowed(path: str) -> None:
    refused(a_spec(allow_ro=(Path(path),)), some_facts(paths(Path(path))))


@pytest.mark.parametrize("path", [HOME, HOME.parent, Path("/usr"), Path("/tmp")])
def test_the_home_and_system_directories_cannot_be_writable(path: Path) -> None:
    refused(a_spec(allow_rw=(path,)), some_facts(paths(path)))


@pytest.mark.parametrize("name", [".ssh/", ".config/", "./", ".local/state/claude-proxy/x"])
def test_a_profile_cannot_make_a_protected_path_writable(name: str) -> None:
    profile = Profile("own", home_write=(name,))
    found = paths(HOME / ".ssh", HOME / ".config")

    assert "own" in (refused(a_spec(profile=profile), some_facts(found)).where or "")


def test_a_profile_cannot_make_a_link_to_a_protected_path_writable() -> None:
    found = paths(HOME / ".ssh", links={HOME / ".claude": HOME / ".ssh"})

    assert "is never shown" in refused(a_spec(profile=CLAUDE), some_facts(found)).what


@pytest.mark.parametrize("home", ["/", "/usr/sbin", "/run/ann"])
def test_a_home_in_a_system_directory_is_refused(home: str) -> None:
    user = User("ann", 1000, 1000, Path(home))
    found = paths(Path("/data/p"))

    error = refused(a_spec(project=Path("/data/p")), some_facts(found, user=user))

    assert "HOME" in (error.fix or "")


NAMES = st.sampled_from(
    [
        *(
            ".ssh",
            ".ssh/id",
            ".config",
            ".config/gh",
            ".config/claude-proxy/x",
            ".claude",
            ".npmrc",
        ),
        *("a", "a/b", "project", "project/.git", "project/x", ".local", ".local/bin", "", ".."),
    ]
)


@given(
    ro=st.lists(NAMES, max_size=3),
    rw=st.lists(NAMES, max_size=3),
    links=st.dictionaries(NAMES, NAMES, max_size=3),
    keep=st.booleans(),
)
def test_a_protected_path_is_never_mounted(
    ro: list[str],
    rw: list[str],
    links: dict[str, str],
    keep: bool,  # noqa: FBT001 - a case
) -> None:
    def at(name: str) -> Path:
        return Path(os.path.normpath(HOME / name))

    everything = {at(name) for name in (".ssh", ".config", ".config/gh", ".claude", "a", "a/b")}
    found = paths(
        *everything, links={at(a): at(b) for a, b in links.items() if a not in {"", ".."}}
    )
    walls = {
        path
        for path in protected_paths.protected(HOME, {}, CONFDIR, STATEDIR)
        if found[path].kind is not PathKind.MISSING
    }
    walls |= {found[path].real for path in walls}
    spec = a_spec(
        allow_ro=tuple(map(at, ro)), allow_rw=tuple(map(at, rw)), keep_home=keep, profile=CLAUDE
    )

    try:
        planned = plan_sandbox(spec, some_facts(found))
    except ConfigError:
        return

    masks = {*planned.masked}
    for source, place in [*triples(planned, "bind"), *triples(planned, "ro-bind")]:
        for wall in walls:
            assert not Path(source).is_relative_to(wall)
            # A link by itself shows nothing: what it leads to is a wall too.
            if wall.is_relative_to(source) and found[wall].link is None:
                inside = Path(place) / wall.relative_to(source)
                assert any(inside.is_relative_to(mask) for mask in masks) or is_covered(
                    planned, inside, Path(place)
                )


def test_the_protected_path_around_a_file_is_found() -> None:
    guards = PathGuards(some_facts(paths(HOME / ".ssh")))

    assert guards.protected_ancestor(HOME / ".ssh/id") == HOME / ".ssh"
    assert guards.protected_ancestor(HOME / ".ssh") == HOME / ".ssh"
    assert guards.protected_ancestor(PROJECT) is None


def test_a_secret_that_was_named_is_not_hidden() -> None:
    secret, other = HOME / ".npmrc", HOME / ".netrc"
    guards = PathGuards(some_facts(paths(files=(secret, other))))

    assert secret in guards.hidden(())
    assert secret not in guards.hidden((secret,))
    assert other in guards.hidden((secret,))
