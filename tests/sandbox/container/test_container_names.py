"""A container without a name gets one after its image, which no other has."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.container import container_names, store


@pytest.mark.parametrize(
    ("image", "begin"),
    [
        ("box", "box-"),
        ("docker.io/library/node:22", "node-"),
        ("example.test:5000/a/b@sha256:00", "b-"),
        ("sha256:0123", "sha256-"),
        ("???", "container-"),
    ],
)
def test_a_name_is_made_after_the_image(tmp_path: Path, image: str, begin: str) -> None:
    name = container_names.fresh(image, tmp_path)

    assert name.startswith(begin)
    store.directory_of(tmp_path, name)  # it can be a name


def test_two_names_differ(tmp_path: Path) -> None:
    assert container_names.fresh("box", tmp_path) != container_names.fresh("box", tmp_path)
