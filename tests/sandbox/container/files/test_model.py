"""Nothing that a user gives can leave its place in a file."""

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.files.model import (
    FileKind,
    FileRequest,
    check_image,
    head_of,
    name_of_directory,
)


@pytest.mark.parametrize(
    "image",
    [
        "node",
        "node:22-slim",
        "docker.io/library/node:22",
        "localhost/agent",
        "localhost:5000/team/agent:1.2_x",
        "ghcr.io/a/b@sha256:" + "0" * 64,
        "quay.io/a__b/c---d:Tag.1",
    ],
)
def test_the_reference_of_an_image_is_taken(image: str) -> None:
    check_image(image)


@pytest.mark.parametrize(
    "image",
    [
        *("", " ", "-v", "--privileged", "a b", "a\nb", "a\n", "a:b:c:d", 'a"b', "a'b", "${x}"),
        *("$(id)", "a;b", "A/b", "a//b", "/a", "a/", "a@sha256:xyz", "a:", "a@", "é", "a" * 600),
        *("a\u2028b", "a#b", "a: b", "*a", "&a", "!a", "{a}", "%h"),
    ],
)
def test_anything_else_is_no_image(image: str) -> None:
    with pytest.raises(ConfigError):
        check_image(image)


@pytest.mark.parametrize("name", ["", "A", "1a", "a_b", "a-", "-a", "a b", "a\n", "a" * 41, "a.b"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        FileRequest(FileKind.COMPOSE, name)


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("project", "project"),
        ("My Project.v2", "my-project-v2"),
        ("2026-notes", "notes"),
        ("日本", "agent"),
        ("", "agent"),
        ("x" * 60, "x" * 40),
        ("--a--", "a"),
    ],
)
def test_a_directory_of_any_name_has_a_name_for_its_container(directory: str, name: str) -> None:
    assert name_of_directory(directory) == name

    FileRequest(FileKind.COMPOSE, name_of_directory(directory))


def test_the_head_of_a_file_says_how_to_write_it_again() -> None:
    request = FileRequest(FileKind.COMPOSE, "a", command=("compose", "--name", "a"))

    assert head_of(request, "More.\n\nEnd.") == (
        "# Written by `claude-proxy container init compose --name a`.\n# More.\n#\n# End.\n"
    )
