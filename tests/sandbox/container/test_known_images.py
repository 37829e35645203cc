"""What an engine said of an image is used only while its list of images is unchanged."""

import json
import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.container.known_images import KnownImages

IMAGE = {"Id": "sha256:1d", "Config": {"User": "me"}}


def images(place: Path, *ids: str, key: str = "podman") -> KnownImages:
    index = place / "images.json"
    if ids:
        index.write_text(json.dumps([{"id": one} for one in ids]), "utf-8")
    return KnownImages(place / "known", index, (key,), (place / "registries.conf",))


def test_a_description_is_kept(tmp_path: Path) -> None:
    known = images(tmp_path, "1d")

    known.keep("box", IMAGE, known.mark())

    assert known.find("box") == IMAGE
    assert known.find("other") is None


@pytest.mark.parametrize("changed", ["images.json", "registries.conf"])
def test_a_change_of_what_a_name_means_forgets_it(tmp_path: Path, changed: str) -> None:
    known = images(tmp_path, "1d")
    known.keep("box", IMAGE, known.mark())

    new = tmp_path / "new"
    new.write_bytes((tmp_path / "images.json").read_bytes())
    new.replace(tmp_path / changed)

    assert known.find("box") is None


def test_another_engine_or_other_settings_of_it_have_descriptions_of_their_own(
    tmp_path: Path,
) -> None:
    known = images(tmp_path, "1d")
    known.keep("box", IMAGE, known.mark())

    assert images(tmp_path, key="another").find("box") is None


def test_an_answer_from_before_a_change_is_not_used(tmp_path: Path) -> None:
    known = images(tmp_path, "1d")
    asked = known.mark()
    (tmp_path / "registries.conf").write_text("", "utf-8")

    known.keep("box", IMAGE, asked)

    assert known.find("box") is None


def test_an_image_of_another_store_is_asked_for_each_time(tmp_path: Path) -> None:
    known = images(tmp_path, "2e")

    known.keep("box", IMAGE, known.mark())

    assert known.find("box") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"name": "box", "mark": []}', b"\xff"])
def test_what_cannot_be_read_is_asked_for(tmp_path: Path, content: bytes) -> None:
    known = images(tmp_path, "1d")
    known.keep("box", IMAGE, known.mark())
    (path,) = (tmp_path / "known").iterdir()

    path.write_bytes(content)

    assert known.find("box") is None


def test_nothing_fails_where_nothing_can_be_kept(tmp_path: Path) -> None:
    known = images(tmp_path)

    known.keep("box", IMAGE, known.mark())
    os.mkfifo(tmp_path / "known")
    images(tmp_path, "1d").keep("box", IMAGE, known.mark())

    assert known.find("box") is None
