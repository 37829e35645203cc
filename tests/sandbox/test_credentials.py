"""The credentials of a run are checked before anything is started."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import credentials
from claude_proxy.sandbox.plan.model import Profile, SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec

VALUE = "sk-ant-api03-canary-of-the-launcher"

type Make = Callable[..., RunSpec]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes an order for a list with one source."""
    home = tmp_path / "home"
    project = home / "project"
    project.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    def made(source: str, **changes: object) -> RunSpec:
        allowlist = tmp_path / "allowlist.yaml"
        allowlist.write_text(
            "allow: [api.anthropic.com]\ncredentials:\n"
            f"  - {{host: api.anthropic.com, inject: auto, from: {source}}}\n"
        )
        spec = SandboxSpec(
            ("true",), project, Profile("claude", home_write=(".claude/", ".claude.json"))
        )
        settings = Settings(allowlist, tmp_path / "conf", tmp_path / "state")
        return RunSpec(replace(spec, **changes), settings)  # type: ignore[arg-type]

    return made


def test_the_kind_of_a_value_decides_which_variable_has_the_placeholder(make: Make) -> None:
    run_spec = make("{env: KEY}")
    bindings = credentials.bindings_of(run_spec)

    console = credentials.with_isolation(run_spec, bindings, {**os.environ, "KEY": VALUE})
    oauth = credentials.with_isolation(
        run_spec, bindings, {**os.environ, "KEY": "sk-ant-oat01-canary"}
    )

    assert list(dict(console.isolation.placeholders)) == ["ANTHROPIC_AUTH_TOKEN"]
    assert list(dict(oauth.isolation.placeholders)) == ["CLAUDE_CODE_OAUTH_TOKEN"]


def test_a_source_without_a_value_is_an_error_for_a_run_with_a_network(make: Make) -> None:
    run_spec = make("{env: KEY}")

    with pytest.raises(ConfigError, match="not set"):
        credentials.with_isolation(
            run_spec, credentials.bindings_of(run_spec), {"HOME": "/home/ann"}
        )


def test_a_source_without_a_value_is_no_error_without_an_own_proxy(make: Make) -> None:
    joined = replace(make("{env: KEY}"), join="127.0.0.1:9051")
    alone = make("{env: KEY}", network=NetworkMode.NONE)

    for run_spec in (joined, alone):
        spec = credentials.with_isolation(
            run_spec, credentials.bindings_of(run_spec), {"HOME": "/home/ann"}
        )
        assert "ANTHROPIC_API_KEY" in spec.isolation.withheld


def test_hosts_that_take_any_account_are_reported_once_if_the_run_can_reach_them(
    make: Make,
) -> None:
    def told(run_spec: RunSpec) -> list[str]:
        run_spec.settings.allowlist.write_text("allow: [api.anthropic.com]\n")
        run_spec.settings.statedir.mkdir(exist_ok=True)
        return list(credentials.warnings_of(run_spec))

    assert told(make("{env: KEY}", network=NetworkMode.NONE)) == []
    assert told(replace(make("{env: KEY}"), join="127.0.0.1:9051")) == []

    [warning] = told(make("{env: KEY}"))

    assert "credentials:" in warning
    assert told(make("{env: KEY}")) == []


def test_a_run_with_a_bound_account_has_no_warning(make: Make) -> None:
    assert list(credentials.warnings_of(make("{env: KEY}"))) == []


def test_a_foreign_proxy_has_no_credentials_and_an_open_network_has_no_proxy(make: Make) -> None:
    run_spec = make("{env: KEY}")

    assert credentials.bindings_of(replace(run_spec, foreign=True)) == ()
    assert credentials.bindings_of(make("{env: KEY}", network=NetworkMode.OPEN)) == ()


def test_a_dry_run_starts_no_credential_command(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run_spec = make(f"{{command: [touch, {trace}]}}")

    credentials.with_isolation(run_spec, credentials.bindings_of(run_spec), os.environ, dry=True)

    assert not trace.exists()


def test_a_credential_command_does_not_run_in_the_project(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_spec = make('{command: [sh, -c, "pwd >$TRACE; echo $VALUE"]}')
    monkeypatch.chdir(run_spec.sandbox.project)
    environ = {**os.environ, "TRACE": str(tmp_path / "trace"), "VALUE": VALUE}

    credentials.with_isolation(run_spec, credentials.bindings_of(run_spec), environ)

    assert (tmp_path / "trace").read_text() == "/\n"
    assert Path.cwd() == run_spec.sandbox.project


def refused(run_spec: RunSpec, **environ: str) -> ClaudeProxyError:
    with pytest.raises(ConfigError, match="could have been written by a run") as caught:
        credentials.refuse_reachable(
            run_spec, credentials.bindings_of(run_spec), {**os.environ, **environ}
        )
    return caught.value


@pytest.mark.parametrize("where", ["project/key", ".claude/key", ".claude.json"])
def test_a_source_that_a_run_may_write_is_refused(make: Make, where: str) -> None:
    assert str(refused(make(f"{{file: ~/{where}}}")).where).endswith(where)
    assert str(refused(make(f"{{command: [sh, ~/{where}]}}")).where).endswith(where)


def test_a_source_behind_a_link_into_the_project_is_refused(make: Make, tmp_path: Path) -> None:
    run_spec = make(f"{{file: {tmp_path}/link}}")
    (tmp_path / "link").symlink_to(run_spec.sandbox.project / "key")

    refused(run_spec)


def test_a_credential_program_in_the_project_is_refused(make: Make) -> None:
    run_spec = make("{command: [print-key]}")
    program = run_spec.sandbox.project / "bin/print-key"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    error = refused(run_spec, PATH=f"{program.parent}:{os.environ['PATH']}")

    assert error.where == str(program)


@pytest.mark.parametrize(
    "source", ["{file: ~/keys/key}", "{command: [cat, /etc/hosts]}", "{env: KEY}"]
)
def test_a_source_that_no_run_may_write_is_accepted(make: Make, source: str) -> None:
    run_spec = make(source)

    credentials.refuse_reachable(run_spec, credentials.bindings_of(run_spec), os.environ)


def test_the_clients_own_login_is_accepted_because_it_is_hidden(
    make: Make,
) -> None:
    run_spec = make("{file: ~/.claude/.credentials.json, key: claudeAiOauth.accessToken}")

    credentials.refuse_reachable(run_spec, credentials.bindings_of(run_spec), os.environ)


def test_files_that_contain_the_value_are_found(make: Make) -> None:
    run_spec = make("{env: KEY}")
    for name in (".env", "README"):
        (run_spec.sandbox.project / name).write_text(f"KEY={VALUE}\n")
    os.mkfifo(run_spec.sandbox.project / ".envrc")

    spec = credentials.with_isolation(
        run_spec, credentials.bindings_of(run_spec), {**os.environ, "KEY": VALUE}
    )

    assert spec.isolation.exposed == (run_spec.sandbox.project / ".env",)
