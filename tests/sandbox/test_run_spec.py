"""A run is announced to the right proxies only, and cannot write the files of its proxy."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import (
    MissingError,
    RunSpec,
    refuse_reachable,
    shown_files,
    verified_targets,
)

ALLOW = "allow: [one.test, api.anthropic.com]\n"


@pytest.fixture
def run_spec(tmp_path: Path) -> RunSpec:
    """An order of a user with a list."""
    (tmp_path / "project").mkdir()
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text(ALLOW)
    settings = Settings(allowlist, tmp_path / "conf", tmp_path / "state")
    return RunSpec(SandboxSpec(("true",), tmp_path / "project", Profile("shell")), settings)


def with_settings(run_spec: RunSpec, **changes: object) -> RunSpec:
    return replace(run_spec, settings=replace(run_spec.settings, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("join", "announces"),
    [
        (None, True),
        ("unix:/run/proxy.sock", True),
        ("127.0.0.1:9051", True),
        ("[::1]:9051", True),
        ("192.0.2.1:9051", False),
    ],
)
def test_a_run_is_announced_only_to_a_proxy_on_this_machine(
    run_spec: RunSpec, join: str | None, *, announces: bool
) -> None:
    assert replace(run_spec, join=join).announces is announces


def test_a_policy_outside_the_project_is_accepted(run_spec: RunSpec) -> None:
    refuse_reachable(run_spec)


@pytest.mark.parametrize("name", ["allowlist", "upstream_ca", "jsonl"])
def test_a_file_of_the_proxy_in_the_project_is_refused(run_spec: RunSpec, name: str) -> None:
    inside = run_spec.sandbox.project / "deep" / "file"

    with pytest.raises(ConfigError, match="the sandbox could write"):
        refuse_reachable(with_settings(run_spec, **{name: inside}))


def test_a_file_of_the_proxy_behind_a_link_is_refused(run_spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "link.yaml").symlink_to(run_spec.sandbox.project / "allowlist.yaml")
    (run_spec.sandbox.project / "out").symlink_to(tmp_path)

    for path in (tmp_path / "link.yaml", run_spec.sandbox.project / "out" / "allowlist.yaml"):
        with pytest.raises(ConfigError, match="the sandbox could write"):
            refuse_reachable(with_settings(run_spec, allowlist=path))


def test_a_file_of_the_proxy_behind_two_links_is_refused(run_spec: RunSpec, tmp_path: Path) -> None:
    (run_spec.sandbox.project / "out").symlink_to(tmp_path / "allowlist.yaml")
    (tmp_path / "first.yaml").symlink_to("project/out")

    with pytest.raises(ConfigError, match="the sandbox could write"):
        refuse_reachable(with_settings(run_spec, allowlist=tmp_path / "first.yaml"))


def test_a_link_that_leads_out_of_the_project_is_accepted(
    run_spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_spec.sandbox.project)
    (run_spec.sandbox.project / "deep").mkdir()

    refuse_reachable(with_settings(run_spec, allowlist=Path("../allowlist.yaml")))
    with pytest.raises(ConfigError, match="the sandbox could write"):
        refuse_reachable(with_settings(run_spec, allowlist=Path("deep/../../allowlist.yaml")))


def test_a_file_of_the_proxy_in_an_allowed_writable_path_is_refused(
    run_spec: RunSpec, tmp_path: Path
) -> None:
    spec = replace(run_spec.sandbox, allow_rw=(tmp_path,))

    with pytest.raises(ConfigError, match="its own allowlist"):
        refuse_reachable(replace(run_spec, sandbox=spec))


def test_a_learned_preset_in_the_project_is_refused(run_spec: RunSpec) -> None:
    inside = run_spec.sandbox.project / "learned.yaml"

    with pytest.raises(ConfigError, match="learned"):
        refuse_reachable(with_settings(run_spec, learn=(Learn.DENIALS, inside)))


def test_a_verification_uses_an_allowed_and_a_denied_target(run_spec: RunSpec) -> None:
    assert verified_targets(run_spec) == ("api.anthropic.com:443", "mozilla.org:443")


def test_a_verification_uses_another_host_if_the_usual_one_is_not_allowed(
    run_spec: RunSpec,
) -> None:
    run_spec.settings.allowlist.write_text('allow: ["*.wild.test", one.test, mozilla.org]\n')

    assert verified_targets(run_spec) == ("one.test:443", "example.com:443")


def test_of_a_joined_proxy_the_policy_is_not_known(run_spec: RunSpec) -> None:
    assert verified_targets(replace(run_spec, join="127.0.0.1:9"))[0] == "api.anthropic.com:443"


def test_a_sandbox_is_shown_the_certificate_the_bundle_and_the_list(run_spec: RunSpec) -> None:
    shown = shown_files(run_spec)

    certificate = (run_spec.settings.confdir / "mitmproxy-ca-cert.pem").read_bytes()
    assert shown["ca.pem"] == certificate
    assert certificate.strip() in shown["bundle.pem"]
    assert shown["allowlist.yaml"] == ALLOW.encode()
    assert not any(b"PRIVATE" in content for content in shown.values())


def test_without_a_network_nothing_of_the_proxy_is_shown(run_spec: RunSpec) -> None:
    assert (
        shown_files(replace(run_spec, sandbox=replace(run_spec.sandbox, network=NetworkMode.NONE)))
        == {}
    )


def test_an_included_file_in_the_project_is_refused(run_spec: RunSpec) -> None:
    inside = run_spec.sandbox.project / "more.yaml"
    inside.write_text("allow: []\n")
    run_spec.settings.allowlist.write_text(f"include: [{inside}]\n")

    with pytest.raises(ConfigError, match="the sandbox could write to its own policy"):
        refuse_reachable(run_spec)


def test_no_error_names_an_option_that_was_not_given(run_spec: RunSpec) -> None:
    spec = replace(run_spec.sandbox, project=run_spec.settings.confdir)

    with pytest.raises(ConfigError) as caught:
        refuse_reachable(replace(run_spec, sandbox=spec))

    assert "--" not in str(caught.value.where)
    assert "change to the directory of one project" in str(caught.value.fix)
    assert "--allow-rw" not in str(caught.value.fix)


def test_the_home_as_a_project_is_called_by_its_name(
    run_spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(run_spec.sandbox.project))

    with pytest.raises(ConfigError, match="your whole home directory would be writable"):
        refuse_reachable(run_spec)


def test_policies_of_the_next_run_in_the_project_are_refused(run_spec: RunSpec) -> None:
    spec = replace(run_spec.sandbox, allow_rw=(run_spec.settings.confdir / "policies",))

    with pytest.raises(ConfigError, match="the sandbox could write to its own policy"):
        refuse_reachable(replace(run_spec, sandbox=spec))


def test_rules_from_included_files_are_shown(run_spec: RunSpec) -> None:
    more = run_spec.settings.allowlist.with_name("more.yaml")
    more.write_text("allow: [m.test]\ndeny: [d.test]\n")
    run_spec.settings.allowlist.write_text("include: [more.yaml]\nallow: [{preset: claude}]\n")

    text = shown_files(run_spec)["allowlist.yaml"].decode()

    assert text.endswith("# allow https://m.test ports 443\n# deny d.test\n")
    assert "# allow" not in text.split("# From other files")[0]


def test_with_a_policy_its_name_is_shown(run_spec: RunSpec) -> None:
    shown = shown_files(with_settings(run_spec, policy="lockdown"))

    assert b"lockdown" in shown["allowlist.yaml"]


def test_to_join_a_proxy_its_certificate_must_be_there(run_spec: RunSpec) -> None:
    with pytest.raises(ClaudeProxyError, match="certificate") as caught:
        shown_files(replace(run_spec, join="127.0.0.1:9"))

    assert caught.value.exit_code == 1
    assert caught.value.where == str(run_spec.settings.confdir / "mitmproxy-ca-cert.pem")


def test_a_list_that_cannot_be_read_is_an_error(run_spec: RunSpec) -> None:
    run_spec.settings.allowlist.unlink()

    with pytest.raises(ConfigError, match="cannot be read"):
        shown_files(run_spec)


CREDENTIALS = """\
credentials:
  # of our own
  - {host: one.test, inject: auto, from: {file: /secret/place}}
  - host: two.test
    pin: "sha256:aabb"

