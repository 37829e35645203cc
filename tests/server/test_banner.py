"""Banner and warnings: a start reports the settings that are in effect."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import AuditFailure, Learn, Settings
from claude_proxy.policy.policy import Policy
from claude_proxy.server import banner
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.trust.certificate_authority import CertificateAuthority, rotate
from claude_proxy.wire.authority import Authority

SETTINGS = Settings(allowlist=Path("a.yaml"), confdir=Path("c"), statedir=Path("s"))
POLICY = loader.load("allow: [one.example, two.example]\n", name="a.yaml")
LOCAL = OpenListener("tcp", "http://127.0.0.1:9051", (), address=Authority.of("127.0.0.1", 9051))


def warnings(settings: Settings = SETTINGS, policy: Policy = POLICY, **around: object) -> list[str]:
    authority = around.get("authority")
    assert authority is None or isinstance(authority, CertificateAuthority)
    listener = around.get("listener", LOCAL)
    assert isinstance(listener, OpenListener)
    return list(banner.warnings(settings, policy, authority, [listener]))


def test_an_ordinary_start_warns_of_nothing() -> None:
    assert warnings() == []


def test_unrecorded_decisions_are_warned_of() -> None:
    [warning] = warnings(replace(SETTINGS, audit_failure=AuditFailure.ALLOW))

    assert "--audit-failure allow" in warning


def test_a_listener_beyond_loopback_is_warned_of_with_its_clients() -> None:
    remote = replace(LOCAL, address=Authority.of("192.0.2.1", 9051))
    settings = replace(SETTINGS, clients=(ip_network("192.0.2.0/24"),))

    [warning] = warnings(settings, listener=remote)

    assert "192.0.2.0/24" in warning


def test_allowed_hosts_outside_the_constraints_of_the_ca_are_warned_of(tmp_path: Path) -> None:
    authority = rotate(tmp_path / "ca", ["one.example"]).authority

    [warning] = warnings(authority=authority)

    assert "two.example" in warning
    assert "ca rotate --constrain" in warning


@pytest.mark.parametrize(
    ("learn", "said"),
    [(Learn.DENIALS, "denied are added"), (Learn.EVERYTHING, "LETS EVERYTHING THROUGH")],
    ids=["denials", "everything"],
)
def test_learning_is_said_although_the_log_is_quiet(
    learn: Learn, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    banner.warn(replace(SETTINGS, learn=(learn, Path("new.yaml"))), POLICY, None, [LOCAL])

    shown = capsys.readouterr().err
    assert said in shown
    assert "new.yaml" in shown


def test_the_banner_says_addresses_ca_policy_and_audit_log(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path / "ca")
    other = replace(LOCAL, url="unix:/run/proxy.sock", address=None)

    text = "\n".join(banner.lines_of(SETTINGS, POLICY, authority, [LOCAL, other]))

    assert "listens on http://127.0.0.1:9051" in text
    assert "unix:/run/proxy.sock" in text
    assert str(authority.certificate_path) in text
    assert "a.yaml (2 rules)" in text
    assert "All other hosts are denied. Press Ctrl+C to stop." in text
