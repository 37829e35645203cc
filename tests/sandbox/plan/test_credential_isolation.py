"""Credentials, and variables and files that contain them, stay outside of a run."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Binding, Form, Injection, LoginPin
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
)
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.sandbox.plan.agent_home import shared
from claude_proxy.sandbox.plan.credential_isolation import (
    CLAUDE_VARIABLES,
    GATEWAY_PLACEHOLDER,
    OAUTH_TOKEN,
    TOKEN,
    combined,
    isolation_for_gateway,
    isolation_of,
    with_logins_of,
)
from claude_proxy.sandbox.plan.model import CredentialIsolation, Profile, SandboxPlan, Seed
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import HOME, PROJECT, Box, a_spec, paths, some_facts

PLACEHOLDER = "sk-ant-claude-proxy-placeholder-anthropic"
CONSOLE = "sk-ant-api03-a-console-key"
OAUTH = "sk-ant-oat01-a-token"
LOGIN = HOME / ".claude/.credentials.json"
CLAUDE = Profile(
    "claude",
    home_state=(".claude/",),
    home_login=(".claude/.credentials.json",),
    login_hosts=("api.anthropic.com",),
    pass_env=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL"),
)


KEY = EnvironmentSource("KEY")


def a_binding(
    host: str = "api.anthropic.com",
    *,
    name: str = "anthropic",
    source: SecretSource = KEY,
    form: Form = Form.AUTO,
    placeholder: str = PLACEHOLDER,
    variables: tuple[str, ...] = (),
) -> Binding:
    use = Injection(source, form, placeholder=placeholder, variables=variables)
    return Binding(name, (HostPattern.parse(host),), use, Location("allowlist.yaml", 1, 1))


def a_pin(source: SecretSource | None = None) -> Binding:
    pattern = HostPattern.parse("api.anthropic.com")
    return Binding(
        "anthropic", (pattern,), LoginPin(source=source), Location("allowlist.yaml", 1, 1)
    )


def kept(*bindings: Binding, value: str = CONSOLE, **environ: str) -> CredentialIsolation:
    values = {each.name: Secret(value.encode()) for each in bindings}
    return isolation_of(bindings, values, environ, HOME)


def planned(
    isolation: CredentialIsolation, profile: Profile = CLAUDE, /, **environ: str
) -> SandboxPlan:
    found = paths(HOME / ".claude", HOME / "keys", files=(LOGIN, HOME / "keys/key"))
    facts = some_facts(found, environ={"PATH": "/usr/bin", **environ})
    return plan_sandbox(a_spec(profile=profile, isolation=isolation), facts)


# --- which variables stand inside


@pytest.mark.parametrize(
    ("form", "value", "variable"),
    [
        (Form.AUTO, CONSOLE, TOKEN),
        (Form.AUTO, OAUTH, OAUTH_TOKEN),
        (Form.X_API_KEY, CONSOLE, TOKEN),
        (Form.BEARER, OAUTH, OAUTH_TOKEN),
        (Form.BEARER, CONSOLE, TOKEN),
    ],
)
def test_claude_code_gets_its_placeholder_in_the_variable_for_that_kind_of_login(
    form: Form, value: str, variable: str
) -> None:
    found = kept(a_binding(form=form), value=value)

    assert dict(found.placeholders) == {variable: PLACEHOLDER}


@pytest.mark.parametrize("host", ["*.anthropic.com", ".anthropic.com"])
def test_a_pattern_that_covers_the_api_counts_as_the_api(host: str) -> None:
    assert dict(kept(a_binding(host)).placeholders) == {TOKEN: PLACEHOLDER}


def test_named_variables_replace_the_default_ones() -> None:
    binding = a_binding("api.github.com", name="github", variables=("GH_TOKEN", "GITHUB_TOKEN"))

    found = kept(binding)

    assert dict(found.placeholders) == {"GH_TOKEN": PLACEHOLDER, "GITHUB_TOKEN": PLACEHOLDER}
    assert found.logins == ()


def test_another_host_has_no_variable_by_default() -> None:
    assert kept(a_binding("api.github.com", name="github")).placeholders == ()


def test_the_first_of_two_credentials_for_one_variable_wins() -> None:
    second = a_binding(name="second", placeholder="another-placeholder")

    assert dict(kept(a_binding(), second).placeholders) == {TOKEN: PLACEHOLDER}


def test_without_credentials_nothing_is_withheld() -> None:
    assert kept(ANTHROPIC_API_KEY=CONSOLE) == CredentialIsolation()


# --- which variables stay outside


def test_every_login_of_the_api_stays_outside_if_one_is_injected() -> None:
    assert kept(a_binding()).withheld >= CLAUDE_VARIABLES - {TOKEN}


def test_the_variable_that_a_credential_is_read_from_stays_outside() -> None:
    binding = a_binding("api.github.com", source=EnvironmentSource("MY_KEY"))

    assert kept(binding).withheld == {"MY_KEY"}


def test_a_variable_that_contains_the_value_stays_outside_whatever_its_name() -> None:
    binding = a_binding("api.github.com", source=KeyringSource("github", "ann"))

    found = kept(binding, REMOTE=f"https://ann:{CONSOLE}@github.com/", EDITOR="vim")

    assert found.withheld == {"KEY", "REMOTE"} - {"KEY"}


def test_a_short_value_is_not_searched_for() -> None:
    assert (
        kept(a_binding("x.test", source=SystemdSource("x")), value="a", EDITOR="vi a")
        == CredentialIsolation()
    )


def test_a_pinned_login_stays_with_the_client() -> None:
    assert kept(a_pin(), ANTHROPIC_API_KEY=CONSOLE) == CredentialIsolation()


# --- what the plan makes of it


def test_the_sandbox_has_the_placeholder_and_no_login() -> None:
    environ = {"ANTHROPIC_API_KEY": CONSOLE, "ANTHROPIC_AUTH_TOKEN": "x", "ANTHROPIC_MODEL": "m"}

    made = planned(kept(a_binding(), **environ), **environ)

    assert made.environment[TOKEN] == PLACEHOLDER
    assert made.environment["ANTHROPIC_MODEL"] == "m"
    assert "ANTHROPIC_API_KEY" not in made.environment
    assert CONSOLE not in " ".join(made.argv)


def test_a_withheld_variable_is_reported() -> None:
    made = planned(kept(a_binding()), ANTHROPIC_API_KEY=CONSOLE)

    assert made.notes == (
        "not passed on, because the proxy injects the credential: ANTHROPIC_API_KEY",
    )


def test_nothing_is_reported_if_nothing_is_withheld() -> None:
    assert planned(kept(a_binding())).notes == ()


def test_a_variable_that_a_profile_sets_is_withheld_too() -> None:
    profile = Profile("own", set_env=(("ANTHROPIC_API_KEY", CONSOLE),))

    made = planned(kept(a_binding()), profile)

    assert "ANTHROPIC_API_KEY" not in made.environment
    assert CONSOLE not in " ".join(made.argv)


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "KEY", "OTHER"])
def test_a_withheld_variable_cannot_be_passed(name: str) -> None:
    environ = {"ANTHROPIC_API_KEY": "one", "KEY": CONSOLE, "OTHER": f"x{CONSOLE}"}
    spec = a_spec(pass_env=(name,), isolation=kept(a_binding(), **environ))

    with pytest.raises(ConfigError, match="stays outside") as caught:
        plan_sandbox(spec, some_facts(environ={"PATH": "/usr/bin", **environ}))

    assert caught.value.where == f"--pass-env {name}"
    assert CONSOLE not in "".join(caught.value.lines())


def test_a_variable_with_a_placeholder_cannot_be_passed() -> None:
    spec = a_spec(pass_env=(TOKEN,), isolation=kept(a_binding()))

    with pytest.raises(ConfigError, match="set for the run itself"):
        plan_sandbox(spec, some_facts(environ={"PATH": "/usr/bin", TOKEN: "x"}))


def test_the_users_own_login_is_not_copied_into_the_runs_home() -> None:
    made = planned(kept(a_binding()))

    assert made.agent_home is not None
    assert (made.agent_home.logins, made.agent_home.withheld) == (
        (),
        (".claude/.credentials.json",),
    )
    assert not any(LOGIN.is_relative_to(str(mount.source)) for mount in made.mounts)


def test_a_shared_directory_with_a_login_that_stays_outside_is_refused() -> None:
    spec = a_spec(profile=shared(CLAUDE), isolation=kept(a_binding()))

    with pytest.raises(ConfigError, match="your own login would be visible") as caught:
        plan_sandbox(spec, some_facts(paths(HOME / ".claude", files=[LOGIN])))

    assert caught.value.where == str(LOGIN)


def test_the_login_of_any_agent_stays_outside_if_the_proxy_injects_a_credential_for_it() -> None:
    profile = Profile(
        "tool",
        home_state=(".tool/",),
        home_login=(".tool/auth.json",),
        login_hosts=("api.tool.example",),
    )
    environ: dict[str, str] = {}

    def logins(*bindings: Binding) -> tuple[Path, ...]:
        found = with_logins_of(CredentialIsolation(), profile, bindings, environ, HOME)
        return found.logins

    assert logins(a_binding("api.tool.example")) == (HOME / ".tool/auth.json",)
    assert logins(a_binding("*.tool.example")) == (HOME / ".tool/auth.json",)
    assert logins(a_binding("api.other.example"), a_pin()) == ()


def test_the_login_in_a_named_settings_directory_stays_outside_too() -> None:
    found = kept(a_binding(), CLAUDE_CONFIG_DIR="/elsewhere")

    assert found.logins == (LOGIN, Path("/elsewhere/.credentials.json"))


def test_a_pinned_login_is_visible() -> None:
    made = planned(kept(a_pin()))

    assert made.agent_home is not None
    assert made.agent_home.logins == (Seed(".claude/.credentials.json", LOGIN),)


def test_the_users_own_login_may_be_the_source_of_a_credential() -> None:
    binding = a_binding(source=FileSource(LOGIN, ("claudeAiOauth", "accessToken")))

    made = planned(kept(binding)).agent_home

    assert made is not None
    assert made.logins == ()


def test_a_visible_file_that_contains_a_credential_is_reported() -> None:
    seen, hidden = PROJECT / ".env", PROJECT / ".envrc"
    isolation = CredentialIsolation(exposed=(seen, hidden, HOME / ".npmrc"))
    found = paths(files=(seen, hidden, HOME / ".npmrc"))

    made = plan_sandbox(a_spec(hide=(".envrc",), isolation=isolation), some_facts(found))

    [note] = made.notes
    assert str(seen) in note


# --- where credentials come from


@pytest.mark.parametrize("path", [PROJECT / "key", HOME / ".claude/key", Path("/usr/share/key")])
def test_a_visible_credential_file_is_an_error(path: Path) -> None:
    found = paths(HOME / ".claude", files=(path,))
    spec = a_spec(profile=shared(CLAUDE), isolation=kept(a_binding(source=FileSource(path))))

    with pytest.raises(ConfigError, match="would be visible inside") as caught:
        plan_sandbox(spec, some_facts(found))

    assert caught.value.where == str(path)


def test_a_credential_file_behind_a_visible_link_is_an_error() -> None:
    link = HOME / "keys/link"
    found = paths(HOME / "keys", files=(PROJECT / "key",), links={link: PROJECT / "key"})
    spec = a_spec(isolation=kept(a_binding(source=FileSource(link))))

    with pytest.raises(ConfigError, match="would be visible inside"):
        plan_sandbox(spec, some_facts(found))


def test_a_credential_file_that_the_project_hides_is_no_error() -> None:
    path = PROJECT / "key"
    spec = a_spec(hide=("key",), isolation=kept(a_binding(source=FileSource(path))))

    assert path in plan_sandbox(spec, some_facts(paths(files=(path,)))).masked


def test_a_credential_file_that_is_not_visible_is_no_error() -> None:
    planned(kept(a_binding(source=FileSource(HOME / "keys/key"))))


def test_a_pinned_login_is_readable_and_not_writable() -> None:
    seen, written = HOME / "keys/key", HOME / ".claude/key"
    found = paths(HOME / ".claude", HOME / "keys", files=(seen, written))

    plan_sandbox(
        a_spec(allow_ro=(seen,), isolation=kept(a_pin(FileSource(seen)))), some_facts(found)
    )
    with pytest.raises(ConfigError, match="could be changed from inside"):
        plan_sandbox(
            a_spec(profile=shared(CLAUDE), isolation=kept(a_pin(FileSource(written)))),
            some_facts(found),
        )


def test_a_command_that_the_sandbox_could_write_is_an_error() -> None:
    script = PROJECT / "print-key"
    isolation = kept(a_binding(source=CommandSource(("/bin/sh", str(script)))))

    with pytest.raises(ConfigError, match="could be changed from inside") as caught:
        plan_sandbox(
            a_spec(isolation=isolation), some_facts(paths(files=(script, Path("/bin/sh"))))
        )

    assert caught.value.where == str(script)


# --- the gateway


def test_a_gateway_replaces_the_api_and_accepts_any_token() -> None:
    isolation = isolation_for_gateway(9053, EnvironmentSource("PROXY_API_KEY"), {}, HOME)

    made = planned(
        isolation, ANTHROPIC_BASE_URL="https://elsewhere.test", ANTHROPIC_API_KEY=CONSOLE
    )

    assert made.environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9053"
    assert made.environment[TOKEN] == GATEWAY_PLACEHOLDER
    assert "ANTHROPIC_API_KEY" not in made.environment
    assert "PROXY_API_KEY" in made.withheld
    assert made.agent_home is not None
    assert made.agent_home.logins == ()


def test_a_gateways_token_takes_precedence_over_a_placeholder() -> None:
    gateway = isolation_for_gateway(9053, FileSource(HOME / "keys/key"), {}, HOME)

    found = combined(kept(a_binding()), gateway)

    assert dict(found.placeholders)[TOKEN] == GATEWAY_PLACEHOLDER
    assert TOKEN not in found.withheld
    assert found.logins == (LOGIN,)
    assert found.unreadable == (HOME / "keys/key",)


# --- a real sandbox


def test_the_sandbox_has_no_login_and_the_placeholder(box: Box) -> None:
    (box.home / ".claude").mkdir()
    login = box.home / ".claude/.credentials.json"
    login.write_text('{"claudeAiOauth": {"accessToken": "REAL"}}')
    box.environ["ANTHROPIC_API_KEY"] = CONSOLE
    found = isolation_of([a_binding()], {}, box.environ, box.home)

    ran = box.sh(
        "cat ~/.claude/.credentials.json; echo x >~/.claude/.credentials.json; "
        "rm -f ~/.claude/.credentials.json; env | grep -c sk-ant-api; echo $ANTHROPIC_AUTH_TOKEN",
        profile=CLAUDE,
        isolation=found,
    )

    assert "REAL" not in ran.out
    assert ran.out.split() == ["0", PLACEHOLDER]
    assert "REAL" in login.read_text()
