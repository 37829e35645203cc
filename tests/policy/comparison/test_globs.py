"""Laws of the comparison of globs: against every short text of a small alphabet."""

from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.comparison.globs import Glob, meets
from claude_proxy.policy.messages import glob as words
from claude_proxy.policy.patterns import GlobMatcher, folded, is_ambiguous

# Every path of up to three segments of these.
_SEGMENTS = (
    *("a", "b", "ab", "aa", "A", "%40", "@", "a.b", "%c3%A9", "z", "a%20b", "20", "ba", "bab"),
    *("zab", "za", "abz", "bz", "zb", "z20", "%20", "%C3%a9", "b20", "20a", "%aa", "%AA", "%bb"),
    *("a%aa", "%aab", "a%bb", "b%bba", "%bb%aa", "%40a", "b%40", "%bba", "ab%20"),
)
PATHS = [
    path
    for size in range(4)
    for parts in product(_SEGMENTS[: (99, 99, 28, 5)[size]], repeat=size)
    for path in ("/" + "/".join(parts), "/" + "/".join(parts) + "/" if parts else "/")
    if not is_ambiguous(path)
]
GLOBS = (
    *("/", "/**", "/*", "/*/*", "/a", "/a/**", "/a*", "/*a", "/a*/**", "/*/a", "/a/*/b", "/*b*"),
    *("/%40", "/@", "/A", "/a%20b", "/*20", "/%c3%A9/**", "/*/**", "/a/", "/a.b", "/ab/**"),
)
globs = st.builds(Glob, st.sampled_from(GLOBS), st.booleans())


matcher = cache(GlobMatcher)


@cache
def matches(glob: Glob, path: str) -> bool:
    if glob.lenient:
        return matcher(glob.text, folded).matches(folded(path))
    return matcher(glob.text).matches(path)


@given(st.lists(globs, max_size=3), st.lists(globs, max_size=3))
def test_globs_that_some_path_tells_apart_are_never_said_to_be_alike(
    wanted: list[Glob], unwanted: list[Glob]
) -> None:
    by_hand = any(
        all(matches(glob, path) for glob in wanted)
        and not any(matches(glob, path) for glob in unwanted)
        for path in PATHS
    )

    # Every path that tells these globs apart has a short form among `PATHS`.
    assert meets(wanted, unwanted) or not by_hand


@pytest.mark.parametrize(
    ("wanted", "unwanted", "met"),
    [
        (["/v1/*"], ["/v1/**"], False),
        (["/v1/**"], ["/v1/*"], True),
        (["/v1/**"], ["/v1", "/v1/*", "/v1/*/**"], True),  # "/v1/"
        (["/v1/**"], ["/v1", "/v1/", "/v1/*", "/v1/*/**"], False),
        (["/*"], ["/a*"], True),
        (["/a*b"], ["/a*", "/b"], False),
        (["/a*c", "/*b*"], [], True),
        (["/a*", "/b*"], [], False),
        (["/**"], ["/"], True),
        (["/*"], ["/*/**"], False),
        (["/a%20b"], ["/a*b"], False),
        (["/*20"], ["/%20"], True),
    ],
)
def test_known_cases_are_decided(wanted: list[str], unwanted: list[str], *, met: bool) -> None:
    assert meets(map(Glob, wanted), map(Glob, unwanted)) is met


@pytest.mark.parametrize(
    ("wanted", "denied", "met"),
    [
        ("/ADMIN", "/admin", False),
        ("/admin", "/ADMIN", False),
        ("/@x", "/%40x", False),
        ("/%40x", "/@x", False),
        ("/**", "/admin/**", True),
        ("/%C3%89", "/%c3%a9", True),  # Latin-1: not the two spellings of one letter
    ],
)
def test_a_denial_is_compared_in_every_spelling(wanted: str, denied: str, *, met: bool) -> None:
    assert meets([Glob(wanted)], [Glob(denied, lenient=True)]) is met


WORDS = ["".join(word) for size in range(5) for word in product("ab-", repeat=size)]
names = st.text(alphabet="ab-*", max_size=4).map(lambda text: Glob(text, segmented=False))


@given(st.lists(names, min_size=1, max_size=2), st.lists(names, max_size=2))
def test_globs_of_names_are_compared_like_they_match(
    wanted: list[Glob], unwanted: list[Glob]
) -> None:
    by_hand = any(
        all(words.matches(glob.text, word) for glob in wanted)
        and not any(words.matches(glob.text, word) for glob in unwanted)
        for word in (*WORDS, *(f"{word}x" for word in WORDS), *(f"x{word}" for word in WORDS))
    )

    assert meets(wanted, unwanted) or not by_hand
