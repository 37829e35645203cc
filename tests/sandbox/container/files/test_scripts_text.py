"""The scripts are part of the package."""

from importlib import resources

from claude_proxy.sandbox.container.files.scripts_text import script


def test_every_script_stops_at_its_first_failure() -> None:
    place = resources.files("claude_proxy.sandbox.container.files") / "scripts"
    names = [entry.name for entry in place.iterdir() if entry.name.endswith(".sh")]

    assert names
    for name in names:
        assert "\nset -euo pipefail\n" in script(name), name
