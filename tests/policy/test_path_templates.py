"""Only what looks generated becomes a star, and no word that was not seen is ever covered."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.path_templates import (
    MOST_GLOBS,
    PathTemplate,
    is_writable,
    templates_of,
)
from claude_proxy.policy.patterns import PathGlob

UUIDS = [f"9e107d9d-372b-4f6c-a1b2-0123456789a{digit}" for digit in "bcd"]
WORDS = ("admin", "me", "settings", "new", "all", "root", "index.html", "favicon")


def learned(*paths: str, never: Iterable[str] = ()) -> list[PathTemplate]:
    return templates_of(dict.fromkeys(paths, 1), never=never)


def covers(templates: Iterable[PathTemplate], path: str) -> bool:
    globs = [PathGlob.parse(glob) for template in templates for glob in template.globs]
    return any(glob.matches(path) for glob in globs)


@pytest.mark.parametrize(
    ("paths", "shape", "another"),
    [
        (["/users/1", "/users/22", "/users/303"], "/users/<number>", "/users/94"),
        ([f"/o/{uuid}" for uuid in UUIDS], "/o/<uuid>", f"/o/{UUIDS[0][:-1]}f"),
        (
            ["/p/p-1.2.0.tgz", "/p/p-1.3.0.tgz", "/p/p-2.0.1.tgz"],
            "/p/p-<version>.tgz",
            "/p/p-0.9.9.tgz",
        ),
        (["/b/3f2a9cde", "/b/3f2a9cdf", "/b/03f2a9ce"], "/b/<hash>", "/b/77aa88bb"),
        (
            [f"/m/msg_0{each}A09q90qw90lq917835lq9" for each in "123"],
            "/m/msg_<id>",
            "/m/msg_09XYq90qw90lq917835lq9",
        ),
        (["/c/1/x.json", "/c/2/x.json", "/c/3/x.json"], "/c/<number>/x.json", "/c/7/x.json"),
    ],
    ids=lambda value: value if isinstance(value, str) and "<" in value else "",
)
def test_what_looks_generated_becomes_a_star_with_three_examples(
    paths: list[str], shape: str, another: str
) -> None:
    found = learned(*paths)

    assert [(each.shape, each.different, each.first) for each in found] == [(shape, 3, paths[0])]
    assert covers(found, another)


@pytest.mark.parametrize("paths", [["/users/1", "/users/2"], [f"/o/{each}" for each in UUIDS[:2]]])
def test_two_examples_are_not_enough(paths: list[str]) -> None:
    found = learned(*paths)

    assert [each.globs for each in found] == [(path,) for path in paths]


def test_many_of_one_example_are_not_enough() -> None:
    found = templates_of({"/users/1": 500, "/users/2": 500})

    assert [(each.globs, each.count) for each in found] == [
        (("/users/1",), 500),
        (("/users/2",), 500),
    ]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "values",
    [
        ["1", "2", "3", "0"],
        UUIDS,
        ["3f2a9cde", "3f2a9cdf", "03f2a9ce"],
        ["1.2.0", "1.2.1", "1.2.2"],
        ["aB3aB3aB3aB3aB3aB3", "aB3aB3aB3aB3aB3aB4", "aB3aB3aB3aB3aB3aB5"],
        ["1.json", "2.json", "3.json"],
        ["page-1", "page-2", "page-3"],
        ["1.0", "1.1", "1.2"],
    ],
    ids=["numbers", "uuids", "hashes", "versions", "ids", "files", "pages", "short versions"],
)
def test_a_sibling_that_is_a_word_is_never_folded_in(values: list[str], word: str) -> None:
    found = learned(*(f"/users/{value}" for value in values))

    assert len(found) == 1
    assert not covers(found, f"/users/{word}")
    assert not covers(found, f"/{word}")
    assert not covers(found, f"/users/{word}.json")
    assert not covers(found, f"/users/page-{word}")
    assert not covers(found, f"/users/{word}-of-many-words-in-it")
    assert not covers(found, f"{found[0].first}/{word}")


def test_words_stay_words_however_many_there_are() -> None:
    paths = [f"/packages/{word}" for word in ("react", "lodash", "left-pad", "utf8", "s3", "v1")]

    found = learned(*paths)

    assert [each.globs for each in found] == [(path,) for path in paths]


def test_a_sibling_that_was_seen_stays_a_path_of_its_own() -> None:
    found = learned("/users/1", "/users/admin", "/users/2", "/users/3")

    assert [each.shape for each in found] == ["/users/<number>", "/users/admin"]


def test_a_part_with_few_values_is_no_variable() -> None:
    found = learned("/v/1.0/x/1", "/v/1.0/x/2", "/v/1.0/x/3", "/v/2.0/x/1")

    assert [each.shape for each in found] == ["/v/1.0/x/<number>", "/v/2.0/x/1"]
    assert not covers(found, "/v/2.0/x/2")


def test_no_template_covers_a_path_that_was_refused() -> None:
    found = learned("/files/1", "/files/2", "/files/3", never=["/files/77"])

    assert [each.globs for each in found] == [("/files/1",), ("/files/2",), ("/files/3",)]


def test_a_path_that_is_to_be_exact_is_no_example() -> None:
    found = templates_of(
        dict.fromkeys(("/f/1", "/f/2", "/f/3"), 1), exact=lambda path: path == "/f/3"
    )

    assert [each.globs for each in found] == [("/f/1",), ("/f/2",), ("/f/3",)]


def test_a_template_that_would_take_too_many_globs_is_none() -> None:
    found = learned(*(f"/a/{each}/b/{each}/c/{each}" for each in (1, 2, 3)))

    assert len(found) == 3


@pytest.mark.parametrize(
    "path",
    ["/a*", "/*", "/a/**", "/a;b", "/a//b", "/a/../b", "/a%2fb", "/a b", "/a\n- x", "*", "", "/ä"],
)
def test_what_a_glob_cannot_name_alone_is_not_writable(path: str) -> None:
    assert not is_writable(path)


SEGMENTS = st.one_of(
    st.sampled_from([*WORDS, *UUIDS, "1.2.3", "3f2a9cde", "x-1", "v2", "a.b-7_8", "%40x", "~"]),
    st.integers(0, 10_000).map(str),
    st.from_regex(r"[A-Za-z0-9._~-]{1,24}", fullmatch=True),
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(
    st.lists(PATHS, max_size=12).map(lambda paths: [each for each in paths if is_writable(each)])
)
def test_all_that_was_seen_is_covered_and_plain_words_are_not(paths: list[str]) -> None:
    found = learned(*paths)

    assert all(covers(found, path) for path in paths)
    assert all(len(each.globs) <= MOST_GLOBS for each in found)
    for path in paths:
        directory = path.rpartition("/")[0]
        for word in WORDS:
            sibling = f"{directory}/{word}"
            assert sibling in paths or not covers(found, sibling)
