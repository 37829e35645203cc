"""Every path of the host that an engine can be given is mounted as it is, and no other one."""

import csv
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.bind_words import bind_words, listed, refuse_colon
from claude_proxy.sandbox.container.plan.model import EngineKind

AT = PurePosixPath("/workspace")


def test_a_usual_path_is_a_volume() -> None:
    assert bind_words(Path("/a b,c"), AT, writable=True) == ("--volume", "/a b,c:/workspace:rw")
    assert bind_words(Path("/a"), AT, writable=False, private_label=True) == (
        "--volume",
        "/a:/workspace:ro,Z",
    )


@given(
    st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"])),
    st.booleans(),
    st.booleans(),
)
def test_a_path_with_a_colon_arrives_unchanged(
    name: str,
    writable: bool,  # noqa: FBT001
    label: bool,  # noqa: FBT001
) -> None:
    source = Path(f"/srv/{name}:ro")

    option, value = bind_words(source, AT, writable=writable, private_label=label)

    (fields,) = csv.reader([value], strict=True) if "\n" not in value else [_fields(value)]
    assert option == "--mount"
    assert f"source={source}" in fields
    assert ("readonly" in fields) is not writable
    assert ("relabel=private" in fields) is label


def _fields(value: str) -> list[str]:
    return [field.replace('""', '"') for field in value[1:-1].split('","')]


@pytest.mark.parametrize("path", ["/srv/\udcff", "/srv/a:b\r"])
def test_a_path_that_an_engine_would_change_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="an engine cannot mount"):
        bind_words(Path(path), AT, writable=True)


def test_a_place_with_a_colon_cannot_be_hidden() -> None:
    refuse_colon(PurePosixPath("/workspace/private"))
    with pytest.raises(ConfigError, match="colon"):
        refuse_colon(PurePosixPath("/workspace/pri:vate"))


def test_podman_takes_a_path_with_a_comma_as_one() -> None:
    assert listed("/state/a b", EngineKind.PODMAN) == "/state/a b"
    assert listed('/state/a,"b', EngineKind.PODMAN) == '"/state/a,""b"'
    assert listed("/state/a,b", EngineKind.DOCKER) == "/state/a,b"
