"""Laws of policies as arguments."""

from pathlib import Path

import pytest

from claude_proxy.cli.policy_reading import is_file, policy_of
from claude_proxy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "file"),
    [("a.yaml", True), ("./a", True), ("a/b", True), ("A B", True), ("shell", False)],
)
def test_what_looks_like_a_path_is_a_file(text: str, *, file: bool) -> None:
    assert is_file(text) is file


def test_an_own_policy_may_have_the_name_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shipped.yaml").write_text("allow: [a.example]\n")
    (tmp_path / "policies" / "shipped.yaml").chmod(0o600)

    found = policy_of("shipped", tmp_path, "OLD")

    assert list(found.policy.hosts()) == ["a.example"]


def test_the_allowlist_in_force_is_the_owners(tmp_path: Path) -> None:
    shipped = policy_of("allowlist", tmp_path, "OLD")
    (tmp_path / "allowlist.yaml").write_text("allow: [a.example]\n")

    assert list(policy_of("allowlist", tmp_path, "OLD").policy.hosts()) == ["a.example"]
    assert policy_of("shipped", tmp_path, "OLD").policy.allow == shipped.policy.allow


def test_an_unknown_policy_is_an_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no policy"):
        policy_of("nope", tmp_path, "OLD")
