"""Engines are optional, but what keeps one from working is said, with its fix."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.engines import check_engines, has_range, try_engines
from claude_proxy.doctor.finding import Level, exit_code

NOBODY = Settings(Path("/a"), Path("/c"), Path("/s"))
DOCKER_INFO = (
    '{"ServerVersion": "20.1", "DefaultRuntime": "%s", "KernelVersion": "%s", '
    '"OperatingSystem": "Some OS", "MemoryLimit": true, "PidsLimit": true}'
)
ENDPOINT = "unix:///var/run/docker.sock"


def subject(tmp_path: Path, **scripts: str) -> Subject:
    """A machine whose engines are these scripts."""
    for name, script in scripts.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return Subject(NOBODY, {"PATH": f"{tmp_path}:/nowhere"}, "linux")


def docker(runtime: str = "runc", kernel: str = os.uname().release) -> str:
    info = DOCKER_INFO % (runtime, kernel)
    return f"""case "$1" in
        info) echo '{info}' ;;
        context) echo '"{ENDPOINT}"' ;;
        *) exit 0 ;;
    esac"""


def test_a_machine_without_engines_is_a_good_one(tmp_path: Path) -> None:
    found = check_engines(subject(tmp_path))

    assert [(each.name, each.level) for each in found] == [
        ("podman", Level.OK),
        ("docker", Level.OK),
    ]
    assert all("not installed" in each.what for each in found)


def test_an_engine_is_reported_with_its_way(tmp_path: Path) -> None:
    _, found = check_engines(subject(tmp_path, docker=docker()))

    way = "enter" if os.geteuid() == 0 else "pause"
    assert found.level is Level.OK
    assert found.what == (
        f"20.1, {tmp_path}/docker, root's, runtime runc; the way of containers: {way}"
    )


def test_an_engine_in_a_virtual_machine_is_a_warning_that_names_it(tmp_path: Path) -> None:
    _, found = check_engines(subject(tmp_path, docker=docker(kernel="5.0-desktop")))

    assert found.level is Level.WARNING
    assert "another kernel (Some OS, kernel 5.0-desktop)" in found.what
    assert found.fix is not None
    assert "use podman" in found.fix


def test_an_engine_that_does_not_answer_is_a_warning_with_its_fix(tmp_path: Path) -> None:
    script = "echo 'Cannot connect to the Docker daemon at unix:///x' >&2; exit 1"

    _, found = check_engines(subject(tmp_path, docker=script))

    assert (found.level, found.what.partition(": ")[2][:40]) == (
        Level.WARNING,
        "the Docker daemon cannot be reached (doc",
    )
    assert found.fix is not None


def test_podman_under_the_name_of_docker_is_told_apart(tmp_path: Path) -> None:
    _, found = check_engines(subject(tmp_path, docker="echo '{\"host\": {}}'"))

    assert "podman under another name" in found.what
    assert found.fix == "use it by its own name: --engine podman"


def test_what_one_engine_lacks_is_a_note_while_another_works(tmp_path: Path) -> None:
    found = check_engines(subject(tmp_path, docker=docker(), podman="echo broken >&2; exit 1"))

    assert [(each.name, each.level) for each in found] == [
        ("podman", Level.NOTE),
        ("docker", Level.OK),
    ]
    assert "cannot be used" in found[0].what
    assert exit_code(found) == 0


def test_another_system_has_no_containers(tmp_path: Path) -> None:
    [found] = check_engines(Subject(NOBODY, {"PATH": str(tmp_path)}, "darwin"))

    assert found.level is Level.OK
    assert "need Linux" in found.what


def test_a_trial_without_engines_is_an_error(tmp_path: Path) -> None:
    [found] = try_engines(subject(tmp_path))

    assert found.level is Level.ERROR
    assert found.fix is not None


@pytest.mark.parametrize(
    ("said", "meaning", "fix"),
    [
        ("error setting rlimit type 7: operation not permitted", "limits", "default_ulimits"),
        ('default OCI runtime "crun" not found: invalid argument', "not installed", "crun"),
        ("permission denied while trying to connect to the docker.sock", "may not talk", "podman"),
        ("runc create failed: cgroup v1 mount", "control groups", "cgroupfs"),
    ],
)
def test_a_trial_that_fails_says_what_helps(
    tmp_path: Path, said: str, meaning: str, fix: str
) -> None:
    script = docker().replace("*) exit 0", f"run) echo '{said}' >&2; exit 126 ;; *) exit 0")

    [found] = try_engines(subject(tmp_path, docker=script))

    assert found.level is Level.ERROR
    assert meaning in found.what
    assert found.fix is not None
    assert fix in found.fix


def test_a_trial_that_starts_is_ok_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    script = f'echo "$@" >> {log}\n{docker()}'

    [found] = try_engines(subject(tmp_path, docker=script))

    assert found.level is Level.OK
    started, removed = log.read_text().splitlines()[-2:]
    assert started.startswith("run --detach --rm --name claude-proxy-doctor-")
    assert "--network none --cap-drop ALL" in started
    assert removed.startswith("rm ")
    assert "--force" in removed.split()
    assert removed.split()[-1] == started.split()[4]


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("me:100000:65536\n", True),
        ("1000:100000:65536\n", True),
        ("other:100000:65536\n", False),
        ("me\n", False),
        ("", False),
        (None, False),
    ],
)
def test_a_range_of_ids_is_found_by_name_or_number(
    tmp_path: Path, text: str | None, *, has: bool
) -> None:
    path = tmp_path / "subuid"
    if text is not None:
        path.write_text(text)

    assert has_range(path, "me", 1000) is has
