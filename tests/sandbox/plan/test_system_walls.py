"""A directory of the system that contains a secret is shown without it, and nothing hides it."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import HostFacts, PathInfo, PathKind, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from claude_proxy.sandbox.plan.system_walls import directories_to_list
from tests.sandbox.boxes import Paths, a_spec, paths, some_facts
from tests.sandbox.plan.plans import read

OPT = Path("/opt")
KEY = OPT / "app/keys/key.json"


def with_key(**changes: object) -> HostFacts:
    found = paths(
        *(OPT, OPT / "app", OPT / "app/keys", OPT / "other"),
        files=[KEY, OPT / "app/keys/public", OPT / "app/program"],
    )
    listings = {
        OPT: ("app", "other"),
        OPT / "app": ("keys", "program"),
        OPT / "app/keys": ("key.json", "public"),
    }
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(KEY), "PATH": "/usr/bin"}
    return replace(some_facts(found, environ=environ, listings=listings), **changes)  # type: ignore[arg-type]


def shown(planned: SandboxPlan) -> set[str]:
    return {place for place in read(planned) if place.startswith("/opt")}


def test_only_the_other_entries_are_shown() -> None:
    planned = plan_sandbox(a_spec(), with_key())

    assert shown(planned) == {"/opt/other", "/opt/app/program", "/opt/app/keys/public"}
    assert planned.masked == ()


def test_a_link_in_the_system_does_not_show_the_secret_after_all() -> None:
    facts = with_key()
    link = OPT / "link"
    found = Paths(facts.paths)
    found[link] = PathInfo(PathKind.DIRECTORY, KEY.parent, str(KEY.parent))
    found[OPT / "to-key"] = PathInfo(PathKind.FILE, KEY, str(KEY))
    listings = {**facts.listings, OPT: ("app", "link", "other", "to-key")}

    planned = plan_sandbox(a_spec(), replace(facts, paths=found, listings=listings))

    assert shown(planned) == {"/opt/other", "/opt/app/program", "/opt/app/keys/public"}


def test_a_directory_with_very_many_entries_is_an_error() -> None:
    facts = with_key(listings={OPT: tuple(map(str, range(1001)))})

    with pytest.raises(ConfigError, match="every run sees") as caught:
        plan_sandbox(a_spec(), facts)

    assert caught.value.where == "/opt"


def test_the_directories_on_the_way_to_a_secret_are_listed_by_each_of_their_names() -> None:
    found = paths()
    found[OPT] = PathInfo(PathKind.DIRECTORY, Path("/data/opt"), "/data/opt")

    by_name = dict(directories_to_list([OPT / "a/key"], found))
    by_real = dict(directories_to_list([Path("/data/opt/a/key")], found))

    assert by_name == by_real == {OPT: Path("/data/opt"), OPT / "a": Path("/data/opt/a")}
    assert dict(directories_to_list([Path("/home/ann/.ssh"), Path("/optional/x")], found)) == {}
