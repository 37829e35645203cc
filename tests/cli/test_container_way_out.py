"""`container way-out` serves what the files of `container init` mount."""

import os
from pathlib import Path

import pytest

from claude_proxy.cli.main import main


def way_out(place: Path, *words: str) -> int:
    options = ["--dir", str(place / "out"), "--confdir", str(place / "conf")]
    return main(["container", "way-out", *options, "--statedir", str(place / "state"), *words])


def test_without_a_proxy_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert way_out(tmp_path, "--ready") == 1

    assert "claude-proxy container way-out" in capsys.readouterr().err
    assert (tmp_path / "out/trust/ca.pem").is_file()


def test_options_of_a_proxy_need_a_proxy(tmp_path: Path) -> None:
    assert way_out(tmp_path, "--ready", "--", "--quiet") == 2


def test_it_becomes_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, words: became.append(words))

    way_out(tmp_path, "--", "--policy", "claude")

    (words,) = became
    assert "serve" in words
    assert f"--listen=unix:{tmp_path}/out/proxy.sock" in words
    assert words[-2:] == ["--policy", "claude"]


def test_two_that_prepare_it_at_once_wait_for_each_other(tmp_path: Path) -> None:
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(way_out(tmp_path, "--ready"))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert codes == [1, 1]  # no proxy serves there
    assert (tmp_path / "out/trust/ca.pem").is_file()
    assert len([*(tmp_path / "out").glob(".runtime-*")]) == 1
