"""Links in obeyed files lead to what is read-only inside, or the run is refused."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import ObeyedLink, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import PROJECT, a_spec, paths, some_facts
from tests.sandbox.plan.plans import read, written

HOOKS = PROJECT / ".git/hooks"


def _planned(*links: ObeyedLink) -> SandboxPlan:
    found = paths(
        PROJECT / "hk", PROJECT / "a", PROJECT / "a/b", files=[PROJECT / "a/b/f", PROJECT / "f"]
    )
    return plan_sandbox(a_spec(), some_facts(found, links=links))


# As in a repository with a copy of the run's own, `.git/hooks` itself cannot be written.
def _only(target: Path, *through: Path, of_git: bool = True) -> ObeyedLink:
    outside = Path("/elsewhere/hooks")
    return ObeyedLink(outside, (outside, *through), target, of_git)


@pytest.mark.parametrize("of_git", [True, False])
@pytest.mark.parametrize("name", ["hk", "a/b/f", "f"])
def test_what_a_link_leads_to_is_read_only(name: str, *, of_git: bool) -> None:
    assert str(PROJECT / name) in read(_planned(_only(PROJECT / name, of_git=of_git)))


def test_nothing_in_a_directory_that_a_link_leads_to_stays_writable() -> None:
    planned = _planned(_only(PROJECT / "a/b/f"), _only(PROJECT / "a"))

    assert str(PROJECT / "a") in read(planned)
    assert not {str(PROJECT / name) for name in ("a", "a/b", "a/b/f")} & written(planned)


def test_a_link_on_the_way_is_kept_by_its_directory() -> None:
    planned = _planned(_only(PROJECT / "f", PROJECT / "a/b/link"))

    assert {str(PROJECT / "a/b"), str(PROJECT / "f")} <= read(planned)


@pytest.mark.parametrize(
    "link",
    [
        _only(PROJECT / "missing"),
        _only(PROJECT),
        _only(PROJECT / "f", PROJECT / "link"),
    ],
)
def test_what_git_obeys_and_cannot_be_protected_is_refused(link: ObeyedLink) -> None:
    facts = some_facts(paths(files=[PROJECT / "f"]), links=(link,))

    with pytest.raises(ConfigError, match="Git outside obeys"):
        plan_sandbox(a_spec(), facts)


def test_what_others_obey_and_cannot_be_protected_is_watched() -> None:
    planned = _planned(_only(PROJECT / "f", PROJECT / "link", of_git=False))

    assert PROJECT / "link" in planned.watched


def test_what_is_not_writable_needs_no_protection() -> None:
    assert "/usr/share" not in read(_planned(_only(Path("/usr/share"))))
