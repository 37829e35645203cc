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
    Program,
    User,
)
from claude_proxy.sandbox.plan.path_guards import PathGuards
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    CONFDIR,
    HOME,
    PROJECT,
    SHARED,
    STATEDIR,
    a_spec,
    paths,
    some_facts,
)
from tests.sandbox.plan.plans import refused, triples


@pytest.mark.parametrize("below", ["", "control", "control/web/0.sock"])
@pytest.mark.parametrize("option", ["allow_ro", "allow_rw"])
def test_sockets_of_proxies_that_were_started_elsewhere_cannot_be_allowed(
    below: str, option: str
) -> None:
    (place,) = protected_paths.of_proxies(some_facts().user.uid)

    error = refused(a_spec(**{option: (place / below,)}), some_facts(paths(place / below, place)))

    assert "is never shown" in error.what


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

    assert "is never shown" in refused(a_spec(profile=SHARED), some_facts(found)).what


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
    shown=st.lists(NAMES, max_size=3),
    profile=st.sampled_from([CLAUDE, SHARED]),
)
def test_a_protected_path_is_never_mounted(
    ro: list[str],
    rw: list[str],
    links: dict[str, str],
    shown: list[str],
    profile: Profile,
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
        allow_ro=tuple(map(at, ro)),
        allow_rw=tuple(map(at, rw)),
        show_home=tuple(map(at, shown)),
        profile=profile,
    )

    try:
        planned = plan_sandbox(spec, some_facts(found))
    except ConfigError:
        return

    kept = (
        tuple(planned.agent_home.source_of(name) for name in profile.home_state)
        if planned.agent_home
        else ()
    )
    for source, _ in [*triples(planned, "bind"), *triples(planned, "ro-bind")]:
        for wall in walls if Path(source) not in kept else ():
            assert not Path(source).is_relative_to(wall)
            assert not wall.is_relative_to(source)


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


@pytest.mark.parametrize("there", [True, False], ids=["there", "later"])
@pytest.mark.parametrize("option", ["allow_ro", "allow_rw", "show_home"])
@pytest.mark.parametrize("shown", [".config", ".local/share", ".cargo", ".config/git", ".m2", "."])
def test_a_directory_in_which_a_secret_may_be_is_not_shown(
    shown: str,
    option: str,
    there: bool,  # noqa: FBT001 - a case
) -> None:
    path = Path(os.path.normpath(HOME / shown))
    secrets = (HOME / ".config/gh", HOME / ".local/share/keyrings") if there else ()
    found = paths(path, HOME / ".config", *secrets)

    error = refused(a_spec(**{option: (path,)}), some_facts(found))

    assert "contains" in error.what or "home" in error.what


@pytest.mark.parametrize("option", ["allow_ro", "allow_rw", "show_home"])
@pytest.mark.parametrize("name", [".claude", ".codex", ".gemini", ".config/gh"])
def test_a_directory_that_is_there_for_a_secret_is_not_shown_whole(name: str, option: str) -> None:
    error = refused(a_spec(**{option: (HOME / name,)}), some_facts(paths(HOME / name)))

    assert "a secret has its place" in error.what


@pytest.mark.parametrize("name", [".config/gh/hosts.yml", ".npmrc"])
def test_a_secret_is_shown_by_the_name_of_its_file(name: str) -> None:
    found = paths(files=[HOME / name])

    planned = plan_sandbox(a_spec(show_home=(HOME / name,)), some_facts(found))

    assert (str(HOME / name), str(HOME / name)) in triples(planned, "ro-bind")


def test_a_link_that_leads_to_a_secret_is_not_shown() -> None:
    found = paths(files=[HOME / ".npmrc"], links={PROJECT / "data": HOME / ".npmrc"})

    error = refused(a_spec(allow_ro=(PROJECT / "data",)), some_facts(found))

    assert "leads to" in error.what


def test_a_directory_to_which_a_secret_is_linked_is_not_shown() -> None:
    kept = Path("/data/dotfiles/npmrc")
    found = paths(kept.parent, files=[kept], links={HOME / ".npmrc": kept})

    assert str(kept) in refused(a_spec(allow_ro=(kept.parent,)), some_facts(found)).what


@pytest.mark.parametrize("key", ["home_read", "home_write"])
def test_a_profile_shows_no_directory_in_which_a_secret_may_be(key: str) -> None:
    profile = Profile("own", **{key: (".config/",)})  # type: ignore[arg-type]

    error = refused(a_spec(profile=profile), some_facts(paths(HOME / ".config")))

    assert "contains" in error.what
    assert key in (error.where or "")


def test_a_command_whose_tree_contains_a_secret_is_not_shown() -> None:
    tree = HOME / ".config"
    program = Program(tree / "tool", tree / "tool", (), (tree,))

    error = refused(a_spec(), some_facts(paths(tree), program=program))

    assert "contains" in error.what


@pytest.mark.parametrize("project", [".config", ".cargo", ".local"])
def test_a_project_in_which_a_secret_may_be_is_refused(project: str) -> None:
    path = HOME / project

    assert "contains" in refused(a_spec(project=path), some_facts(paths(path))).what


def test_what_is_shown_of_the_home_has_to_be_in_it() -> None:
    elsewhere = Path("/data/x")

    error = refused(a_spec(show_home=(elsewhere,)), some_facts(paths(elsewhere)))

    assert "--allow-ro /data/x" in (error.fix or "")
    assert "no such file" in refused(a_spec(show_home=(HOME / "none",)), some_facts()).what
