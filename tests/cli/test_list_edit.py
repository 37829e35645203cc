"""Laws of list edits: an entry keeps the limits of its host, and the text loads or stays."""

from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli.list_edit import (
    EditedList,
    edited_text,
    list_of,
    network_text,
    rewrite,
    spelled,
    write,
)
from claude_proxy.config.allowlist.edit import AllowEntry, PresetEntry
from claude_proxy.errors import ConfigError
from claude_proxy.wire.address import Network

READING = "allow:\n  - host: git.test\n    methods: [GET, HEAD]\n"


@pytest.fixture
def edited(tmp_path: Path) -> EditedList:
    return EditedList(tmp_path / "allowlist.yaml", tmp_path, None, ())


def given(**named: Any) -> dict[str, Any]:
    return {"allowlist_file": None, "policy_name": None, **named}


def test_an_entry_that_only_adds_an_address_keeps_the_limits_of_its_host(
    edited: EditedList,
) -> None:
    entry = AllowEntry("git.test", addresses=("10.1.2.3",))

    policy = edited.load(edited_text(READING, [entry], edited, remove=False))

    assert [sorted(rule.methods or ()) for rule in policy.allow] == [["GET", "HEAD"]] * 2
    assert [str(network) for network in policy.allow[1].addresses] == ["10.1.2.3/32"]


def test_what_a_wider_entry_covers_is_not_added(edited: EditedList) -> None:
    text = "allow:\n  - .git.test\n"

    for entry in (AllowEntry("a.git.test"), AllowEntry("git.test", methods=("GET",))):
        assert edited_text(text, [entry], edited, remove=False) == text


def test_an_entry_is_removed_with_its_lines_and_no_other(edited: EditedList) -> None:
    text = "allow:\n  # why\n  - a.test # mine\n  - host: b.test\n    ports: [443,\n      8443]\n"

    assert edited_text(text, [AllowEntry("b.test")], edited, remove=True) == (
        "allow:\n  # why\n  - a.test # mine\n"
    )
    assert edited_text(text, [AllowEntry("a.test")], edited, remove=True) == (
        "allow:\n  # why\n  - host: b.test\n    ports: [443,\n      8443]\n"
    )


def test_a_removal_that_names_methods_removes_just_that_entry(edited: EditedList) -> None:
    text = f"{READING}  - git.test\n"

    after = edited_text(
        text, [AllowEntry("git.test", methods=("GET", "HEAD"))], edited, remove=True
    )

    assert after == "allow:\n  - git.test\n"


def test_a_preset_is_added_and_removed_by_its_name(edited: EditedList) -> None:
    text = "allow:\n  - a.test\n"

    after = edited_text(text, [PresetEntry("npm")], edited, remove=False)

    assert after == f"{text}  - preset: npm\n"
    assert edited_text(after, [PresetEntry("npm")], edited, remove=False) == after
    assert edited_text(after, [PresetEntry("npm")], edited, remove=True) == text


def test_the_last_entry_can_be_removed(edited: EditedList) -> None:
    after = edited_text("allow:\n  - a.test\n", [AllowEntry("a.test")], edited, remove=True)

    assert edited.load(after).allow == ()


def test_what_was_written_meanwhile_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "allowlist.yaml"
    begun = EditedList(own, tmp_path, "allow:\n  - shipped.test\n", ())
    own.write_text("allow:\n  - other.test\n")

    write([AllowEntry("new.test")], begun, remove=False)

    assert own.read_text() == "allow:\n  - other.test\n  - new.test\n"


def test_a_built_in_policy_begins_a_policy_of_ones_own(tmp_path: Path) -> None:
    found = list_of(given(policy_name="shell"), tmp_path)

    write([AllowEntry("new.test")], found, remove=False)

    own = tmp_path / "policies" / "shell.yaml"
    assert "- new.test" in own.read_text()
    assert own.stat().st_mode & 0o777 == 0o600
    assert list_of(given(policy_name="shell"), tmp_path).begun is None


def test_a_policy_without_a_proxy_has_nothing_to_allow(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="network: none"):
        list_of(given(policy_name="lockdown"), tmp_path)


def test_a_policy_and_an_allowlist_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        list_of(given(policy_name="shell", allowlist_file=tmp_path / "a.yaml"), tmp_path)


@pytest.mark.parametrize("text", ["10.1.2.3", "10.1.2.0/24", "2001:db8::1", "2001:db8::/32"])
def test_an_address_is_written_as_a_file_has_it(text: str) -> None:
    assert spelled(text) == text


def test_one_address_is_written_without_a_prefix_length() -> None:
    networks: list[Network] = list(
        EditedList(Path("l"), Path(), None, ())
        .load('allow:\n  - host: a.test\n    addresses: ["10.1.2.3", "10.2.0.0/16"]\n')
        .allow[0]
        .addresses
    )

    assert [network_text(network) for network in networks] == ["10.1.2.3", "10.2.0.0/16"]


def test_an_old_file_that_is_kept_replaces_none(edited: EditedList) -> None:
    edited.path.write_text("allow: []\n", encoding="utf-8")

    kept = [rewrite(lambda text: f"# {text}", edited, backup=".now.bak")[2] for _ in range(3)]

    assert [path.name for path in kept if path is not None] == [
        "allowlist.yaml.now.bak",
        "allowlist.yaml.now.2.bak",
        "allowlist.yaml.now.3.bak",
    ]
    assert [path.read_text("utf-8") for path in kept if path is not None] == [
        "allow: []\n",
        "# allow: []\n",
        "# # allow: []\n",
    ]
