"""Rules of a build: presets, and the servers that the command line names; nothing else."""

from pathlib import Path

import pytest

from claude_proxy.config.policy_files import load_for
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.policy.policy import Policy
from claude_proxy.sandbox.container.plan.build_rules import Source, registry_of, rules_text
from claude_proxy.wire.authority import Authority


def policy_of(text: str, directory: Path) -> Policy:
    file = directory / "rules.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return load_for(Settings(file, directory, directory)).policy


def allows(policy: Policy, target: str) -> bool:
    return policy.decide_connect(Authority.parse(target)).allowed


def test_a_build_reads_the_archives_of_its_presets_and_nothing_else(tmp_path: Path) -> None:
    policy = policy_of(rules_text(["debian", "npm"]), tmp_path)

    assert allows(policy, "ftp.debian.org:443")
    assert allows(policy, "registry.yarnpkg.com:443")
    assert not allows(policy, "api.anthropic.com:443")
    assert not allows(policy, "github.com:443")


def test_a_mirror_on_a_port_of_its_own_is_allowed_on_that_port_alone(tmp_path: Path) -> None:
    mirror = Source.parse("https://mirror.corp.example:8443/debian", "--mirror")
    policy = policy_of(rules_text([], [mirror], addresses=["10.0.0.0/8"]), tmp_path)

    assert allows(policy, "mirror.corp.example:8443")
    assert not allows(policy, "mirror.corp.example:443")
    assert not allows(policy, "other.corp.example:8443")


def test_a_registry_of_an_image_is_read(tmp_path: Path) -> None:
    policy = policy_of(rules_text([], registry="images.example.com:5000"), tmp_path)

    assert allows(policy, "images.example.com:5000")
    assert not allows(policy, "images.example.com:443")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mirror.example.com",
        "ftp://mirror.example.com/debian",
        "file:///etc/passwd",
        "https://user:secret@mirror.example.com/",
        "https:///debian",
        "https://mirror.example.com:0/x",
        "https://mirror.example.com:99999/x",
        "https://mirror.example.com/;reboot",
        "https://mirror.example.com/$(id)",
        "https://mirror.example.com/a b",
        "https://mirror.example.com/\nallow: []",
        'https://mirror.example.com/"',
        "https://mirror.example.com/?q=1",
        "https://[::1/x",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"URL"):
        Source.parse(url, "--mirror")


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("debian", None),
        ("debian:stable-slim", None),
        ("library/debian", None),
        ("localhost/claude:latest", None),
        ("images.example.com/team/base:1", "images.example.com"),
        ("images:5000/base", "images:5000"),
    ],
)
def test_an_image_names_its_registry_as_engines_read_it(image: str, registry: str | None) -> None:
    assert registry_of(image) == registry


def test_an_odd_registry_is_an_error() -> None:
    with pytest.raises(ConfigError, match="registry"):
        rules_text([], registry="bad host.example")
