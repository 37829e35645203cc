"""Laws of warnings about entries: what could not work is said, with what to do."""

from pathlib import Path

import pytest

from claude_proxy.cli import entry_warnings
from claude_proxy.cli.entry_warnings import (
    addresses_of,
    is_signed,
    of_addresses,
    of_authority,
    of_denials,
    project_denials,
)
from claude_proxy.policy.rules import Rule, Tls
from claude_proxy.trust.certificate_authority import rotate
from tests.policy.cases import deny, http, rule


@pytest.fixture
def hosts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n10.1.2.3 git.corp GIT.corp.test # the forge\n")
    monkeypatch.setattr(entry_warnings, "HOSTS_FILE", path)
    return path


def told(wanted: Rule, *rules: Rule) -> list[str]:
    return list(of_addresses(wanted, (wanted, *rules), in_dns=False))


@pytest.mark.usefixtures("hosts_file")
def test_a_name_that_leads_to_a_private_address_is_advised_the_address() -> None:
    (warning,) = told(rule("git.corp.test"))

    assert "claude-proxy allow git.corp.test --address 10.1.2.3" in warning
    (warning,) = told(rule("git.corp.test", ports=[8443]))
    assert "claude-proxy allow git.corp.test:8443 --address 10.1.2.3" in warning
    assert told(rule("git.corp.test", addresses=["10.1.2.0/24"])) == []
    assert told(rule("git.corp.test"), rule(".corp.test", addresses=["10.1.2.3"])) == []
    assert told(rule("other.test")) == told(rule(".corp.test")) == []


@pytest.mark.usefixtures("hosts_file")
@pytest.mark.parametrize("host", ["localhost", "app.localhost"])
def test_this_machine_is_to_be_reached_without_the_proxy(host: str) -> None:
    (warning,) = told(rule(host))

    assert "without the proxy" in warning
    assert "claude-proxy allow" not in warning


def test_an_entry_that_opens_this_machine_is_named() -> None:
    (warning,) = told(rule("127.0.0.1"))

    assert "this machine" in warning
    assert told(rule("10.1.2.3")) == []


@pytest.mark.parametrize(
    "wanted",
    [
        rule("169.254.169.254"),
        rule("100.100.100.200"),
        http("fd00:ec2::254"),
        rule("x.example", addresses=["169.254.169.254"]),
        http("metadata.google.internal"),
        rule(".google.internal"),
    ],
)
def test_an_entry_that_opens_a_metadata_service_is_named(wanted: Rule) -> None:
    (warning,) = told(wanted)

    assert "metadata service" in warning
    assert "credentials" in warning
    assert "claude-proxy allow" not in warning


def test_a_name_that_leads_to_a_metadata_service_is_not_advised_its_address(
    hosts_file: Path,
) -> None:
    hosts_file.write_text("169.254.169.254 cloud.test\n")

    (warning,) = told(rule("cloud.test"))

    assert "metadata service" in warning
    assert "--address" not in warning


def test_a_network_around_a_metadata_service_does_not_open_it() -> None:
    assert told(rule("x.test", addresses=["169.254.0.0/16"])) == []


def test_a_name_that_no_dns_has_is_not_asked_for() -> None:
    assert addresses_of("docs.test", in_dns=True) == []


def test_a_constrained_ca_is_named_where_it_may_not_sign(tmp_path: Path) -> None:
    confdir = tmp_path / "conf"
    assert list(of_authority(["b.test"], confdir)) == []
    rotate(confdir, ["a.test"])

    (warning,) = of_authority(["a.test", "x.a.test", "b.test"], confdir)

    assert "b.test" in warning
    assert "ca rotate --constrain" in warning


def test_an_unconstrained_ca_signs_for_every_host(tmp_path: Path) -> None:
    rotate(tmp_path / "conf")

    assert list(of_authority(["b.test"], tmp_path / "conf")) == []


def test_only_an_intercepted_host_needs_a_certificate() -> None:
    assert is_signed(rule("a.test"))
    assert not is_signed(rule("a.test", tls=Tls.PASSTHROUGH))
    assert not is_signed(http("a.test"))


def test_the_projects_own_file_is_known_from_below_it(tmp_path: Path) -> None:
    (tmp_path / ".claude-proxy.yaml").write_text("deny:\n  - a.test\n")
    (tmp_path / "below").mkdir()

    rules, problem = project_denials(tmp_path / "below")

    assert problem is None
    (warning,) = of_denials(rule("a.test"), (), rules)
    assert f"{tmp_path / '.claude-proxy.yaml'}:2" in warning


def test_a_broken_file_of_the_project_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / ".claude-proxy.yaml").write_text("allow:\n  - a.test\n")

    rules, problem = project_denials(tmp_path)

    assert rules == ()
    assert problem is not None


def test_a_denial_that_wins_is_named() -> None:
    (warning,) = of_denials(rule("a.test"), [deny("a.test"), deny("b.test")], ())

    assert "a denial wins" in warning
