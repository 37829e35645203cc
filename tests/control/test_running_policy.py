"""What a running proxy judges by is told by its version, or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from claude_proxy.config import policy_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Settings
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.control.running_policy import policy_in_force, source_of, version_of
from claude_proxy.policy.policy import Policy


def policy(text: str, name: str = "a.yaml") -> Policy:
    return loader.load(text, name=name)


def test_the_same_entries_have_the_same_version_wherever_they_are_written() -> None:
    one = policy("allow: [a.example]\ndeny: [b.example]\n", "a.yaml")
    other = policy("# a comment\n\nallow:\n  - a.example\ndeny:\n  - b.example\n", "b.yaml")

    assert version_of(one) == version_of(other)


def test_any_other_entry_is_another_version() -> None:
    texts = [
        "allow: [a.example]\n",
        "allow: [b.example]\n",
        "allow: []\n",
        "allow: [{host: a.example, methods: [GET]}]\n",
        "allow: [{host: a.example, paths: [/a]}]\n",
        "allow: [a.example]\ndeny: [b.example]\n",
        "allow: [{host: a.example, ports: [8443]}]\n",
    ]

    assert len({version_of(policy(text)) for text in texts}) == len(texts)


class Running:
    """Stands for a running proxy, whose workers answer by what they have read."""

    def __init__(self, *settings: Settings) -> None:
        self.name = "web"
        self.facts = ProxyFacts("web", "serve", 4711, 0.0)
        self._answers = [source_of(each, policy_files.load_for(each).policy) for each in settings]

    def ask_workers(self, _op: str) -> list[dict[str, Any]]:
        return self._answers


def running(*settings: Settings) -> Proxy:
    return cast("Proxy", Running(*settings))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "a.yaml").write_text("allow: [a.example]\n", "utf-8")
    (tmp_path / "project.yaml").write_text("deny: [b.example]\n", "utf-8")
    return Settings(tmp_path / "a.yaml", tmp_path, tmp_path)


def test_it_is_read_with_all_that_is_in_force_beside_the_file(settings: Settings) -> None:
    given = replace(settings, ask=True, narrowing=settings.confdir / "project.yaml")

    found = policy_in_force(running(given))

    assert version_of(found) == version_of(policy_files.load_for(given).policy)
    assert [str(rule) for rule in found.deny] == ["b.example"]
    assert found.asks_by_default


@pytest.mark.parametrize("text", ["allow: [c.example]\n", "allow: [\n"])
def test_a_file_that_says_something_else_now_is_not_taken_for_it(
    settings: Settings, text: str
) -> None:
    proxy = running(settings)
    settings.allowlist.write_text(text, "utf-8")

    with pytest.raises(ControlError, match="web judges by cannot be read again"):
        policy_in_force(proxy)


def test_workers_that_differ_have_no_policy_in_common(settings: Settings) -> None:
    with pytest.raises(ControlError, match="same policy yet"):
        policy_in_force(running(settings, replace(settings, ask=True)))
