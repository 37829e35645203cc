"""The law of locations: a rule says where it was written."""

from claude_proxy.policy.location import Location


def test_a_source_tells_file_or_preset_and_line() -> None:
    assert str(Location("allowlist.yaml", 12, 3)) == "allowlist.yaml:12"
    assert str(Location("github.yaml", 3, 1, preset="github")) == "preset github:3"


def test_what_is_in_no_file_has_no_line() -> None:
    assert str(Location("grant 12", 0, 0)) == "grant 12"
