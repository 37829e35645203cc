"""Laws of sets of paths: against what each path is, one by one."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.comparison.path_sets import PathSet, more_paths
from claude_proxy.policy.patterns import GlobMatcher, folded, is_ambiguous
from tests.policy.comparison.test_globs import GLOBS, PATHS

AMBIGUOUS = ("//a", "/a;b", "/a/../b", "/%41", "/a%2fb", "")
ALL = (*PATHS, *AMBIGUOUS, "*")

some = st.frozensets(st.sampled_from(GLOBS), max_size=3)
sets = st.builds(PathSet, st.booleans(), some, some, st.none() | some, st.booleans())


matcher = cache(GlobMatcher)
is_odd = cache(is_ambiguous)
read = cache(folded)


def has(paths: PathSet, path: str) -> bool:
    ambiguous = is_odd(path)
    if ambiguous and (paths.denied or paths.unambiguous):
        return False
    if any(matcher(glob, folded).matches(read(path)) for glob in paths.denied):
        return False
    if paths.within is not None and (
        ambiguous or not any(matcher(glob).matches(path) for glob in paths.within)
    ):
        return False
    return paths.whole or (
        not ambiguous and any(matcher(glob).matches(path) for glob in paths.globs)
    )


@given(sets, sets)
def test_more_paths_are_exactly_those_that_the_other_set_has_not(
    old: PathSet, new: PathSet
) -> None:
    more = more_paths(old, new)

    wrong = [path for path in ALL if more.covers(path) != (has(new, path) and not has(old, path))]
    assert wrong == []


@given(sets, sets)
def test_a_difference_without_a_path_is_none(old: PathSet, new: PathSet) -> None:
    more = more_paths(old, new)

    # `ALL` has a path for each way in which these globs differ.
    assert bool(more) == any(has(new, path) and not has(old, path) for path in ALL)


@given(sets)
def test_a_set_is_empty_only_if_it_has_no_path(paths: PathSet) -> None:
    assert paths.is_empty == (not any(has(paths, path) for path in ALL))
