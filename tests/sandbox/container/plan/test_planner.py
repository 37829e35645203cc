"""A container is hard by default, and shows what a run would show; no value is an argument."""

from pathlib import Path, PurePosixPath

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import ContainerMount, ContainerPlan, EngineKind
from claude_proxy.sandbox.container.plan.planner import (
    APT,
    HOSTS,
    SHOWN,
    digest_of,
)
from claude_proxy.sandbox.plan.model import Mount, MountKind
from tests.support.container_parts import (
    FACTS,
    IMAGE,
    PLACE,
    PROJECT,
    ROOTLESS,
    a_plan,
    a_run_plan,
    a_sandbox,
    a_spec,
)


def mount_at(plan: ContainerPlan, at: str) -> ContainerMount:
    (found,) = (mount for mount in plan.mounts if mount.at == PurePosixPath(at))
    return found


def follows(plan: ContainerPlan, option: str) -> list[str]:
    words = plan.words
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_a_container_has_no_network_no_capability_and_a_read_only_root() -> None:
    plan = a_plan()

    assert follows(plan, "--network") == ["none"]
    assert follows(plan, "--cap-drop") == ["ALL"]
    assert "no-new-privileges" in follows(plan, "--security-opt")
    assert "--read-only" in plan.options
    assert "--http-proxy=false" in plan.options
    assert follows(plan, "--pull") == ["never"]
    assert not [word for word in plan.words if "privileged" in word and "new" not in word]


def test_the_project_is_at_the_workspace_and_belongs_to_its_owner() -> None:
    plan = a_plan()

    assert mount_at(plan, "/workspace") == ContainerMount(
        PurePosixPath("/workspace"), PROJECT, writable=True
    )
    assert follows(plan, "--user") == ["1000:1000"]
    assert follows(plan, "--workdir") == ["/workspace"]


def test_what_a_run_protects_and_hides_in_the_project_is_so_in_a_container() -> None:
    plan = a_plan()

    assert not mount_at(plan, "/workspace/.mcp.json").writable
    assert mount_at(plan, "/workspace/private").source is None
    assert mount_at(plan, "/workspace/.env").source == PLACE.directory / "blank"


def test_nothing_of_the_host_is_shown_but_the_project_and_what_is_named() -> None:
    named = Path("/srv/data")
    spec = a_spec(a_sandbox(allow_rw=(named,), allow_ro=(Path("/usr/share/dict"),)))

    plan = a_plan(spec, planned=a_run_plan(Mount(MountKind.WRITE, named, named)))

    shown = {str(mount.source) for mount in plan.mounts if isinstance(mount.source, Path)}
    outside = {path for path in shown if not path.startswith(("/state", str(PROJECT)))}
    assert outside == {"/srv/data", "/usr/share/dict"}
    assert not mount_at(plan, "/usr/share/dict").writable


def test_a_user_without_root_stays_that_user() -> None:
    plan = a_plan(facts=ROOTLESS, place=replace(PLACE, owner=(7, 7)))

    assert "--userns=keep-id" in plan.options
    assert follows(plan, "--user") == ["1000:1000"]


def test_the_home_is_a_volume_at_the_home_that_the_image_names() -> None:
    plan = a_plan()

    assert plan.volume == "claude-proxy-web"
    assert mount_at(plan, "/home/somebody").source == "claude-proxy-web"
    assert plan.environment["HOME"] == "/home/somebody"


@pytest.mark.parametrize("owner", [1001, 4711])
def test_a_user_without_a_home_in_the_image_gets_one(owner: int) -> None:
    plan = a_plan(place=replace(PLACE, owner=(owner, owner)))

    assert str(plan.home) == "/home/agent"


def test_root_has_its_own_home_and_is_warned_of() -> None:
    plan = a_plan(place=replace(PLACE, owner=(0, 0)))

    assert str(plan.home) == "/root"
    assert any("as root" in note for note in plan.notes)


def test_no_value_of_a_variable_is_on_the_command_line() -> None:
    plan = a_plan(planned=a_run_plan(TOKEN="sesame"))

    assert plan.environment["TOKEN"] == "sesame"
    assert "sesame" not in " ".join(plan.create)
    assert "sesame" not in "\n".join(plan.lines())


def test_variables_about_the_host_stay_outside() -> None:
    assert "PATH" not in a_plan().environment


def test_the_bundle_is_mounted_where_the_image_keeps_its_roots_and_nowhere_else() -> None:
    bundle = PLACE.directory / SHOWN / "bundle.pem"
    places = [str(mount.at) for mount in a_plan().mounts if mount.source == bundle]

    assert places == ["/etc/ssl/certs/ca-certificates.crt"]


def test_apt_is_led_to_the_proxy() -> None:
    plan = a_plan()

    assert mount_at(plan, "/etc/apt/apt.conf.d/99claude-proxy").source == PLACE.directory / APT
    assert b'Acquire::http::Proxy "http://127.0.0.1:3128/";' in plan.files[APT]
    assert b"Acquire::https::Proxy" in plan.files[APT]


def test_only_the_container_itself_is_in_its_hosts_file() -> None:
    assert a_plan().files[HOSTS] == b"127.0.0.1 localhost\n127.0.0.1 web\n"


