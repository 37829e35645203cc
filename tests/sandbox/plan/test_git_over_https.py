"""Git remotes over SSH become HTTPS for hosts that the policy allows over it, and no others."""

import os
import subprocess
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.sandbox.plan.environment import GIT_CONFIG, proxy_environment
from claude_proxy.sandbox.plan.git_over_https import git_config, https_hosts, ssh_prefixes
from tests.conftest import FindProgram

SHOWN = git_config(["code.example", "github.com"])


def hosts(text: str) -> list[str]:
    return https_hosts(loader.read(text, name="allowlist.yaml").policy)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("allow: []", []),
        ("allow: [code.example, a.example]", ["code.example", "a.example"]),
        ("allow: [.code.example]", ["code.example"]),
        ("allow: ['*.code.example', 10.1.2.3, 10.0.0.0/8]", []),
        ("allow: [{host: code.example, scheme: http}]", []),
        ("allow: [{host: code.example, ports: [8443]}]", []),
        ("allow: [{host: code.example, methods: [GET]}]", ["code.example"]),
        ("allow: [{host: code.example, tls: passthrough}]", ["code.example"]),
        ("allow: [code.example]\ndeny: [code.example]", []),
        ("allow: [code.example]\ndeny: ['*.code.example']", ["code.example"]),
        ("allow: ['*.github.com']", []),  # not the domain itself
        ("allow: [{host: code.example, scheme: tcp, ports: [22]}]", []),
        ("allow: [code.example, {host: code.example, scheme: tcp, ports: [22]}]", []),
        (
            "allow: [code.example, {host: code.example, scheme: tcp, ports: [5432]}]",
            ["code.example"],
        ),
    ],
)
def test_only_hosts_that_are_allowed_over_https_and_not_over_ssh_are_rewritten(
    policy: str, expected: list[str]
) -> None:
    assert hosts(policy) == expected


def test_where_every_host_is_allowed_the_well_known_forges_are_rewritten() -> None:
    found = hosts("default: allow\ndeny: [gitlab.com]")

    assert "github.com" in found
    assert "gitlab.com" not in found


def test_a_long_list_makes_no_long_configuration() -> None:
    assert len(hosts("allow: [" + ", ".join(f"h{n}.example" for n in range(2000)) + "]")) == 500


def url_of(git: str, directory: Path, url: str, own: str = "", shown: bytes | None = None) -> str:
    """What the real Git makes of an address, with the user's own configuration `own`."""
    if shown is not None:
        (directory / "shown").write_bytes(shown)
    (directory / "own").write_text(own)
    variables = {
        name: value.replace(str(GIT_CONFIG), str(directory / "shown"))
        for name, value in proxy_environment().items()
        if name.startswith("GIT_CONFIG")
    }
    done = subprocess.run(
        [git, "ls-remote", "--get-url", url],
        env={
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(directory / "own"),
            **variables,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("prefix", [*ssh_prefixes("code.example")])
def test_git_itself_takes_https_for_every_way_to_write_ssh(
    program: FindProgram, tmp_path: Path, prefix: str
) -> None:
    url = url_of(program("git"), tmp_path, f"{prefix}owner/repo.git", shown=SHOWN)

    assert url == "https://code.example/owner/repo.git"


def test_the_port_of_https_for_ssh_is_another_name_of_the_same_forge(
    program: FindProgram, tmp_path: Path
) -> None:
    url = url_of(program("git"), tmp_path, "ssh://git@ssh.github.com:443/o/r.git", shown=SHOWN)

    assert url == "https://github.com/o/r.git"


@pytest.mark.parametrize(
    "url",
    [
        "git@code.example.org:owner/repo",
        "git@other.example:owner/repo",
        "ssh://git@code.example:2222/owner/repo",
        "git@sub.code.example:owner/repo",
        "alice@code.example:owner/repo",
        "https://code.example/owner/repo",
    ],
)
def test_other_addresses_stay_as_they_are(program: FindProgram, tmp_path: Path, url: str) -> None:
    assert url_of(program("git"), tmp_path, url, shown=SHOWN) == url


def test_an_entry_of_the_users_own_for_the_same_prefix_comes_first(
    program: FindProgram, tmp_path: Path
) -> None:
    own = '[url "https://mirror.example/"]\n\tinsteadOf = git@code.example:\n'

    url = url_of(program("git"), tmp_path, "git@code.example:owner/repo", own, SHOWN)

    assert url == "https://mirror.example/owner/repo"


def test_where_there_is_no_such_file_git_works_as_ever(
    program: FindProgram, tmp_path: Path
) -> None:
    assert url_of(program("git"), tmp_path, "git@code.example:r") == "git@code.example:r"
