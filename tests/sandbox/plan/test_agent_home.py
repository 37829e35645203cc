"""The home of an agent is one for each project, and holds what the profile says."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.agent_home import directory_of, home_of, outside, shared
from claude_proxy.sandbox.plan.model import AgentHome, CredentialIsolation, Profile, Seed, flat_name
from tests.sandbox.boxes import HOME, PROJECT, STATEDIR

TOOL = Profile(
    "tool",
    home_state=(".tool/", ".tool.json"),
    home_seed=(".tool/settings", ".tool.json"),
    home_login=(".tool/auth",),
)


def home(profile: Profile, isolation: CredentialIsolation | None = None) -> AgentHome | None:
    return home_of(
        profile,
        isolation or CredentialIsolation(),
        home=HOME,
        environ={},
        statedir=STATEDIR,
        project=PROJECT,
    )


def test_each_project_has_a_home_of_its_own() -> None:
    paths = ["/src/app", "/src/App", "/srv/app", "/src/a pp", "/src/-", "/src/\udcff", "/"]

    found = {directory_of(STATEDIR, Path(path)) for path in paths}

    assert len(found) == len(paths)
    assert all(path.parent == STATEDIR / "homes" for path in found)
    assert directory_of(STATEDIR, Path("/src/app")).name.startswith("app-")
    assert directory_of(STATEDIR, Path("/src/.x")).name.startswith("x-")


def test_a_home_has_what_the_profile_names() -> None:
    found = home(TOOL)

    assert found is not None
    assert found.state == (".tool/", ".tool.json")
    assert found.seeds[0] == Seed(".tool/settings", HOME / ".tool/settings")
    assert found.logins == (Seed(".tool/auth", HOME / ".tool/auth"),)


def test_a_profile_that_keeps_nothing_has_no_home() -> None:
    assert home(Profile("shell")) is None


def test_a_login_that_stays_outside_is_not_copied() -> None:
    found = home(TOOL, CredentialIsolation(logins=(HOME / ".tool/auth",)))

    assert found is not None
    assert (found.logins, found.withheld) == ((), (".tool/auth",))


def test_entries_are_kept_beside_each_other_and_never_in_one_another() -> None:
    nested = replace(
        TOOL, home_state=(".config/tool/", ".config%2Ftool"), home_seed=(), home_login=()
    )

    found = home(nested)

    assert found is not None
    places = [found.source_of(name) for name in found.state]
    assert len({*places}) == 2
    assert {place.parent for place in places} == {found.directory / "state"}
    assert flat_name(".a/b/") == ".a%2Fb"


def test_what_is_in_another_entry_is_not_kept_twice() -> None:
    found = home(replace(TOOL, home_state=(".tool/", ".tool/deep/", ".tool.json")))

    assert found is not None
    assert found.state == (".tool/", ".tool.json")


def test_what_a_profile_shares_is_not_kept() -> None:
    found = home(replace(TOOL, home_write=(".tool/",)))

    assert found is not None
    assert found.state == (".tool.json",)
    assert [seed.name for seed in found.seeds] == [".tool.json"]


@pytest.mark.parametrize("name", [".other/x", ".tool.json/x", ".toolx"])
def test_what_is_copied_has_to_be_kept(name: str) -> None:
    with pytest.raises(ConfigError, match="home_state") as caught:
        home(replace(TOOL, home_seed=(name,)))

    assert name in (caught.value.where or "")


def test_a_seed_may_be_the_projects_own() -> None:
    found = home(replace(TOOL, home_seed=(".tool/projects/{project}",)))

    assert found is not None
    assert found.seeds[0].name == ".tool/projects/-home-ann-project"


def test_the_agents_own_variable_says_where_its_files_are() -> None:
    environ = {"CLAUDE_CONFIG_DIR": "/data/claude", "CODEX_HOME": "relative"}

    assert outside(".claude/settings.json", HOME, environ) == Path("/data/claude/settings.json")
    assert outside(".claude.json", HOME, environ) == Path("/data/claude/.claude.json")
    assert outside(".codex/auth.json", HOME, environ) == HOME / ".codex/auth.json"
    assert outside(".claude-other", HOME, environ) == HOME / ".claude-other"


def test_a_shared_profile_keeps_nothing_and_writes_the_users_own() -> None:
    found = shared(replace(TOOL, home_write=(".x",)))

    assert found.home_write == (".x", ".tool/", ".tool.json")
    assert home(found) is None
