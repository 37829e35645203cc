"""Files of packages, found without importing them."""

from importlib import resources

import pytest

from claude_proxy.deferred.packaged_files import packaged_names, packaged_text


def test_the_text_is_the_one_that_importlib_finds() -> None:
    name = "public_suffix_list.dat"
    wanted = (resources.files("publicsuffixlist") / name).read_text("utf-8")

    assert packaged_text("publicsuffixlist", name) == wanted


def test_names_are_in_alphabetical_order() -> None:
    found = packaged_names("claude_proxy.config", "presets")

    assert list(found) == sorted(found)
    assert "npm.yaml" in found


def test_a_package_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        packaged_text("no_such_package", "a")


def test_a_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        packaged_text("claude_proxy.config", "missing")
