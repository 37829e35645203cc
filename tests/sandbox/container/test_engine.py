"""An engine is asked with harmless variables, on this machine only, and its errors say the fix."""

import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import engine as engine_module
from claude_proxy.sandbox.container.engine import (
    Engine,
    EngineError,
    NoImageError,
    environment_of,
    explained,
)
from claude_proxy.sandbox.container.plan.hardening import seccomp_profile
from claude_proxy.sandbox.container.plan.model import ContainerStatus, EngineKind
from tests.support.container_parts import Case, calls_of, fake_engine, inspected
from tests.support.libraries import need_libseccomp
from tools import container_filter

IMAGE = {
    "Id": "1d",
    "Digest": "sha256:d16e57",
    "Config": {"User": "me", "Env": ["A=b=c"], "Cmd": ["sh"], "Entrypoint": None},
}
INFO = {
    "version": {"Version": "4.3.1"},
    "host": {
        "cgroupControllers": ["memory", "pids"],
        "cgroupVersion": "v2",
        "security": {"rootless": True, "seccompProfilePath": "/nowhere"},
        "ociRuntime": {"name": "runc"},
    },
}


def path_of(directory: Path) -> dict[str, str]:
    return {"PATH": f"{directory}:{Path(sys.executable).parent}:/usr/bin:/bin"}


def engine(tmp_path: Path, *cases: Case) -> Engine:
    fake_engine(tmp_path / "bin", *cases)
    return Engine.find(EngineKind.PODMAN, path_of(tmp_path / "bin"))


def test_the_first_engine_that_is_installed_is_taken(tmp_path: Path) -> None:
    fake_engine(tmp_path / "bin", name="docker")

    found = Engine.find(None, {"PATH": str(tmp_path / "bin")})

    assert (found.kind, found.program) == (EngineKind.DOCKER, tmp_path / "bin" / "docker")


@pytest.mark.parametrize("kind", [None, EngineKind.PODMAN])
def test_without_an_engine_the_error_says_how_to_install_one(
    tmp_path: Path, kind: EngineKind | None
) -> None:
    with pytest.raises(ClaudeProxyError, match="not installed") as caught:
        Engine.find(kind, {"PATH": str(tmp_path)})

    assert caught.value.exit_code == 1
    assert "apt install podman" in str(caught.value.fix)


@pytest.mark.parametrize(
    "environ",
    [
        {"CONTAINER_HOST": "ssh://elsewhere.test"},
        {"DOCKER_HOST": "tcp://192.0.2.1:2375"},
    ],
)
def test_an_engine_on_another_machine_is_refused(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    fake_engine(tmp_path / "bin")

    with pytest.raises(ConfigError, match="another machine"):
        Engine.find(None, {"PATH": str(tmp_path / "bin"), **environ})


def test_an_engine_has_harmless_variables_and_its_own_only() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "ANTHROPIC_API_KEY": "sesame",
        "CONTAINERS_CONF": "/conf",
        "TERM": "xterm",
    }

    assert environment_of(given) == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "CONTAINERS_CONF": "/conf",
        "TERM": "xterm",
        "DOCKER_CLI_HINTS": "false",  # it prints advertisements among what CMD prints
    }


def test_a_missing_image_says_how_to_get_it(tmp_path: Path) -> None:
    podman = engine(tmp_path, (["image", "inspect"], "", "Error: box: image not known", 125))

    with pytest.raises(NoImageError) as caught:
        podman.image("box")

    assert caught.value.exit_code == 1
    assert "podman pull box" in str(caught.value.fix)


