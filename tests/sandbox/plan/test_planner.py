"""What a run sees: tested as a plan, without a machine, and in a real sandbox."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.sandbox.plan import environment
from claude_proxy.sandbox.plan.model import (
    Mount,
    MountKind,
    PathKind,
    Profile,
    Program,
    ResourceLimits,
    User,
    Worktree,
)
from claude_proxy.sandbox.plan.planner import paths_to_inspect, plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    HOME,
    PROJECT,
    RUNDIR,
    SHARED,
    Box,
    Paths,
    a_spec,
    paths,
    some_facts,
    started,
)
from tests.sandbox.plan.plans import read, refused, triples, written

# Namespaces and the command


def test_a_run_has_its_own_namespaces_and_no_capability() -> None:
    options = plan_sandbox(a_spec(), some_facts()).options

    assert {f"--unshare-{name}" for name in ("user", "net", "pid", "ipc", "uts")} <= {*options}
    assert {"--die-with-parent", "--clearenv", "--unshare-cgroup-try"} <= {*options}
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert options[options.index("--chdir") + 1] == str(PROJECT)


def test_the_terminal_is_shared_only_if_the_filter_denies_typing_into_it() -> None:
    with_filter = plan_sandbox(a_spec(), some_facts()).options
    without = plan_sandbox(a_spec(seccomp=False), some_facts()).options

    assert "--seccomp" in with_filter
    assert "--new-session" not in with_filter
    assert "--seccomp" not in without
    assert {"--new-session", "--disable-userns"} <= {*without}


def test_a_run_has_its_own_network_namespace_with_and_without_a_proxy() -> None:
    assert "--unshare-net" in plan_sandbox(a_spec(network=NetworkMode.NONE), some_facts()).options


def test_an_unfiltered_run_has_the_hosts_network_and_name_resolution() -> None:
    facts = some_facts(resolver={"/etc/resolv.conf": b"nameserver 192.0.2.53\n"})

    planned = plan_sandbox(a_spec(network=NetworkMode.OPEN), facts)

    assert "--unshare-net" not in planned.options
    assert b"nameserver 192.0.2.53\n" in planned.files.values()
    assert "https_proxy" not in planned.environment


def test_a_filtered_run_does_not_see_the_hosts_name_resolution() -> None:
    facts = some_facts(resolver={"/etc/resolv.conf": b"nameserver 192.0.2.53\n"})

    assert b"nameserver 192.0.2.53\n" not in plan_sandbox(a_spec(), facts).files.values()


def test_the_command_gets_default_signals_if_env_supports_it() -> None:
    env = Path("/usr/bin/env")

    assert plan_sandbox(a_spec(), some_facts(default_signal=env)).command == (
        str(env),
        "--default-signal=INT,QUIT",
        "/usr/bin/true",
    )


def test_each_file_system_in_memory_has_the_given_size() -> None:
    planned = plan_sandbox(a_spec(limits=ResourceLimits(tmpfs=4096)), some_facts())

    words = planned.options
    places = [words[at + 1] for at, word in enumerate(words) if word == "--tmpfs"]
    assert {"/tmp", "/var/tmp", "/dev/shm", "/run", str(HOME)} <= set(places)
    assert words.count("--size") == len(places)
    assert "--remount-ro /dev " in " ".join(words)


def test_a_bwrap_that_knows_no_size_is_said() -> None:
    facts = some_facts(bwrap_version=(0, 6, 3))
    planned = plan_sandbox(a_spec(limits=ResourceLimits(tmpfs=4096)), facts)

    assert "--size" not in planned.options
    assert any("--tmpfs-size has no effect" in note for note in planned.notes)


def test_the_users_shell_is_used_if_it_is_visible_inside() -> None:
    own = some_facts(environ={"SHELL": "/usr/bin/bash"})
    elsewhere = some_facts(environ={"SHELL": "/home/ann/sh"})

    assert plan_sandbox(a_spec(shell=True), own).command[-1] == "/usr/bin/bash"
    assert plan_sandbox(a_spec(shell=True), elsewhere).command[-1] == "/bin/sh"


# Files


def test_the_project_is_writable_and_the_system_read_only() -> None:
    planned = plan_sandbox(a_spec(), some_facts())

    assert str(PROJECT) in written(planned)
    assert "/usr" in read(planned)
    assert "/usr" not in written(planned)


def test_a_merged_usr_keeps_its_links() -> None:
    found = paths(Path("/usr/lib"), links={Path("/lib"): Path("/usr/lib")})

    assert ("/usr/lib", "/lib") in triples(plan_sandbox(a_spec(), some_facts(found)), "symlink")


def test_the_home_is_empty_except_for_the_profiles_paths() -> None:
    found = paths(HOME / "other", files=[HOME / ".gitconfig"])
    planned = plan_sandbox(a_spec(), some_facts(found))

    below = {place for place in written(planned) | read(planned) if place.startswith(str(HOME))}
    assert below == {str(PROJECT), str(HOME / ".gitconfig")}
    assert "--tmpfs" in planned.options


def test_a_profiles_writable_path_is_created_if_it_is_missing() -> None:
    planned = plan_sandbox(a_spec(profile=SHARED), some_facts())

    assert [(each.path.name, each.kind, each.content) for each in planned.to_create] == [
        (".claude", PathKind.DIRECTORY, b""),
        (".claude.json", PathKind.FILE, b"{}\n"),
    ]
    assert {str(HOME / ".claude"), str(HOME / ".claude.json")} <= written(planned)


def test_settings_that_programs_outside_obey_are_read_only_in_writable_directories() -> None:
    profile = replace(SHARED, home_protect=(".claude/settings.json", ".claude/hooks"))
    settings = HOME / ".claude/settings.json"
    found = paths(HOME / ".claude", files=[settings, HOME / ".claude.json"])

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert str(settings) in read(planned)
    assert HOME / ".claude/hooks" in planned.watched


def test_a_secret_that_is_named_is_shown() -> None:
    found = paths(files=[HOME / ".npmrc"])

    planned = plan_sandbox(a_spec(allow_ro=(HOME / ".npmrc",)), some_facts(found))

    assert str(HOME / ".npmrc") in read(planned)
    assert planned.masked == ()


def test_a_project_named_by_allow_ro_is_read_only() -> None:
    planned = plan_sandbox(a_spec(allow_ro=(PROJECT,)), some_facts())

    assert str(PROJECT) in read(planned)
    assert str(PROJECT) not in written(planned)


def test_a_project_that_does_not_exist_is_an_error() -> None:
    assert "does not exist" in refused(a_spec(project=Path("/data/none"))).what


def test_a_missing_path_cannot_be_allowed() -> None:
    assert "this path does not exist" in refused(a_spec(allow_ro=(Path("/data/x"),))).what


def test_a_toolchain_that_leads_to_a_secret_is_not_shown() -> None:
    found = paths(HOME / ".ssh", links={HOME / ".local/bin": HOME / ".ssh"})

    assert str(HOME / ".local/bin") not in read(plan_sandbox(a_spec(), some_facts(found)))


# What the user's own programs obey outside


def test_files_that_the_users_programs_obey_are_read_only() -> None:
    git = PROJECT / ".git"
    found = paths(
        git, git / "hooks", PROJECT / ".vscode", files=[git / "config", PROJECT / ".envrc"]
    )

    planned = plan_sandbox(a_spec(), some_facts(found, git_directories=(git,)))

    guarded = {str(git / "hooks"), str(git / "config"), str(PROJECT / ".envrc")}
    assert guarded | {str(PROJECT / ".vscode")} <= read(planned)
    assert str(git) in written(planned), "mounted on itself, it cannot be renamed"
    assert PROJECT / ".idea" in planned.watched


def test_allow_rw_makes_a_read_only_path_writable() -> None:
    git = PROJECT / ".git"
    found = paths(git, git / "hooks", files=[git / "config"])

    planned = plan_sandbox(
        a_spec(allow_rw=(git / "config",)), some_facts(found, git_directories=(git,))
    )

    assert str(git / "config") in written(planned)
    assert str(git / "hooks") in read(planned)


def test_missing_hooks_cannot_be_added(box: Box) -> None:
    subprocess.run(["git", "init", "-q", "--template=", box.project], check=True)

    done = box.sh("mkdir -p .git/hooks; echo bad > .git/hooks/pre-commit")

    assert done.code != 0
    assert list((box.project / ".git/hooks").iterdir()) == []


def test_allow_rw_for_more_than_the_project_keeps_its_read_only_paths() -> None:
    around = Path("/data")
    project = around / "p"
    found = paths(around, project, files=[project / ".envrc"])

    planned = plan_sandbox(a_spec(project=project, allow_rw=(around, project)), some_facts(found))

    assert str(project / ".envrc") in read(planned)


@pytest.mark.parametrize("profile", [Profile("shell"), CLAUDE, Profile("own")])
def test_what_any_agent_or_tool_obeys_is_read_only_whatever_the_profile(profile: Profile) -> None:
    codex, settings = PROJECT / ".codex", PROJECT / ".claude/settings.json"
    found = paths(codex, settings.parent, files=[settings, PROJECT / ".npmrc"])

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert {str(codex), str(settings), str(PROJECT / ".npmrc")} <= read(planned)
    assert str(settings.parent / "commands") not in read(planned)


def test_an_environment_of_python_is_kept_where_it_exists_and_can_be_created_elsewhere() -> None:
    activate = PROJECT / ".venv/bin/activate"

    planned = plan_sandbox(a_spec(), some_facts(paths(activate.parent, files=[activate])))

    assert str(activate) in read(planned)
    assert not [path for path in planned.watched if "venv" in str(path)]


def test_a_writable_directory_elsewhere_keeps_what_tools_obey_in_it_read_only() -> None:
    other = Path("/data/other")
    found = paths(other, other / ".vscode", other / ".zed", files=[other / ".envrc"])

    planned = plan_sandbox(a_spec(allow_rw=(other, other / ".zed")), some_facts(found))

    assert {str(other / ".vscode"), str(other / ".envrc")} <= read(planned)
    assert str(other / ".zed") in written(planned), "it was named itself"


def test_a_repository_that_is_a_writable_directory_keeps_what_git_obeys_read_only() -> None:
    git, linked = Path("/data/repo/.git"), Path("/data/linked")
    found = paths(git.parent, git, git / "hooks", linked, files=[git / "config", linked / ".git"])

    planned = plan_sandbox(a_spec(allow_rw=(git.parent, linked)), some_facts(found))

    assert {str(git / "hooks"), str(git / "config"), str(linked / ".git")} <= read(planned)
    assert str(git) in written(planned), "mounted on itself, it cannot be renamed"


def test_only_what_the_owner_names_is_protected_when_it_appears() -> None:
    profile = Profile("own", protect=("Makefile",))
    spec = a_spec(profile=profile, read_only=("kept",), hide=("secret",))

    planned = plan_sandbox(spec, some_facts())

    awaited = {PROJECT / "Makefile", PROJECT / "kept", PROJECT / "secret"}
    assert {mount.at for mount in planned.guarded} == awaited
    assert {PROJECT / ".git", PROJECT / ".envrc", PROJECT / "Makefile"} <= set(planned.watched)


def test_a_link_instead_of_a_read_only_file_is_watched_and_its_target_read_only() -> None:
    found = paths(PROJECT / "x", links={PROJECT / ".vscode": PROJECT / "x"})

    planned = plan_sandbox(a_spec(), some_facts(found))

    assert PROJECT / ".vscode" in planned.watched
    assert str(PROJECT / "x") in read(planned)
    assert str(PROJECT / ".vscode") not in read(planned)


def test_a_link_out_of_the_project_shows_nothing() -> None:
    elsewhere = Path("/data/other")
    found = paths(elsewhere, links={PROJECT / ".vscode": elsewhere})

    assert str(elsewhere) not in read(plan_sandbox(a_spec(), some_facts(found)))


def test_a_projects_file_hides_paths_and_makes_them_read_only() -> None:
    found = paths(PROJECT / "a/secrets", PROJECT / "docs", files=[PROJECT / ".env"])

    planned = plan_sandbox(
        a_spec(hide=("a/secrets", ".env", "none"), read_only=("docs",)), some_facts(found)
    )

    assert planned.masked == (PROJECT / "a/secrets", PROJECT / ".env")
    assert str(PROJECT / "docs") in read(planned)
    assert str(PROJECT / "a") in written(planned), "the way to what is hidden cannot be moved"


def test_a_worktree_has_its_repository_with_read_only_settings() -> None:
    common = HOME / "main/.git"
    git = common / "worktrees/w"
    found = paths(common, git, common / "hooks", files=[common / "config", PROJECT / ".git"])
    facts = some_facts(found, worktree=Worktree(git, common), git_directories=(common, git))

    planned = plan_sandbox(a_spec(), facts)

    assert str(common) in written(planned)
    assert {str(common / "hooks"), str(common / "config"), str(PROJECT / ".git")} <= read(planned)


# The command's own files


def test_a_program_elsewhere_is_shown_with_its_tree_and_its_links() -> None:
    tree = Path("/data/x/node_modules")
    program = Program(
        tree / ".bin/tool",
        tree / "tool/cli.js",
        ((Path("/data/bin/tool"), str(tree / ".bin/tool")),),
        (tree,),
    )
    facts = some_facts(
        paths(tree), program=program, environ={"PATH": "/data/bin:/data/none:/usr/bin:rel"}
    )

    planned = plan_sandbox(a_spec(), facts)

    assert str(tree) in read(planned)
    assert (str(tree / ".bin/tool"), "/data/bin/tool") in triples(planned, "symlink")
    assert planned.environment["PATH"] == "/data/bin:/usr/bin"


def test_a_program_among_secrets_is_refused() -> None:
    tool = HOME / ".ssh/tool"

    refused(a_spec(), some_facts(paths(files=[tool]), program=Program(tool, tool, (), (tool,))))


def test_a_program_whose_environment_is_the_home_itself_is_refused() -> None:
    program = Program(HOME / "v/tool", HOME / "v/tool", (), (HOME,))

    assert "whole home" in refused(a_spec(), some_facts(program=program)).what


def test_a_program_that_the_project_links_to_elsewhere_is_refused() -> None:
    program = Program(PROJECT / "tool", Path("/data/diary"))

    error = refused(a_spec(), some_facts(program=program))

    assert "--allow-ro /data" in (error.fix or "")


# Variables


def test_every_path_that_a_plan_needs_is_inspected_before() -> None:
    """A path that was not inspected is a programming error, not a missing path."""
    spec = a_spec(profile=replace(CLAUDE, home_protect=(".claude/x",)), hide=("a",))
    user = User("ann", 1000, 1000, HOME)
    facts = some_facts()
    asked = paths_to_inspect(
        spec, user, facts.environ, facts.confdir, facts.statedir, facts.run_directory
    )
    known = dict(Paths((path, facts.paths[path]) for path in asked))

    plan_sandbox(spec, replace(facts, paths=known))


# In a real sandbox


def test_the_home_is_not_visible_inside(box: Box) -> None:
    done = box.sh("ls -A ~ ~/project; cat ~/.ssh/id ~/.npmrc ~/other/file")

    assert done.out.split() == [str(box.home) + ":", "project", str(box.project) + ":"]
    assert "SECRET" not in done.out


def test_the_project_is_writable_and_the_system_is_not(box: Box) -> None:
    done = box.sh(
        "echo x > made; for place in / /usr /etc /run/claude-proxy /proc/sys/vm /sys;"
        " do echo x > $place/made && echo wrote $place; done"
    )

    assert "wrote" not in done.out
    assert (box.project / "made").read_text() == "x\n"


def test_settings_of_the_kernel_cannot_be_written_even_by_root(box: Box) -> None:
    done = box.sh(
        "find /proc/sys /proc/irq /proc/bus /sys -type f -writable 2>/dev/null |"
        " while read -r file; do { : >> $file; } 2>/dev/null && echo $file; done;"
        " echo core > /proc/sys/kernel/core_pattern && echo wrote; echo h > /proc/sysrq-trigger"
        " && echo wrote"
    )

    assert done.out == ""


def test_the_run_has_no_privilege_and_sees_no_other_process(box: Box) -> None:
    done = box.sh(
        "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ls -d /proc/[0-9]*"
    )

    status = dict(line.split(":\t") for line in done.out.splitlines() if ":" in line)
    assert status == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert len(done.out.split("/proc/")) < 8


def test_the_environment_is_what_the_plan_says_and_that_of_the_init_process_is_empty(
    box: Box,
) -> None:
    planned = box.plan(box.spec("/usr/bin/env"))

    done = started(planned)

    found = dict(line.split("=", 1) for line in done.out.splitlines())
    assert found == planned.environment
    assert box.sh("cat /proc/1/environ").out == ""


def test_files_that_programs_outside_obey_cannot_be_written_moved_or_replaced(box: Box) -> None:
    subprocess.run(["git", "init", "-q", box.project], check=True)
    (box.project / ".envrc").write_text("kept\n")
    (box.project / ".git/hooks").mkdir(exist_ok=True)

    done = box.sh(
        "echo bad > .git/hooks/pre-commit; echo bad > .git/config; echo bad > .envrc;"
        " mv .git/hooks .git/h; mv .git g; mv .envrc e; rm -rf .git .envrc; ln -sf /tmp/x .envrc;"
        " git init -q . ; git config core.fsmonitor 'touch bad'"
    )

    assert done.code != 0
    assert (box.project / ".envrc").read_text() == "kept\n"
    assert "bad" not in (box.project / ".git/config").read_text()
    assert not (box.project / ".git/hooks/pre-commit").exists()
    assert not (box.project / "g").exists()


def test_git_works_in_the_project(box: Box) -> None:
    subprocess.run(["git", "init", "-q", box.project], check=True)

    done = box.sh(
        "echo x > file && git add file &&"
        " git -c user.name=a -c user.email=a@example.com commit -qm one && git log --oneline"
    )

    assert "one" in done.out


def test_a_link_that_an_agent_created_shows_nothing(box: Box) -> None:
    for name in ("sub", ".vscode", ".claude", ".envrc", ".git", ".mcp.json", ".idea"):
        (box.project / name).symlink_to(box.home / ".ssh")

    done = box.sh("cat sub/id .vscode/id .claude/id .envrc/id .git/id; ls -A ~", profile=CLAUDE)

    assert "SECRET" not in done.out
    assert (box.home / ".ssh/id").read_text() == "SECRET\n"


def test_the_target_of_a_link_in_the_project_is_not_created_on_the_host(box: Box) -> None:
    (box.project / ".vscode").symlink_to(box.home / "made")

    box.sh("true")

    assert not (box.home / "made").exists()


def test_a_project_name_is_never_taken_for_an_option(box: Box) -> None:
    project = box.home / "--bind ';$(x)\n\u00e9"
    project.mkdir()

    done = Box(box.home, project).sh("echo x > made")

    assert done.code == 0
    assert (project / "made").exists()


def test_hidden_paths_of_the_project_are_empty(box: Box) -> None:
    (box.project / "keys").mkdir()
    (box.project / "keys/a").write_text("SECRET")
    (box.project / ".env").write_text("SECRET")

    done = box.sh(
        "cat keys/a .env; mv keys k; rm -rf keys .env; cat k/a keys/a", hide=("keys", ".env")
    )

    assert "SECRET" not in done.out
    assert (box.project / ".env").read_text() == "SECRET"


def test_without_the_filter_no_other_namespace_can_be_created(box: Box) -> None:
    done = box.sh("unshare -Ur true && echo made", seccomp=False)

    assert "made" not in done.out


def test_only_loopback_exists_and_names_do_not_resolve(box: Box) -> None:
    done = box.sh(
        "tail -n +3 /proc/net/dev | cut -d: -f1; getent hosts example.com; cat /etc/resolv.conf"
    )

    lines = done.out.splitlines()
    assert lines[:3] == ["    lo", "# Only the proxy resolves names.", "nameserver 127.0.0.1"]
    assert box.sh("getent hosts localhost").out.startswith("127.0.0.1")


def test_files_for_the_run_are_readable_and_not_writable(box: Box) -> None:
    done = box.sh(f"cat {environment.CERTIFICATE}; echo x > {environment.CERTIFICATE}")

    assert done.out == "a certificate"
    assert done.code != 0


def test_the_copy_of_the_list_is_a_link_into_a_directory_that_can_be_followed() -> None:
    facts = some_facts(
        shown={"ca.pem": b"a certificate", "allowlist.yaml": b"allow: []"},
        followed=RUNDIR / "list",
    )

    planned = plan_sandbox(a_spec(), facts)

    found = {mount.at: mount for mount in planned.mounts}
    directory = Path("/run/claude-proxy/list")
    assert found[directory] == Mount(MountKind.READ, directory, RUNDIR / "list")
    assert found[Path("/run/claude-proxy/allowlist.yaml")].source == "list/allowlist.yaml"
    assert found[Path("/run/claude-proxy/gitconfig")].source == "list/gitconfig"
    assert b"allow: []" not in planned.files.values()


def test_agent_files_are_looked_for_where_the_run_may_write() -> None:
    other = HOME / "other"
    spec = a_spec(profile=SHARED, allow_rw=(other,))

    planned = plan_sandbox(spec, some_facts(paths(other, HOME / ".claude")))

    own = {HOME / ".claude", HOME / ".claude.json"}
    assert {tree.path for tree in planned.watched_trees} == {PROJECT, other, *own}


def test_agent_files_are_not_looked_for_where_the_run_may_only_read() -> None:
    planned = plan_sandbox(a_spec(allow_ro=(PROJECT,)), some_facts())

    assert planned.watched_trees == ()


def test_the_directories_for_sockets_are_the_sandboxs_own() -> None:
    planned = plan_sandbox(a_spec(), some_facts())

    kinds = {str(mount.at): (mount.kind, mount.mode) for mount in planned.mounts}
    directories = [planned.environment[name] for name in ("TMPDIR", "XDG_RUNTIME_DIR")]
    assert [kinds[directory] for directory in directories] == [
        (MountKind.EMPTY, "1777"),
        (MountKind.EMPTY, "0700"),
    ]
