"""Tests what a run sees: as a plan, without a machine, and in a real sandbox."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import environment, protected_paths, system_mounts
from claude_proxy.sandbox.plan.model import (
    PathInfo,
    PathKind,
    Profile,
    Program,
    SandboxPlan,
    User,
    Worktree,
)
from claude_proxy.sandbox.plan.planner import paths_to_inspect, plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    CONFDIR,
    HOME,
    PROJECT,
    STATEDIR,
    Box,
    Paths,
    a_spec,
    paths,
    some_facts,
    started,
)


def triples(planned: SandboxPlan, kind: str) -> list[tuple[str, str]]:
    """Return source and place of each mount of one kind, in order."""
    words = planned.options
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == f"--{kind}"]


def written(planned: SandboxPlan) -> set[str]:
    return {place for _, place in triples(planned, "bind")}


def read(planned: SandboxPlan) -> set[str]:
    return {place for _, place in triples(planned, "ro-bind")}


def refused(spec: object, found: object = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan_sandbox(spec, found or some_facts())  # type: ignore[arg-type]
    assert caught.value.where
    assert caught.value.fix
    return caught.value


# Namespaces and the command


def test_a_run_has_namespaces_of_its_own_and_no_capability() -> None:
    options = plan_sandbox(a_spec(), some_facts()).options

    assert {f"--unshare-{name}" for name in ("user", "net", "pid", "ipc", "uts")} <= {*options}
    assert {"--die-with-parent", "--clearenv", "--unshare-cgroup-try"} <= {*options}
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert options[options.index("--chdir") + 1] == str(PROJECT)


def test_the_terminal_is_shared_only_with_the_filter_that_keeps_it_from_being_typed_into() -> None:
    with_filter = plan_sandbox(a_spec(), some_facts()).options
    without = plan_sandbox(a_spec(seccomp=False), some_facts()).options

    assert "--seccomp" in with_filter
    assert "--new-session" not in with_filter
    assert "--seccomp" not in without
    assert {"--new-session", "--disable-userns"} <= {*without}


def test_a_network_of_its_own_is_there_whether_the_proxy_is_wanted_or_not() -> None:
    assert "--unshare-net" in plan_sandbox(a_spec(network=False), some_facts()).options


def test_an_unfiltered_run_has_the_network_of_the_machine_and_finds_names_as_it_does() -> None:
    facts = some_facts(resolver={"/etc/resolv.conf": b"nameserver 192.0.2.53\n"})

    planned = plan_sandbox(a_spec(network=False, unfiltered=True), facts)

    assert "--unshare-net" not in planned.options
    assert b"nameserver 192.0.2.53\n" in planned.files.values()
    assert "https_proxy" not in planned.environment


def test_a_filtered_run_learns_nothing_of_how_the_machine_finds_names() -> None:
    facts = some_facts(resolver={"/etc/resolv.conf": b"nameserver 192.0.2.53\n"})

    assert b"nameserver 192.0.2.53\n" not in plan_sandbox(a_spec(), facts).files.values()


def test_the_command_takes_signals_again_where_env_can_arrange_it() -> None:
    env = Path("/usr/bin/env")

    assert plan_sandbox(a_spec(), some_facts(default_signal=env)).command == (
        str(env),
        "--default-signal=INT,QUIT",
        "/usr/bin/true",
    )
    assert plan_sandbox(a_spec(), some_facts()).command == ("/usr/bin/true",)


def test_a_shell_is_the_users_own_where_it_is_seen_inside() -> None:
    own = some_facts(environ={"SHELL": "/usr/bin/bash"})
    elsewhere = some_facts(environ={"SHELL": "/home/ann/sh"})

    assert plan_sandbox(a_spec(shell=True), own).command == ("/usr/bin/bash",)
    assert plan_sandbox(a_spec(shell=True), elsewhere).command == ("/bin/sh",)


def test_values_of_variables_are_not_on_the_command_line() -> None:
    facts = some_facts(environ={"TOKEN": "s3cret"})
    planned = plan_sandbox(a_spec(pass_env=("TOKEN",), seccomp=False), facts)
    descriptors = {"{info}": 5, "{block}": 6} | dict.fromkeys(planned.files, 7)

    data, argv = planned.start(descriptors, 9)

    assert b"\0--setenv\0TOKEN\0s3cret\0" in data
    assert argv == ["/usr/bin/bwrap", "--args", "9", "--", "/usr/bin/true"]
    assert b"{" not in data


def test_a_dry_run_prints_everything_but_the_values_of_passed_variables() -> None:
    facts = some_facts(environ={"TOKEN": "s3cret", "LANG": "de_DE.UTF-8"})

    text = "\n".join(plan_sandbox(a_spec(pass_env=("TOKEN",)), facts).lines())

    assert "s3cret" not in text
    assert "--setenv TOKEN '***'" in text
    assert "--setenv LANG de_DE.UTF-8" in text
    assert text.endswith("-- /usr/bin/true")


# Files


def test_the_project_is_written_and_the_system_read() -> None:
    planned = plan_sandbox(a_spec(), some_facts())

    assert str(PROJECT) in written(planned)
    assert "/usr" in read(planned)
    assert "/usr" not in written(planned)


def test_a_merged_usr_keeps_its_links() -> None:
    found = paths(Path("/usr/lib"), links={Path("/lib"): Path("/usr/lib")})

    assert ("/usr/lib", "/lib") in triples(plan_sandbox(a_spec(), some_facts(found)), "symlink")


def test_the_home_is_empty_but_for_what_the_profile_names() -> None:
    found = paths(HOME / "other", files=[HOME / ".gitconfig"])
    planned = plan_sandbox(a_spec(), some_facts(found))

    below = {place for place in written(planned) | read(planned) if place.startswith(str(HOME))}
    assert below == {str(PROJECT), str(HOME / ".gitconfig")}
    assert "--tmpfs" in planned.options


def test_what_a_profile_writes_is_made_if_it_is_missing() -> None:
    planned = plan_sandbox(a_spec(profile=CLAUDE), some_facts())

    assert [(each.path.name, each.kind, each.content) for each in planned.to_create] == [
        (".claude", PathKind.DIRECTORY, b""),
        (".claude.json", PathKind.FILE, b"{}\n"),
    ]
    assert {str(HOME / ".claude"), str(HOME / ".claude.json")} <= written(planned)


def test_settings_that_are_obeyed_outside_are_read_only_below_what_is_written() -> None:
    profile = replace(CLAUDE, home_protect=(".claude/settings.json", ".claude/hooks"))
    settings = HOME / ".claude/settings.json"
    found = paths(HOME / ".claude", files=[settings, HOME / ".claude.json"])

    planned = plan_sandbox(a_spec(profile=profile), some_facts(found))

    assert str(settings) in read(planned)
    assert HOME / ".claude/hooks" in planned.watched


@pytest.mark.parametrize(
    "name", [".ssh", ".aws/config", ".gnupg", ".kube/config", ".docker", ".mozilla"]
)
@pytest.mark.parametrize("option", ["allow_ro", "allow_rw"])
def test_what_is_never_shown_cannot_be_asked_for(name: str, option: str) -> None:
    path = HOME / name

    error = refused(a_spec(**{option: (path,)}), some_facts(paths(path)))

    assert "is never shown" in error.what


@pytest.mark.parametrize(
    "path", [CONFDIR, STATEDIR, STATEDIR / "audit", Path("/run/user/1000/bus")]
)
def test_neither_policy_nor_audit_nor_the_bus_can_be_asked_for(path: Path) -> None:
    assert "is never shown" in refused(a_spec(allow_ro=(path,)), some_facts(paths(path))).what


def test_a_link_to_what_is_never_shown_cannot_be_asked_for() -> None:
    found = paths(HOME / ".ssh", links={HOME / "keys": HOME / ".ssh"})

    assert "is never shown" in refused(a_spec(allow_ro=(HOME / "keys",)), some_facts(found)).what


def test_where_a_never_shown_link_leads_cannot_be_asked_for() -> None:
    dotfiles = Path("/data/dotfiles/ssh")
    found = paths(dotfiles, links={HOME / ".ssh": dotfiles})

    assert "is never shown" in refused(a_spec(allow_ro=(dotfiles,)), some_facts(found)).what


def test_a_directory_around_what_is_never_shown_is_shown_without_it() -> None:
    data = Path("/data")
    found = paths(data, data / "ssh", links={HOME / ".ssh": data / "ssh"})

    planned = plan_sandbox(a_spec(allow_ro=(data,)), some_facts(found))

    assert data / "ssh" in planned.masked
    order = planned.options
    assert order.index(str(data / "ssh")) > order.index(str(data))


def test_a_directory_around_what_is_never_shown_cannot_be_written() -> None:
    data = Path("/data")
    found = paths(data, data / "ssh", links={HOME / ".ssh": data / "ssh"})

    assert "which is never shown" in refused(a_spec(allow_rw=(data,)), some_facts(found)).what


def test_a_mask_is_also_where_a_link_shows_the_same_directory_again() -> None:
    found = paths(Path("/data"), files=[Path("/data/npmrc")])
    found[HOME / "link"] = PathInfo(PathKind.DIRECTORY, Path("/data"), "/data")
    found[HOME / ".npmrc"] = PathInfo(PathKind.FILE, Path("/data/npmrc"), "/data/npmrc")

    planned = plan_sandbox(a_spec(allow_ro=(HOME / "link",)), some_facts(found))

    assert {Path("/data/npmrc"), HOME / "link/npmrc"} <= {*planned.masked}


def test_a_kept_home_is_only_read_and_shown_without_secrets() -> None:
    found = paths(HOME / ".ssh", HOME / ".cache", files=[HOME / ".npmrc", HOME / ".bash_history"])

    planned = plan_sandbox(a_spec(keep_home=True), some_facts(found))

    assert str(HOME) in read(planned)
    masked = {HOME / ".ssh", HOME / ".npmrc", HOME / ".bash_history", CONFDIR, STATEDIR}
    assert masked <= {*planned.masked}


def test_a_secret_that_is_named_itself_is_shown() -> None:
    found = paths(files=[HOME / ".npmrc"])

    planned = plan_sandbox(a_spec(allow_ro=(HOME / ".npmrc",)), some_facts(found))

    assert str(HOME / ".npmrc") in read(planned)
    assert planned.masked == ()


def test_a_secret_that_a_variable_names_is_not_shown() -> None:
    keys, tokens = PROJECT / "deploy/kubeconfig", Path("/data/config/gh")
    found = paths(Path("/data"), tokens, PROJECT / "deploy", files=[keys])
    environ = {"KUBECONFIG": f"{keys}:relative", "XDG_CONFIG_HOME": "/data/config"}

    planned = plan_sandbox(a_spec(allow_ro=(Path("/data"),)), some_facts(found, environ=environ))

    assert planned.masked == (tokens, keys)


def test_a_variable_that_names_the_home_hides_nothing() -> None:
    found = plan_sandbox(a_spec(), some_facts(environ={"GNUPGHOME": str(HOME)}))

    assert found.masked == ()


def test_a_project_that_is_asked_for_read_only_is_read_only() -> None:
    planned = plan_sandbox(a_spec(allow_ro=(PROJECT,)), some_facts())

    assert str(PROJECT) in read(planned)
    assert str(PROJECT) not in written(planned)


@pytest.mark.parametrize(
    "project",
    [
        *("/", "/home", "/usr", "/etc", "/etc/x", "/tmp", "/var", "/proc/1", "/sys/x", "/run/x"),
        *(str(HOME), str(CONFDIR), str(CONFDIR.parent), str(HOME / ".ssh/x"), str(STATEDIR / "x")),
    ],
)
def test_a_project_is_neither_the_home_nor_the_system_nor_around_a_secret(project: str) -> None:
    error = refused(a_spec(project=Path(project)), some_facts(paths(Path(project))))

    assert "--dir" in (error.fix or "")


def test_a_project_that_is_a_link_to_the_home_is_refused() -> None:
    found = paths(links={Path("/data/p"): HOME})

    refused(a_spec(project=Path("/data/p")), some_facts(found))


def test_a_project_that_does_not_exist_is_an_error() -> None:
    assert "does not exist" in refused(a_spec(project=Path("/data/none"))).what


@pytest.mark.parametrize("path", ["/", "/etc", "/run", "/dev/sda", "/proc/1", "/sys"])
def test_what_is_made_anew_cannot_be_asked_for(path: str) -> None:
    refused(a_spec(allow_ro=(Path(path),)), some_facts(paths(Path(path))))


def test_what_is_not_there_cannot_be_asked_for() -> None:
    assert "nothing at this path" in refused(a_spec(allow_ro=(Path("/data/x"),))).what


@pytest.mark.parametrize("path", [HOME, HOME.parent, Path("/usr"), Path("/tmp")])
def test_neither_the_home_nor_the_system_can_be_written(path: Path) -> None:
    refused(a_spec(allow_rw=(path,)), some_facts(paths(path)))


@pytest.mark.parametrize("name", [".ssh/", ".config/", "./", ".local/state/claude-proxy/x"])
def test_a_profile_cannot_write_what_is_never_shown(name: str) -> None:
    profile = Profile("own", home_write=(name,))
    found = paths(HOME / ".ssh", HOME / ".config")

    assert "own" in (refused(a_spec(profile=profile), some_facts(found)).where or "")


def test_a_profile_cannot_write_by_a_link_to_what_is_never_shown() -> None:
    found = paths(HOME / ".ssh", links={HOME / ".claude": HOME / ".ssh"})

    assert "is never shown" in refused(a_spec(profile=CLAUDE), some_facts(found)).what


def test_a_toolchain_that_leads_to_a_secret_is_not_shown() -> None:
    found = paths(HOME / ".ssh", links={HOME / ".local/bin": HOME / ".ssh"})

    assert str(HOME / ".local/bin") not in read(plan_sandbox(a_spec(), some_facts(found)))


@pytest.mark.parametrize("home", ["/", "/usr/sbin", "/run/ann"])
def test_a_home_that_is_the_systems_cannot_be_hidden(home: str) -> None:
    user = User("ann", 1000, 1000, Path(home))
    found = paths(Path("/data/p"))

    error = refused(a_spec(project=Path("/data/p")), some_facts(found, user=user))

    assert "HOME" in (error.fix or "")


# What the user's own programs obey outside


def test_what_the_users_own_programs_obey_is_read_only() -> None:
    git = PROJECT / ".git"
    found = paths(
        git, git / "hooks", PROJECT / ".vscode", files=[git / "config", PROJECT / ".envrc"]
    )

    planned = plan_sandbox(a_spec(), some_facts(found, git_directories=(git,)))

    guarded = {str(git / "hooks"), str(git / "config"), str(PROJECT / ".envrc")}
    assert guarded | {str(PROJECT / ".vscode")} <= read(planned)
    assert str(git) in written(planned), "mounted on itself, it cannot be renamed"
    assert PROJECT / ".idea" in planned.watched


def test_a_guard_is_lifted_where_it_is_asked_for() -> None:
    git = PROJECT / ".git"
    found = paths(git, git / "hooks", files=[git / "config"])

    planned = plan_sandbox(
        a_spec(allow_rw=(git / "config",)), some_facts(found, git_directories=(git,))
    )

    assert str(git / "config") in written(planned)
    assert str(git / "hooks") in read(planned)


def test_hooks_that_are_not_there_cannot_be_added(box: Box) -> None:
    subprocess.run(["git", "init", "-q", "--template=", box.project], check=True)

    done = box.sh("mkdir -p .git/hooks; echo bad > .git/hooks/pre-commit")

    assert done.code != 0
    assert list((box.project / ".git/hooks").iterdir()) == []


def test_asking_for_more_than_the_project_lifts_no_guard() -> None:
    around = Path("/data")
    project = around / "p"
    found = paths(around, project, files=[project / ".envrc"])

    planned = plan_sandbox(a_spec(project=project, allow_rw=(around, project)), some_facts(found))

    assert str(project / ".envrc") in read(planned)


def test_a_link_in_the_place_of_a_guarded_file_is_watched_and_what_it_leads_to_guarded() -> None:
    found = paths(PROJECT / "x", links={PROJECT / ".vscode": PROJECT / "x"})

    planned = plan_sandbox(a_spec(), some_facts(found))

    assert PROJECT / ".vscode" in planned.watched
    assert str(PROJECT / "x") in read(planned)
    assert str(PROJECT / ".vscode") not in read(planned)


def test_a_link_out_of_the_project_shows_nothing() -> None:
    elsewhere = Path("/data/other")
    found = paths(elsewhere, links={PROJECT / ".vscode": elsewhere})

    assert str(elsewhere) not in read(plan_sandbox(a_spec(), some_facts(found)))


def test_a_projects_file_hides_and_write_protects() -> None:
    found = paths(PROJECT / "a/secrets", PROJECT / "docs", files=[PROJECT / ".env"])

    planned = plan_sandbox(
        a_spec(hide=("a/secrets", ".env", "none"), read_only=("docs",)), some_facts(found)
    )

    assert planned.masked == (PROJECT / "a/secrets", PROJECT / ".env")
    assert str(PROJECT / "docs") in read(planned)
    assert str(PROJECT / "a") in written(planned), "the way to what is hidden cannot be moved"


def test_a_worktree_has_its_repository_and_guards_it() -> None:
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


def test_few_variables_of_the_users_come_in() -> None:
    given_variables = {
        "PATH": "/usr/bin",
        "LC_TIME": "C",
        "TZ": "UTC",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "LD_PRELOAD": "x.so",
    }

    found = plan_sandbox(a_spec(network=False), some_facts(environ=given_variables)).environment

    assert found == {
        "HOME": str(HOME),
        "LC_TIME": "C",
        "LOGNAME": "ann",
        "PATH": "/usr/bin",
        "PWD": str(PROJECT),
        "SHELL": "/bin/sh",
        "TZ": "UTC",
        "USER": "ann",
    }


def test_every_client_is_led_to_the_relay_and_socks_stands_in_one_variable_alone() -> None:
    found = plan_sandbox(a_spec(), some_facts()).environment

    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://127.0.0.1:3128"
    assert {name for name, value in found.items() if "socks" in value} == {"ALL_PROXY"}
    assert found["NODE_EXTRA_CA_CERTS"] == "/run/claude-proxy/ca.pem"
    assert found["SSL_CERT_FILE"] == "/run/claude-proxy/bundle.pem"


def test_a_profile_sets_and_passes_but_cannot_change_the_proxy() -> None:
    profile = Profile(
        "own",
        pass_env=("KEY", "UNSET", "HTTPS_PROXY"),
        set_env=(("A", "1"), ("HOME", "/x"), ("http_proxy", "http://evil.example")),
    )
    facts = some_facts(environ={"KEY": "k", "HTTPS_PROXY": "http://corporate.example"})

    found = plan_sandbox(a_spec(profile=profile), facts).environment

    assert (found["A"], found["KEY"], found["HOME"]) == ("1", "k", str(HOME))
    assert "UNSET" not in found
    assert found["HTTPS_PROXY"] == found["http_proxy"] == "http://127.0.0.1:3128"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("TOKEN", "is not set"),
        ("TOKEN=x", "not its value"),
        ("1x", "not a variable name"),
        ("HTTPS_PROXY", "set for the run itself"),
        ("HOME", "set for the run itself"),
        ("SSH_AUTH_SOCK", "a socket"),
        ("DOCKER_HOST", "a socket"),
    ],
)
def test_a_variable_that_cannot_be_passed_is_an_error(name: str, told: str) -> None:
    error = refused(a_spec(pass_env=(name,)), some_facts(environ={"HTTPS_PROXY": "x"}))

    assert told in error.what
    assert "=x" not in (error.where or "")


# Whatever is asked


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
def test_nothing_that_is_never_shown_is_ever_mounted(
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
                assert any(inside.is_relative_to(mask) for mask in masks) or _is_covered(
                    planned, inside, Path(place)
                )


def _is_covered(planned: SandboxPlan, inside: Path, place: Path) -> bool:
    """Tell whether something deeper than `place` is mounted over `inside`."""
    words = planned.options
    deeper = [Path(words[at + 1]) for at, word in enumerate(words) if word == "--tmpfs"]
    deeper += [Path(there) for _, there in triples(planned, "bind") + triples(planned, "ro-bind")]
    return any(inside.is_relative_to(path) and path != place for path in deeper)


def test_every_question_of_a_plan_is_asked_before() -> None:
    """A path that nobody looked at is a mistake of ours, not a path that is missing."""
    spec = a_spec(profile=replace(CLAUDE, home_protect=(".claude/x",)), hide=("a",))
    user = User("ann", 1000, 1000, HOME)
    facts = some_facts()
    asked = paths_to_inspect(
        spec, user, facts.environ, facts.confdir, facts.statedir, facts.run_directory
    )
    known = dict(Paths((path, facts.paths[path]) for path in asked))

    plan_sandbox(spec, replace(facts, paths=known))


PURE = ("wish", "plan", "never", "system", "surroundings", "needs", "mountinfo", "seatbelt")


def test_etc_shows_nothing_that_could_hold_a_secret() -> None:
    hidden = (
        *(
            "shadow",
            "shadow-",
            "gshadow",
            "sudoers",
            "sudoers.d",
            "ssh",
            "NetworkManager",
            "docker",
        ),
        *(
            "machine-id",
            "environment",
            "krb5.conf",
            "krb5.keytab",
            "passwd-",
            "netplan",
            "wireguard",
        ),
        *("npmrc", "pip.conf", "fstab", "crypttab", "hosts.allow", "ssl", "pki", "mysql", "cron.d"),
    )

    assert [name for name in hidden if system_mounts.is_shown_in_etc(name)] == []


def test_the_list_of_users_names_those_who_are_inside() -> None:
    text = system_mounts.files(User("ann", 1000, 1000, HOME))["/etc/passwd"].decode()

    assert [line.split(":")[0] for line in text.splitlines()] == ["root", "ann", "nobody"]


# In a real sandbox


def test_nothing_of_the_home_is_seen_inside(box: Box) -> None:
    done = box.sh("ls -A ~ ~/project; cat ~/.ssh/id ~/.npmrc ~/other/file")

    assert done.out.split() == [str(box.home) + ":", "project", str(box.project) + ":"]
    assert "SECRET" not in done.out


def test_the_project_can_be_written_and_the_system_cannot(box: Box) -> None:
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


def test_a_kept_home_shows_no_secret(box: Box) -> None:
    done = box.sh("cat ~/other/file; grep -rs SECRET ~; echo x > ~/made", keep_home=True)

    assert done.out.splitlines() == ["SECRET", f"{box.home}/other/file:SECRET"]
    assert not (box.home / "made").exists()


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


def test_what_is_obeyed_outside_cannot_be_written_moved_or_replaced(box: Box) -> None:
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


def test_a_link_that_an_agent_has_made_shows_nothing(box: Box) -> None:
    for name in ("sub", ".vscode", ".claude", ".envrc", ".git", ".mcp.json", ".idea"):
        (box.project / name).symlink_to(box.home / ".ssh")

    done = box.sh("cat sub/id .vscode/id .claude/id .envrc/id .git/id; ls -A ~", profile=CLAUDE)

    assert "SECRET" not in done.out
    assert (box.home / ".ssh/id").read_text() == "SECRET\n"


def test_what_a_link_in_the_project_leads_to_is_not_made_on_the_machine(box: Box) -> None:
    (box.project / ".vscode").symlink_to(box.home / "made")

    box.sh("true")

    assert not (box.home / "made").exists()


def test_a_project_with_a_strange_name_is_no_option(box: Box) -> None:
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


def test_without_the_filter_no_other_namespace_can_be_made(box: Box) -> None:
    done = box.sh("unshare -Ur true && echo made", seccomp=False)

    assert "made" not in done.out


def test_nothing_but_loopback_is_there_and_names_do_not_resolve(box: Box) -> None:
    done = box.sh(
        "tail -n +3 /proc/net/dev | cut -d: -f1; getent hosts example.com; cat /etc/resolv.conf"
    )

    assert done.out.splitlines() == ["    lo", "# Only the proxy resolves names."]
    assert box.sh("getent hosts localhost").out.startswith("127.0.0.1")


def test_files_for_the_run_can_be_read_and_not_written(box: Box) -> None:
    done = box.sh(f"cat {environment.CERTIFICATE}; echo x > {environment.CERTIFICATE}")

    assert done.out == "a certificate"
    assert done.code != 0
