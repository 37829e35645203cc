"""The home of a run is empty but for what is named, and nothing in it hides something."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.sandbox.plan.agent_home import directory_of, shared
from claude_proxy.sandbox.plan.home_mounts import paths_to_inspect
from claude_proxy.sandbox.plan.model import MountKind, PathKind, Profile, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    HOME,
    PROJECT,
    SHARED,
    STATEDIR,
    Box,
    a_spec,
    paths,
    some_facts,
)
from tests.sandbox.plan.plans import read, refused, triples, written

KEPT = directory_of(STATEDIR, PROJECT) / "state"


def mounts_below_home(planned: SandboxPlan) -> set[Path]:
    return {mount.at for mount in planned.mounts if mount.at.is_relative_to(HOME)}


def test_an_agents_files_are_those_that_are_kept_for_the_project() -> None:
    found = paths(HOME / ".claude", files=[HOME / ".claude.json"])

    planned = plan_sandbox(a_spec(profile=CLAUDE), some_facts(found))

    assert (str(KEPT / ".claude"), str(HOME / ".claude")) in triples(planned, "bind")
    assert (str(KEPT / ".claude.json"), str(HOME / ".claude.json")) in triples(planned, "bind")
    assert planned.warnings == ()
    assert planned.to_create == ()


def test_what_is_mounted_in_an_agents_files_has_its_place_there() -> None:
    profile = replace(CLAUDE, home_read=(".claude/local", ".claude/skills", ".claude/x.md"))
    found = paths(
        HOME / ".claude/local",
        Path("/data/skills"),
        files=[HOME / ".claude/x.md"],
        links={HOME / ".claude/skills": Path("/data/skills")},
    )

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert planned.agent_home is not None
    assert set(planned.agent_home.mount_points) == {
        ".claude/local/",
        ".claude/skills/",
        ".claude/x.md",
    }
    assert ("/data/skills", str(HOME / ".claude/skills")) in triples(planned, "ro-bind")


def test_a_link_in_the_way_of_a_mount_stops_no_run(box: Box) -> None:
    profile = replace(CLAUDE, home_read=(".claude/local", ".claude/x.md"))
    (box.home / ".claude/local").mkdir(parents=True)
    (box.home / ".claude/local/claude").write_text("program\n")
    (box.home / ".claude/x.md").write_text("text\n")
    box.sh("ln -s ~/project ~/.claude/local; mkdir -p ~/.claude/x.md/y", profile=CLAUDE)

    done = box.sh(
        "cat ~/.claude/local/claude ~/.claude/x.md; rm -rf ~/.claude/local/claude", profile=profile
    )

    assert done.out == "program\ntext\n"
    assert (box.home / ".claude/local/claude").exists()
    assert list(box.project.iterdir()) == []


def test_the_home_is_always_a_file_system_of_its_own() -> None:
    for profile in (CLAUDE, SHARED, Profile("shell")):
        planned = plan_sandbox(a_spec(profile=profile), some_facts())

        [home] = [mount for mount in planned.mounts if mount.at == HOME]
        assert home.kind is MountKind.EMPTY
        assert planned.masked == ()


def test_only_what_is_named_is_mounted_in_the_home() -> None:
    found = paths(HOME / ".config/tool", HOME / ".ssh", HOME / ".unknown-secrets")
    profile = Profile("own", home_read=(".config/tool", ".none"))

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert mounts_below_home(planned) == {HOME, PROJECT, HOME / ".config/tool"}


def test_what_is_shown_of_the_home_is_read_only() -> None:
    found = paths(HOME / "notes", files=[HOME / ".vimrc"])

    planned = plan_sandbox(a_spec(show_home=(HOME / "notes", HOME / ".vimrc")), some_facts(found))

    assert {str(HOME / "notes"), str(HOME / ".vimrc")} <= read(planned)
    assert not {str(HOME / "notes"), str(HOME / ".vimrc")} & written(planned)


def test_a_toolchain_that_contains_a_secret_is_shown_without_it(box: Box) -> None:
    uv = box.home / ".local/share/uv"
    for name in ("python/bin", "credentials"):
        (uv / name).mkdir(parents=True)
    (uv / "credentials/token").write_text("SECRET\n")
    (uv / "python/bin/python").write_text("program\n")

    done = box.sh(
        "cat ~/.local/share/uv/python/bin/python; grep -rs SECRET ~; ls ~/.local/share/uv"
    )

    assert done.out.split() == ["program", "python"]


def test_a_profile_that_writes_the_users_own_files_is_said_to() -> None:
    profile = replace(CLAUDE, home_write=(".tool/",))

    [line] = plan_sandbox(a_spec(profile=profile), some_facts()).warnings

    assert "~/.tool" in line
    assert "home_write" in line


def test_a_part_that_the_profile_writes_itself_is_not_read_only_after_all() -> None:
    names = (".claude/skills", ".claude/settings.json", ".claude/hooks")
    profile = Profile("own", home_write=(".claude/", ".claude/skills/"), home_protect=names)
    found = paths(
        HOME / ".claude",
        HOME / ".claude/skills",
        HOME / ".claude/hooks",
        files=[HOME / ".claude/settings.json"],
    )

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert str(HOME / ".claude/skills") in written(planned)
    assert {str(HOME / ".claude/settings.json"), str(HOME / ".claude/hooks")} <= read(planned)


@pytest.mark.parametrize("target", [".ssh/config", ".netrc"])
def test_a_link_that_a_profile_names_shows_no_secret_and_stops_no_run(target: str) -> None:
    secret = HOME / target
    found = paths(HOME / ".ssh", files=[secret], links={HOME / ".gitconfig": secret})

    planned = plan_sandbox(a_spec(), some_facts(found))

    assert str(secret) not in read(planned)
    assert any("~/.gitconfig" in note for note in planned.notes)


def test_sharing_an_agents_home_names_what_it_opens() -> None:
    spec = a_spec(profile=shared(CLAUDE), share_agent_home=True)

    planned = plan_sandbox(spec, some_facts())

    assert planned.agent_home is None
    assert {str(HOME / ".claude"), str(HOME / ".claude.json")} <= written(planned)
    [line] = planned.warnings
    for opened in ("~/.claude", "hooks", "MCP servers", "shell snapshots", "transcripts", "login"):
        assert opened in line


def test_what_the_profile_shares_is_created_if_it_is_missing() -> None:
    planned = plan_sandbox(a_spec(profile=SHARED), some_facts())

    assert [each.kind for each in planned.to_create] == [PathKind.DIRECTORY, PathKind.FILE]


def test_a_protected_file_cannot_be_copied_into_a_home() -> None:
    profile = Profile("own", home_state=(".ssh/",), home_seed=(".ssh/config",))

    assert "is never shown" in refused(a_spec(profile=profile), some_facts()).what


@pytest.mark.parametrize(
    ("target", "followed"),
    [
        (HOME / "dotfiles/settings.json", True),
        (HOME / "dotfiles/other.json", False),
        (HOME / ".config/Code/settings.json", False),
        (HOME / ".aws", False),
        (Path("/data/settings.json"), False),
    ],
)
def test_settings_that_are_a_link_to_a_file_of_that_name_are_copied(
    target: Path, *, followed: bool
) -> None:
    link = HOME / ".claude/settings.json"
    profile = replace(CLAUDE, home_seed=(".claude/settings.json",))
    found = paths(HOME / ".claude", files=[target], links={link: target})

    if target == HOME / ".aws":
        assert "is never shown" in refused(a_spec(profile=profile), some_facts(found)).what
        return
    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert planned.agent_home is not None
    assert planned.agent_home.seeds[0].source == (target if followed else link)


def test_everything_that_is_shown_is_inspected_before() -> None:
    spec = a_spec(profile=SHARED, show_home=(HOME / "notes",))

    assert {HOME / ".claude", HOME / "notes", HOME / ".cargo/bin"} <= paths_to_inspect(
        spec, HOME, {}
    )


def test_credentials_in_gits_configuration_are_not_visible(box: Box) -> None:
    config = box.home / ".gitconfig"
    config.write_text("[user]\n\tname = Ann\n[http]\n\textraheader = SECRET\n")

    planned = box.plan(box.spec("true"))
    done = box.sh("git config user.name; cat ~/.gitconfig; echo x >> ~/.gitconfig")
    whole = box.sh("cat ~/.gitconfig", show_home=(config,))

    assert any("~/.gitconfig" in note for note in planned.notes)
    assert done.out.startswith("Ann\n")
    assert "SECRET" not in done.out
    assert whole.out == config.read_text()


def test_a_secret_that_nobody_knew_of_is_not_visible(box: Box) -> None:
    for name in (".authinfo", ".cloudflared/cert", ".new-tool/token", ".config/new/key"):
        (box.home / name).parent.mkdir(parents=True, exist_ok=True)
        (box.home / name).write_text("SECRET")

    done = box.sh("grep -rs SECRET ~; ls -A ~", profile=CLAUDE)

    assert done.out.split() == [".claude", ".claude.json", "project"]


def test_what_is_written_in_the_home_reaches_only_what_is_kept(box: Box) -> None:
    (box.home / ".claude").mkdir()

    box.sh("echo x > ~/.claude/hook; echo x > ~/.bashrc; echo x > ~/.claude.json", profile=CLAUDE)

    assert list((box.home / ".claude").iterdir()) == []
    assert not (box.home / ".bashrc").exists()
    assert box.sh("cat ~/.claude/hook ~/.claude.json ~/.bashrc", profile=CLAUDE).out == "x\nx\n"