def test_temporary_directories_are_the_users_and_give_no_privilege() -> None:
    (tmp,) = (word for word in follows(a_plan(), "--tmpfs") if word.startswith("/tmp:"))

    options = tmp.partition(":")[2].split(",")
    assert {"nosuid", "nodev", "U"} <= set(options)


def test_the_label_of_selinux_is_on_the_project_where_there_is_selinux() -> None:
    def labelled(*, selinux: bool) -> list[str]:
        plan = a_plan(facts=replace(FACTS, selinux=selinux))
        return [word for word in follows(plan, "--volume") if word.endswith(",Z")]

    assert labelled(selinux=False) == []
    assert f"{PROJECT}:/workspace:rw,Z" in labelled(selinux=True)
    assert not [word for word in labelled(selinux=True) if ":/workspace" not in word]


def test_limits_are_set_or_it_is_said_that_they_are_not() -> None:
    without = a_plan(facts=replace(FACTS, limits=False))

    assert follows(a_plan(a_spec(cpus=1.5)), "--cpus") == ["1.5"]
    assert follows(a_plan(), "--memory") == [str(1 << 30)]
    assert follows(a_plan(), "--pids-limit") == ["99"]
    assert "--memory" not in without.options
    assert any("not limited" in note for note in without.notes)


def test_a_path_with_a_colon_is_mounted_and_one_that_is_not_utf_8_refused() -> None:
    def of(named: Path) -> ContainerPlan:
        spec = a_spec(a_sandbox(allow_rw=(named,)))
        return a_plan(spec, planned=a_run_plan(Mount(MountKind.WRITE, named, named)))

    (words,) = follows(of(Path("/srv/a:b")), "--mount")
    assert words == '"type=bind","source=/srv/a:b","target=/srv/a:b"'
    with pytest.raises(ConfigError, match="UTF-8"):
        of(Path("/srv/\udcff"))


def test_a_terminal_and_removal_are_asked_for() -> None:
    plan = a_plan(a_spec(terminal=True, remove=True))

    assert {"--tty", "--rm", "--interactive"} <= set(plan.options)


def test_an_init_collects_orphans_where_there_is_one() -> None:
    assert "--init" not in a_plan().options
    assert "--init" in a_plan(facts=replace(FACTS, has_init=True)).options


def test_a_terminal_has_an_init_so_that_ctrl_c_ends_cmd() -> None:
    facts = replace(FACTS, init=Path("/usr/bin/tini-static"))

    options = a_plan(a_spec(terminal=True), facts=facts).options

    assert options.index("--init") + 1 == options.index("--init-path=/usr/bin/tini-static")
    assert "--init" not in a_plan(a_spec(), facts=facts).options
    own = a_plan(a_spec(terminal=True), facts=replace(facts, has_init=True)).options
    assert not [word for word in own if word.startswith("--init-path")]


def test_options_of_podman_are_not_given_to_docker() -> None:
    plan = a_plan(facts=replace(FACTS, kind=EngineKind.DOCKER))

    assert not {"--no-hosts", "--http-proxy=false", "--read-only-tmpfs=false"} & {*plan.options}


def test_another_plan_has_another_digest() -> None:
    assert digest_of(a_plan()) != digest_of(a_plan(image=replace(IMAGE, id="sha256:2d")))


def test_a_docker_daemon_without_root_has_the_user_as_its_root() -> None:
    plan = a_plan(facts=replace(ROOTLESS, kind=EngineKind.DOCKER))

    assert follows(plan, "--user") == ["0:0"]
    assert "--userns=keep-id" not in plan.options


def test_the_home_with_docker_is_a_directory_as_a_volume_would_be_roots() -> None:
    plan = a_plan(facts=replace(FACTS, kind=EngineKind.DOCKER))

    assert mount_at(plan, str(plan.home)).source == PLACE.directory / "home"
    assert plan.volume == ""


def test_cmd_makes_no_namespaces_with_any_engine() -> None:
    profiles = [
        a_plan(facts=replace(FACTS, kind=kind)).files["seccomp.json"]
        for kind in (EngineKind.PODMAN, EngineKind.DOCKER)
    ]

    assert [b'"value": 2114060288' in profile for profile in profiles] == [True, True]


def test_docker_passes_in_nothing_of_the_proxies_that_its_configuration_names() -> None:
    """Whose URL may hold a password; what is on its command line goes before that."""
    plan = a_plan(facts=replace(FACTS, kind=EngineKind.DOCKER))

    given = dict(word.split("=", 1) for word in follows(plan, "--env"))
    names = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}
    assert given.keys() == names | {name.upper() for name in names}
    for name, value in given.items():
        assert value == plan.environment.get(name, "")
    assert follows(a_plan(), "--env") == []


def test_the_user_database_names_the_home_that_home_names() -> None:
    passwd = "web:x:1000:1000::/nonexistent:/bin/sh\n"
    plan = a_plan(image=replace(IMAGE, homes={1000: "/nonexistent"}, passwd=passwd))

    assert plan.files["passwd"] == b"web:x:1000:1000::/home/agent:/bin/sh\n"
    assert plan.environment["HOME"] == "/home/agent"
    (mount,) = [one for one in plan.mounts if str(one.at) == "/etc/passwd"]
    assert not mount.writable
    # Users of an image that could not be read are not replaced.
    unknown = a_plan(image=replace(IMAGE, passwd=None))
    assert "/etc/passwd" not in {str(one.at) for one in unknown.mounts}
