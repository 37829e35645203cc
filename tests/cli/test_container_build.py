"""`container build`: what the options ask for, and what they may not say."""

from pathlib import Path

import pytest

from claude_proxy.cli.container_build import command, request_of
from claude_proxy.cli.main import main
from claude_proxy.sandbox.container.image_build import BuildRequest


def request(*words: str) -> BuildRequest:
    with command.make_context("build", list(words)) as context:
        return request_of(context.params)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["container", "build", *words]) == 2
    return capsys.readouterr().err


def test_without_options_it_is_claude_code() -> None:
    found = request()

    assert found.tag == "localhost/claude-proxy-claude:latest"
    assert found.arguments == {"NPM_PACKAGES": "@anthropic-ai/claude-code"}
    assert ("claude", "--version") in found.checks
    assert found.suite is None


def test_a_suite_may_be_left_to_debian() -> None:
    assert request("--from-debootstrap").suite == "stable"
    assert request("--from-debootstrap", "trixie").suite == "trixie"


def test_servers_that_are_named_are_read() -> None:
    found = request(
        *("--base", "images.example.com:5000/debian:1", "--mirror", "http://m.example.com/debian"),
        *("--npm-registry", "https://n.example.com/", "--address", "10.0.0.0/8"),
    )

    assert found.arguments["BASE"] == "images.example.com:5000/debian:1"
    assert found.arguments["APT_MIRROR"] == "http://m.example.com/debian"
    for host in ("images.example.com", "m.example.com", "n.example.com", "10.0.0.0/8"):
        assert host in found.rules.text


def test_a_containerfile_is_not_checked_for_an_agent_that_nobody_named(tmp_path: Path) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("FROM x\n")

    plain = request("--file", str(file), "--tag", "mine", "--build-arg", "A=b=c")
    agent = request("--file", str(file), "--preset", "codex")

    assert (plain.checks, plain.arguments, plain.tag) == ((), {"A": "b=c"}, "mine")
    assert ("codex", "--version") in agent.checks
    assert "NPM_PACKAGES" not in agent.arguments


def test_what_contradicts_itself_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("FROM x\n")

    assert "drop --base" in refused(capsys, "--from-debootstrap", "--base", "debian")
    assert "--tag" in refused(capsys, "--file", str(file))
    assert "--mirror" in refused(capsys, "--address", "10.0.0.1")


@pytest.mark.parametrize(
    "words",
    [
        ("--base", "-v"),
        ("--tag", "--rm"),
        ("--mirror", "ftp://x/"),
        ("--build-arg", "no"),
        ("--build-arg", "a-b=c"),
        ("--preset", "none"),
    ],
)
def test_what_is_no_value_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    assert words[0] in refused(capsys, *words)


def test_without_an_engine_it_says_how_to_install_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    places = ["--confdir", str(tmp_path / "c"), "--statedir", str(tmp_path / "s")]

    assert main(["container", "build", *places]) == 1

    err = capsys.readouterr().err
    assert "apt install podman" in err
    assert "dnf install podman" in err