def archive() -> str:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        passwd = b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nbroken\n"
        for name, content in (("etc/passwd", passwd), ("etc/ssl/certs/ca-certificates.crt", b"")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data.getvalue().decode("ascii")


def image_cases() -> tuple[Case, ...]:
    return (
        (["image", "inspect"], json.dumps([IMAGE]), "", 0),
        (["create"], "1d", "", 0),
        (["cp"], archive(), "", 0),
        (["rm"], "", "", 0),
    )


def test_podman_is_asked_again_for_an_image_once_its_list_of_images_has_changed(
    tmp_path: Path,
) -> None:
    index = tmp_path / "vfs-images" / "images.json"
    index.parent.mkdir()
    index.write_text('[{"id": "1d"}]', "utf-8")
    place = {"graphRoot": str(tmp_path), "graphDriverName": "vfs", "graphOptions": {}}
    cases = ((["info"], json.dumps({**INFO, "store": place}), "", 0), *image_cases())
    podman, cache = engine(tmp_path, *cases), tmp_path / "cache"

    def asked() -> int:
        return sum(call[:2] == ["image", "inspect"] for call in calls_of(podman.program))

    podman.facts(cache / "podman.json")
    first = podman.image("box", cache)
    assert podman.image("box", cache) == first
    assert asked() == 1
    new = index.with_name("new")
    new.write_bytes(index.read_bytes())
    new.replace(index)
    assert podman.image("box", cache) == first

    assert asked() == 2


def test_what_is_in_an_image_is_looked_at_once_and_nothing_is_run(tmp_path: Path) -> None:
    podman = engine(tmp_path, *image_cases())

    first = podman.image("box", tmp_path / "cache")
    again = podman.image("box", tmp_path / "cache")

    assert first == again
    assert (first.id, first.digest, first.user) == ("1d", "sha256:d16e57", "me")
    assert first.environment == {"A": "b=c"}
    assert first.homes == {0: "/root", 1000: "/home/me"}
    assert first.paths == {"/etc/ssl/certs/ca-certificates.crt"}
    words = [call[0] for call in calls_of(podman.program)]
    assert words == ["image", "create", "cp", "cp", "rm", "image"]


def test_an_image_without_etc_has_nothing_of_it(tmp_path: Path) -> None:
    cases = [case for case in image_cases() if case[0] != ["cp"]]
    podman = engine(tmp_path, *cases, (["cp"], "", "Error: no such file", 125))

    assert podman.image("box").paths == frozenset()


def test_facts_are_asked_once_as_long_as_the_engine_stays_the_same(tmp_path: Path) -> None:
    podman = engine(tmp_path, (["info"], json.dumps(INFO), "", 0))

    facts = podman.facts(tmp_path / "cache" / "podman.json")
    podman.facts(tmp_path / "cache" / "podman.json")
    podman.program.write_text(podman.program.read_text() + "\n")
    podman.facts(tmp_path / "cache" / "podman.json")

    assert (facts.version, facts.rootless, facts.runtime, facts.limits) == (
        *("4.3.1", True, "runc"),
        True,
    )
    assert len(calls_of(podman.program)) == 2


def test_facts_are_asked_again_when_the_machine_has_other_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = engine(tmp_path, (["info"], json.dumps(INFO), "", 0))
    controllers = tmp_path / "cgroup.controllers"
    monkeypatch.setattr(engine_module, "_CONTROLLERS", controllers)

    podman.facts(tmp_path / "cache" / "podman.json")
    controllers.write_text("cpu memory pids\n")
    podman.facts(tmp_path / "cache" / "podman.json")

    assert len(calls_of(podman.program)) == 2


def test_a_podman_that_hands_its_work_to_a_service_is_refused(tmp_path: Path) -> None:
    host = {**INFO["host"], "serviceIsRemote": True, "remoteSocket": {"path": "unix:///p.sock"}}  # type: ignore[dict-item]
    podman = engine(tmp_path, (["info"], json.dumps({**INFO, "host": host}), "", 0))

    with pytest.raises(ConfigError, match="hands its work to a service") as caught:
        podman.facts()

    assert "unix:///p.sock" in str(caught.value.where)


def test_a_user_without_root_has_no_limits_where_control_groups_are_old(tmp_path: Path) -> None:
    old = {**INFO, "host": {**INFO["host"], "cgroupVersion": "v1"}}  # type: ignore[dict-item]
    podman = engine(tmp_path, (["info"], json.dumps(old), "", 0))

    assert not podman.facts().limits


def test_a_container_is_described_in_the_same_words_for_every_engine(tmp_path: Path) -> None:
    podman = engine(tmp_path, (["container", "inspect"], inspected(pid=7), "", 0))

    state = podman.inspect("web")

    assert state is not None
    assert (state.name, state.status, state.pid) == ("web", ContainerStatus.RUNNING, 7)
    assert state.labels["claude-proxy.name"] == "web"


def test_there_may_be_no_such_container(tmp_path: Path) -> None:
    said = 'Error: inspecting object: no such container "web"'
    podman = engine(tmp_path, (["container", "inspect"], "[]", said, 125))

    assert podman.inspect("web") is None


def test_an_answer_that_is_not_json_is_an_error(tmp_path: Path) -> None:
    podman = engine(tmp_path, (["container", "inspect"], "what?", "", 0))

    with pytest.raises(EngineError, match="not JSON"):
        podman.inspect("web")


def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)

    with pytest.raises(EngineError, match="did not end"):
        Engine(EngineKind.PODMAN, program, {}).call("info", timeout_s=0.01)


def test_an_engine_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        Engine(EngineKind.PODMAN, tmp_path / "podman", {}).call("info")


def test_the_words_of_containers_are_told_apart_from_options(tmp_path: Path) -> None:
    podman = engine(tmp_path, (["stop"], "", "", 0), (["rm"], "", "", 0), (["kill"], "", "", 0))

    podman.stop("web", timeout_s=1)
    podman.kill("web", "TERM")
    podman.remove("web", force=True)

    assert [call[-2:] for call in calls_of(podman.program)] == [["--", "web"]] * 3


