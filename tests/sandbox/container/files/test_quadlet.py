"""Quadlet units: only keys that podman 4.4 knows, and the same walls as elsewhere."""

from configparser import RawConfigParser
from dataclasses import replace

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.files.model import EngineChoice, FileKind, FileRequest
from claude_proxy.sandbox.container.files.quadlet import render

REQUEST = FileRequest(FileKind.QUADLET, "thing", directory="/home/you/src/a b", guarded=(".envrc",))
# podman-systemd.unit(5) of podman 4.4.
KNOWN = {
    *("Image", "ContainerName", "Exec", "Network", "User", "Group", "DropCapability"),
    *("NoNewPrivileges", "ReadOnly", "Volume", "Environment", "PodmanArgs"),
}

type Rows = dict[str, list[str]]


def units(request: FileRequest = REQUEST) -> dict[str, str]:
    return {file.path.name: file.text for file in render(request).files}


def container(name: str) -> Rows:
    found: Rows = {}
    section = ""
    for line in units()[name].splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Container]" and "=" in line:
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


CONTAINERS = ("thing.container", "thing-way-out.container")


@pytest.mark.parametrize("name", CONTAINERS)
def test_only_keys_of_the_first_quadlet_are_used(name: str) -> None:
    assert set(container(name)) <= KNOWN


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_confined(name: str) -> None:
    found = container(name)

    assert found["DropCapability"] == ["all"]
    assert found["NoNewPrivileges"] == found["ReadOnly"] == ["true"]
    assert "--memory=" in found["PodmanArgs"][0]
    assert "--pids-limit=" in found["PodmanArgs"][0]


def test_one_has_no_network_and_the_other_joins_it_and_ends_with_it() -> None:
    assert container("thing-way-out.container")["Network"] == ["none"]
    assert container("thing.container")["Network"] == ["container:thing-way-out"]
    assert "BindsTo=thing-way-out.service\n" in units()["thing.container"]


def test_the_project_is_writable_and_what_the_host_obeys_is_not() -> None:
    volumes = container("thing.container")["Volume"]

    assert "/home/you/src/a b:/workspace:rw" in volumes
    assert "/home/you/src/a b/.envrc:/workspace/.envrc:ro" in volumes
    assert not [volume for volume in volumes if "way-out:" in volume]


@pytest.mark.parametrize("directory", ["/a:b", "/a,b", '/a"b', "/a$b", "/a%b", "/a\nb", "/a\\b"])
def test_a_path_that_a_unit_would_read_otherwise_is_refused(directory: str) -> None:
    with pytest.raises(ConfigError, match="cannot contain"):
        replace(REQUEST, directory=directory)


def test_every_unit_can_be_parsed() -> None:
    for text in units().values():
        parser = RawConfigParser(strict=False)
        parser.read_string(text)
        assert parser.sections()


def test_root_gets_no_user_namespace() -> None:
    found = "".join(units(replace(REQUEST, engine=EngineChoice.PODMAN_ROOT)).values())

    assert "--userns" not in found
    assert found.count("User=0\n") == 2
