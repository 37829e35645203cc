"""A base by debootstrap: made in the closed network, packed and imported."""

import os
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import image_build
from claude_proxy.sandbox.container.image_build import BuildRequest
from claude_proxy.sandbox.container.workbench import Reports

from .stand_in import StandIn

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of root's own")

REQUEST = BuildRequest("agents:latest", suite="trixie", mirror="http://mirror.test/debian")


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    directory = tmp_path / "engine"
    directory.mkdir()
    return StandIn(directory)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "none.yaml", tmp_path / "conf", tmp_path / "state")


def program(stand_in: StandIn, name: str, text: str) -> None:
    stand_in.let(name, text)
    (stand_in.directory / name).chmod(0o700)


def build(stand_in: StandIn, settings: Settings, request: BuildRequest = REQUEST) -> str:
    said = bytearray()
    image_build.build(stand_in.engine, request, settings, Reports(print, said.extend))
    return said.decode()


def test_the_base_of_the_image_is_what_debootstrap_made(
    stand_in: StandIn, settings: Settings
) -> None:
    script = (
        '#!/bin/sh\nreadlink /proc/self/ns/net\necho "p=$http_proxy"\n'
        'for word; do [ "${word%.tar}" = "$word" ] || : > "$word"; done\n'
    )
    program(stand_in, "mmdebstrap", script)
    said = build(stand_in, settings)

    assert str(Path("/proc/self/ns/net").readlink()) not in said
    assert "p=http://127.0.0.1:3128" in said
    assert "--build-arg BASE=ba5e" in stand_in.calls("build")[0]
    assert stand_in.calls("rmi") == ["rmi ba5e"]  # its own name is nobody's


def test_a_program_that_fails_stops_the_build(stand_in: StandIn, settings: Settings) -> None:
    program(stand_in, "mmdebstrap", "#!/bin/sh\necho E: no such suite; exit 3\n")

    with pytest.raises(ClaudeProxyError, match=r"mmdebstrap failed \(exit code 3\)") as caught:
        build(stand_in, settings)

    assert "no such suite" in Path(str(caught.value.where)).read_text()


def test_a_suite_that_is_none_is_refused(stand_in: StandIn, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="suite"):
        build(stand_in, settings, replace(REQUEST, suite="--no-check-gpg"))
