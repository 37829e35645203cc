"""Where several containers could be meant, none is taken."""

from pathlib import Path

import pytest

from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.container_choice import choose
from claude_proxy.sandbox.container.store import StoredContainer
from tests.sandbox.container.test_store import STORED

HERE = Path("/src/web")


def named(name: str, project: str) -> StoredContainer:
    return replace(STORED, name=name, project=project)


def test_the_only_one_is_meant_wherever_it_works() -> None:
    assert choose([named("api", "/elsewhere")], HERE, what="container").name == "api"


def test_of_several_that_of_the_directory_is_meant() -> None:
    found = [named("all", "/src"), named("web", "/src/web"), named("api", "/src/api")]

    assert choose(found, HERE, what="container").name == "web"
    assert choose(found[1:], HERE / "deep", what="container").name == "web"


def test_what_is_not_clear_is_an_error_that_names_them_all() -> None:
    found = [named("two", "/b"), named("one", "/a")]

    with pytest.raises(ClaudeProxyError) as error:
        choose(found, HERE, what="running container")
    assert error.value.where == "one, two"


def test_none_at_all_is_an_error_that_says_how_to_make_one() -> None:
    with pytest.raises(ClaudeProxyError) as error:
        choose([], HERE, what="container")
    assert "container run" in str(error.value.fix)