"""


@pytest.mark.parametrize(
    "text",
    [
        f"# ours\n{ALLOW}{CREDENTIALS}",
        f"# ours\n{CREDENTIALS}{ALLOW}",
        f"# ours\n{CREDENTIALS.replace('credentials', '"credentials"')}{ALLOW}deny: [a.test]\n",
    ],
)
def test_sources_of_credentials_are_not_shown(run_spec: RunSpec, text: str) -> None:
    run_spec.settings.allowlist.write_text(text)

    shown = shown_files(run_spec)["allowlist.yaml"].decode()

    assert shown.startswith("# ours\n")
    assert ALLOW in shown
    assert "Credentials are not shown" in shown
    assert not any(word in shown for word in ("secret", "sha256", "two.test", "of our own"))
    assert ("deny: [a.test]\n" in shown) == ("deny" in text)


def test_a_list_on_one_line_with_its_credentials_is_not_shown_at_all(run_spec: RunSpec) -> None:
    run_spec.settings.allowlist.write_text("{allow: [one.test], credentials: [{host: a.test}]}\n")

    assert shown_files(run_spec)["allowlist.yaml"].startswith(b"# Credentials are on the same line")


def test_an_invalid_list_is_not_shown(run_spec: RunSpec) -> None:
    run_spec.settings.allowlist.write_text("- {from: {file: /secret}}\n")

    assert shown_files(run_spec)["allowlist.yaml"] == b""


def test_everything_that_is_missing_is_reported() -> None:
    error = MissingError([ClaudeProxyError("one"), ClaudeProxyError("two", fix="so")])

    assert error.lines() == ["error: one", "error: two", "  fix:   so"]


def test_the_root_directory_is_refused_with_its_own_error(run_spec: RunSpec) -> None:
    for spec in (
        replace(run_spec.sandbox, project=Path("/")),
        replace(run_spec.sandbox, allow_rw=(Path("/"),)),
    ):
        with pytest.raises(ConfigError, match="the whole file system would be writable"):
            refuse_reachable(replace(run_spec, sandbox=spec))


def test_a_run_is_not_announced_to_a_foreign_proxy(run_spec: RunSpec) -> None:
    assert not replace(run_spec, join="127.0.0.1:8888", foreign=True).announces
