"""In a live sandbox every way out is tried, and a weaker sandbox is recognised."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config import policy_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.allowlist.writer import facts_of
from claude_proxy.config.settings import Settings, TcpListen
from claude_proxy.doctor.attack import run as module
from claude_proxy.doctor.attack.catalogue import AttackGroup, AttackResult, Outcome, exit_code
from claude_proxy.doctor.attack.run import AttackTarget, attack, attack_allowlist
from claude_proxy.doctor.probe_server import ReceivedRequest
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.rules import Rule
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.plan.model import SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec
from tests.conftest import FindProgram
from tests.support.ports import free_port

POLICY = """\
allow:
  - one.example
  - {host: two.example, methods: [GET], paths: ["/a/**"], ports: [443, 8443]}
  - {host: plain.example, scheme: http, ports: [80]}
  - {host: through.example, tls: passthrough}
  - {host: 10.0.0.0/8, ports: [443]}
deny:
  - {host: one.example, paths: ["/b"]}
"""
ALLOWED = "allowed.claude-proxy-doctor.test"
BOUND = "bound.claude-proxy-doctor.test"
NAMES = "*.names.claude-proxy-doctor.test"
KEY = "the key"


@pytest.fixture
def aim(tmp_path: Path, program: FindProgram) -> AttackTarget:
    program("bwrap")
    home = tmp_path / "home"
    for name in (".ssh", ".config/claude-proxy"):
        (home / name).mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("a key")
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text(POLICY)
    settings = Settings(allowlist, home / ".config" / "claude-proxy", home / "state")
    spec = SandboxSpec(("x",), Path("/nonexistent"), profiles.load("shell", home / "none"))
    environ = {**os.environ, "HOME": str(home), "SSH_AUTH_SOCK": str(home / "agent")}
    return AttackTarget(RunSpec(spec, settings), home, environ)


def with_sandbox(aim: AttackTarget, **changes: object) -> AttackTarget:
    spec = replace(aim.run_spec.sandbox, **changes)  # type: ignore[arg-type]
    return replace(aim, run_spec=replace(aim.run_spec, sandbox=spec))


def with_settings(aim: AttackTarget, **changes: object) -> AttackTarget:
    settings = replace(aim.run_spec.settings, **changes)  # type: ignore[arg-type]
    return replace(aim, run_spec=replace(aim.run_spec, settings=settings))


def bad(rows: list[AttackResult]) -> list[AttackResult]:
    return [row for row in rows if row.result in {Outcome.THROUGH, Outcome.ERROR}]


def through(rows: list[AttackResult]) -> set[str]:
    return {row.name for row in rows if row.result is Outcome.THROUGH}


def test_nothing_gets_out_of_a_complete_sandbox(aim: AttackTarget, tmp_path: Path) -> None:
    rows = attack(with_settings(aim, listen=(TcpListen("127.0.0.1", 9051),)))

    assert bad(rows) == []
    assert exit_code(rows) == 0
    assert {row.group for row in rows} == set(AttackGroup)
    assert min(row.tries for row in rows if row.group is not AttackGroup.CANARIES) >= 1
    # It made nothing of the owner's, and recorded nothing.
    assert not (tmp_path / "home" / "state").exists()
    assert list((tmp_path / "home" / ".config" / "claude-proxy").iterdir()) == []


def test_without_the_filter_it_says_what_gets_through(aim: AttackTarget) -> None:
    rows = attack(with_sandbox(aim, seccomp=False))

    assert {"unix-paths", "unix", "io-uring", "keyring"} & through(rows) >= {"unix-paths", "unix"}
    assert exit_code(rows) == 1


def test_a_policy_that_allows_the_machine_itself_is_seen(aim: AttackTarget) -> None:
    port = free_port()
    aim.run_spec.settings.allowlist.write_text(f"allow: [{{host: 127.0.0.1, ports: [{port}]}}]\n")

    rows = attack(with_settings(aim, listen=(TcpListen("127.0.0.1", port),)))

    assert "proxy-itself" in through(rows)


def test_a_proxy_without_a_key_and_restrictions_is_reported(
    aim: AttackTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.ProbeKey, "sections", lambda *_: "")

    rows = attack(aim)

    of_keys = {"foreign-keys", "misplaced-placeholders", "other-endpoints", "message-bodies"}
    assert through(rows) == {*of_keys, "origin"}


def test_an_injected_key_without_a_leak_guard_is_reported(
    aim: AttackTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the client sends is the key, and nobody looks whether it comes back.
    monkeypatch.setattr(module.ProbeKey, "sections", lambda *_: "")
    made = module.ProbeKey
    monkeypatch.setattr(module, "ProbeKey", lambda folder: made(folder, *["one-and-the-same"] * 2))

    rows = attack(aim)

    assert "echoed-keys" in through(rows)


def test_a_variable_that_is_passed_on_is_reported(
    aim: AttackTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "the secret token")
    told = replace(with_sandbox(aim, pass_env=("A_SECRET",)), token="the secret token")

    rows = attack(told)

    assert through(rows) >= {"environment"}


def test_a_project_of_the_owners_is_left_as_it_was(aim: AttackTarget, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "file").write_text("x")

    rows = attack(replace(with_sandbox(aim, project=project), own_project=False))

    assert bad(rows) == []
    assert [path.name for path in project.iterdir()] == ["file"]


def test_a_sandbox_without_a_network_is_attacked_without_a_proxy(aim: AttackTarget) -> None:
    rows = attack(with_sandbox(aim, network=NetworkMode.NONE))

    assert bad(rows) == []
    assert AttackGroup.PROXY not in {row.group for row in rows}


def test_a_policy_that_allows_the_denied_host_is_refused(aim: AttackTarget) -> None:
    aim.run_spec.settings.allowlist.write_text('allow: ["*.claude-proxy-doctor.test"]\n')

    with pytest.raises(ClaudeProxyError, match="need to be denied"):
        attack(aim)


def test_a_sandbox_in_which_nothing_can_be_run_is_an_error(
    aim: AttackTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START", "import sys; sys.exit('boom')")

    with pytest.raises(ClaudeProxyError, match=r"nothing was tried: .* ended with 1 .*\(boom\)"):
        attack(aim)


def test_attacks_that_do_not_end_are_an_error(
    aim: AttackTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START", "import time; time.sleep(600)")
    monkeypatch.setattr(module, "_LIMIT_S", 0.5)

    with pytest.raises(ClaudeProxyError, match="did not end"):
        attack(aim)


def test_the_policy_that_is_tried_is_the_owners_and_one_rule(
    aim: AttackTarget, tmp_path: Path
) -> None:
    owners = policy_files.load(aim.run_spec.settings.allowlist).policy
    path = tmp_path / "extended.yaml"
    path.write_text(attack_allowlist(owners, 4711))

    found = policy_files.load(path).policy

    *kept, ours, bound, names = found.allow
    assert list(map(words, kept)) == list(map(words, owners.allow))
    assert list(map(words, found.deny)) == list(map(words, owners.deny))
    assert (ours.name, bound.name, names.name) == (ALLOWED, BOUND, NAMES)


def test_a_policy_that_allows_by_default_is_tried_as_one(tmp_path: Path) -> None:
    text = "default: allow\nallow: [{preset: nodejs}, a.test]\ndeny: [d.test]\n"
    owners = loader.load(text, name="a.yaml")
    path = tmp_path / "extended.yaml"
    path.write_text(attack_allowlist(owners, 4711))

    found = policy_files.load(path).policy

    assert found.allows_by_default
    assert list(found.hosts()) == ["a.test", ALLOWED, BOUND, NAMES, "*"]
    assert [rule.name for rule in found.deny] == ["d.test"]


def words(rule: Rule) -> dict[str, object]:
    return {**facts_of(rule), "source": None}


@pytest.mark.parametrize(
    ("arrival", "beyond"),
    [
        (ReceivedRequest(ALLOWED, "GET", "/honest/", ALLOWED), False),
        (ReceivedRequest(ALLOWED, alert="ConnectionResetError"), False),  # the proxy's own, ahead
        (ReceivedRequest(ALLOWED, "GET", "/smuggled", ALLOWED), True),
        (ReceivedRequest(ALLOWED, "POST", "/honest/", ALLOWED), True),
        (ReceivedRequest(ALLOWED, "GET", "/honest/", ALLOWED, fields=(("a", f"b {KEY}"),)), True),
        (
            ReceivedRequest(
                ALLOWED, "GET", "/honest/", ALLOWED, fields=(("a", "our-placeholder"),)
            ),
            True,
        ),
        (
            ReceivedRequest(BOUND, "POST", "/v1/messages", BOUND, fields=(("x-api-key", KEY),)),
            False,
        ),
        (ReceivedRequest(BOUND, "GET", "/v1/models", BOUND, fields=(("x-api-key", KEY),)), False),
        (ReceivedRequest(BOUND, alert="ConnectionResetError"), False),
        (ReceivedRequest(BOUND, "POST", "/v1/files", BOUND, fields=(("x-api-key", KEY),)), True),
        (
            ReceivedRequest(BOUND, "POST", "/v1/messages", BOUND, fields=(("x-api-key", "other"),)),
            True,
        ),
        (ReceivedRequest(BOUND, "POST", "/v1/messages", BOUND), True),
        (
            ReceivedRequest(
                BOUND, "POST", "/v1/messages", fields=(("x-api-key", KEY), ("cookie", "a"))
            ),
            True,
        ),
        (ReceivedRequest("other.test", alert="ConnectionResetError"), True),
        (ReceivedRequest("", alert="HTTP_REQUEST", secured=False), True),
    ],
)
def test_the_site_tells_what_went_beyond_what_is_allowed(
    arrival: ReceivedRequest, *, beyond: bool
) -> None:
    key = module.ProbeKey(Path("/nonexistent"), KEY, "our-placeholder")

    assert bool(module._unexpected([arrival], key)) is beyond


def test_replaced_and_created_files_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    before = module.identities([file, tmp_path, tmp_path / "none"])
    unchanged = module.changed(before)
    (tmp_path / "other").write_text("y")
    (tmp_path / "other").rename(file)
    (tmp_path / ".claude-proxy-doctor-1").write_text("")

    assert unchanged == ()
    assert module.changed(before) == (
        f"{file} was replaced",
        str(tmp_path / ".claude-proxy-doctor-1"),
    )