def test_a_volume_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    said = 'Error: no volume with name "claude-proxy-web" found: no such volume'
    podman = engine(tmp_path, (["volume"], "", said, 1))

    podman.remove_volume("claude-proxy-web")


@pytest.mark.parametrize(
    ("said", "what", "fix"),
    [
        (b"no subuid ranges found for user", "range of user ids", "usermod --add-subuids"),
        (b'exec: "newuidmap": executable file not found in $PATH', "newuidmap", "uidmap"),
        (b"OCI runtime error: crun: cgroup v1 hybrid", "control groups", "containers.conf"),
        (b"crun: the requested cgroup controller `pids` is not available", "limit", "pids_limit"),
        (b"crun: opening file `memory.max` for writing: No such file", "limit", "controllers"),
        (b"cannot clone: Operation not permitted", "namespaces", "sysctl"),
        (b"something else", "podman run failed: something else", "dry-run"),
    ],
)
def test_an_error_that_is_known_says_the_fix(
    tmp_path: Path, said: bytes, what: str, fix: str
) -> None:
    error = explained(engine(tmp_path), "run", b"Error: " + said)

    assert what in error.what
    assert fix in str(error.fix)


def test_the_profile_that_is_shipped_can_be_narrowed() -> None:
    """A machine with docker alone has none that could be read."""
    shipped = Path(engine_module.__file__).with_name("own_seccomp.json").read_bytes()

    narrowed = json.loads(seccomp_profile(shipped))
    allowed = {name for rule in narrowed["syscalls"] for name in rule["names"]}

    assert narrowed["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"execve", "openat", "mmap", "futex", "epoll_wait", "clone", "ptrace"} <= allowed
    whole = {
        name for rule in narrowed["syscalls"] if not rule.get("args") for name in rule["names"]
    }
    assert not whole & container_filter.refused()


def test_the_profile_that_is_shipped_is_what_the_tool_builds() -> None:
    need_libseccomp()
    shipped = json.loads(Path(container_filter.PATH).read_bytes())
    built = json.loads(container_filter.build())

    assert shipped == built


def docker(tmp_path: Path, endpoint: str) -> Engine:
    path = tmp_path / "docker"
    info = {"ServerVersion": "20", "KernelVersion": os.uname().release, "SecurityOptions": []}
    path.write_text(
        f"""#!/bin/sh
        case "$1" in
            info) echo '{json.dumps(info)}' ;;
            context) echo '"{endpoint}"' ;;
        esac"""
    )
    path.chmod(0o755)
    return Engine.find(EngineKind.DOCKER, {"PATH": str(tmp_path)})


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2376", "ssh://me@elsewhere"])
def test_a_context_of_docker_on_another_machine_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="on another machine") as raised:
        docker(tmp_path, endpoint).facts()

    assert raised.value.fix is not None
    assert "docker context use" in raised.value.fix


def test_docker_on_this_machine_is_taken_with_its_facts(tmp_path: Path) -> None:
    facts = docker(tmp_path, "unix:///run/user/1000/docker.sock").facts()

    assert (facts.version, facts.rootless, facts.elsewhere) == ("20", False, "")


def test_another_daemon_is_asked_anew(tmp_path: Path) -> None:
    """What is known of one may not be true of another: whether it is root's decides the way."""
    cache = tmp_path / "known.json"
    docker(tmp_path, "unix:///run/docker.sock").facts(cache)
    other = Engine.find(
        EngineKind.DOCKER, {"PATH": str(tmp_path), "DOCKER_HOST": "unix:///run/user/1/docker.sock"}
    )
    (tmp_path / "docker").write_text(
        (tmp_path / "docker").read_text().replace("[]", '["name=rootless"]')
    )

    assert other.facts(cache).rootless


@pytest.mark.parametrize(
    "said",
    [
        'docker: Error response from daemon: Conflict. The container name "/web" is already in use',
        'Error: creating container storage: the container name "web" is already in use by 1d',
    ],
)
def test_a_name_that_is_taken_is_told_in_the_same_words_by_both_engines(
    tmp_path: Path, said: str
) -> None:
    problem = explained(engine(tmp_path), "run", said.encode())

    assert problem.what == "there is a container of this name that claude-proxy did not make"
    assert problem.fix == "use another --name"


def test_docker_is_asked_where_the_context_of_the_user_leads(tmp_path: Path) -> None:
    variables = environment_of({"DOCKER_CONTEXT": "rootless", "SECRET": "x"})

    assert variables["DOCKER_CONTEXT"] == "rootless"
    assert "SECRET" not in variables
    with pytest.raises(ConfigError, match="on another machine"):
        docker(tmp_path, "ssh://me@elsewhere").facts()


def test_an_engine_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    problem = explained(engine(tmp_path), "info", b"", -9)

    assert problem.what == "podman info was ended by SIGKILL"
