"""Names that git would not take, or that change what another name means, create nothing."""

import pytest

from claude_proxy.sandbox.git.ref_names import (
    is_object,
    is_stash,
    is_valid,
    kept_apart,
    kept_as,
    misleads,
)

EXISTING = {"refs/heads/main", "refs/tags/v1", "refs/remotes/origin/main", "refs/remotes/up/HEAD"}


@pytest.mark.parametrize(
    "name", ["refs/heads/main", "refs/heads/a/b-c", "refs/tags/v1.0", "refs/heads/ä", "refs/stash"]
)
def test_names_of_git_are_valid(name: str) -> None:
    assert is_valid(name)


@pytest.mark.parametrize(
    "name",
    [
        *("HEAD", "heads/main", "/refs/heads/x", "refs/heads/", "refs/heads//x", "refs/heads/x/"),
        *("refs/heads/.x", "refs/heads/x.lock", "refs/heads/a..b", "refs/heads/../x"),
        *("refs/heads/a b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?"),
        *("refs/heads/a*", "refs/heads/a[", "refs/heads/a\\b", "refs/heads/a@{b", "refs/heads/@"),
        *("refs/heads/a\n", "refs/heads/a\x7f", "refs/heads/x.", f"refs/heads/{'x' * 300}"),
    ],
)
def test_names_that_git_refuses_are_not_valid(name: str) -> None:
    assert not is_valid(name)


@pytest.mark.parametrize(
    "name",
    [
        *("refs/heads/-f", "refs/tags/HEAD", "refs/heads/FETCH_HEAD", f"refs/heads/{'a' * 40}"),
        *("refs/tags/main", "refs/heads/v1", "refs/tags/origin/main", "refs/heads/origin/main"),
        "refs/tags/up",
    ],
)
def test_a_new_name_that_is_found_before_another_one_misleads(name: str) -> None:
    assert misleads(name, EXISTING)


@pytest.mark.parametrize("name", ["refs/heads/feature", "refs/tags/v2", "refs/heads/a/b"])
def test_an_ordinary_new_name_does_not_mislead(name: str) -> None:
    assert not misleads(name, EXISTING)


def test_what_is_kept_of_several_runs_has_different_names() -> None:
    names = [
        kept_as("refs/heads/tags/x", "r"),
        kept_as("refs/tags/x", "r"),
        kept_as("refs/heads/x", "r"),
        kept_as("HEAD", "r"),
        kept_apart("refs/heads/x", "r", "a" * 40),
    ]

    assert len(set(names)) == len(names)
    assert all(is_valid(name) for name in names)


@pytest.mark.parametrize(("text", "expected"), [("a" * 40, True), ("a" * 64, True), ("a", False)])
def test_an_object_is_named_by_its_whole_hash(text: str, expected: bool) -> None:  # noqa: FBT001 - a case
    assert is_object(text) is expected


def test_every_stash_is_one() -> None:
    assert is_stash("refs/stash")
    assert is_stash("refs/stash@3")
    assert not any(map(is_stash, ("refs/heads/stash", "refs/stashes", "HEAD")))
