"""What stays outside of a run: the credentials, and whatever holds them or would stand for them."""

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
from claude_proxy.sandbox.plan.credential_isolation import (
    CLAUDE_VARIABLES,
    GATEWAY_PLACEHOLDER,
    OAUTH_TOKEN,
    TOKEN,
    combined,
    isolation_for_gateway,
    isolation_of,
)
from claude_proxy.sandbox.plan.model import CredentialIsolation, MountKind, Profile, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import HOME, PROJECT, Box, a_spec, paths, some_facts

PLACEHOLDER = "sk-ant-claude-proxy-placeholder-anthropic"
CONSOLE = "sk-ant-api03-a-console-key"
OAUTH = "sk-ant-oat01-a-token"
LOGIN = HOME / ".claude/.credentials.json"
CLAUDE = Profile(
    "claude",
    home_write=(".claude/",),
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
def test_claude_code_finds_its_placeholder_where_it_looks_for_a_login_of_that_kind(
    form: Form, value: str, variable: str
) -> None:
    found = kept(a_binding(form=form), value=value)

    assert dict(found.placeholders) == {variable: PLACEHOLDER}


@pytest.mark.parametrize("host", ["*.anthropic.com", ".anthropic.com"])
def test_a_pattern_that_covers_the_api_is_the_apis(host: str) -> None:
    assert dict(kept(a_binding(host)).placeholders) == {TOKEN: PLACEHOLDER}


def test_variables_that_are_named_are_the_ones() -> None:
    binding = a_binding("api.github.com", name="github", variables=("GH_TOKEN", "GITHUB_TOKEN"))

    found = kept(binding)

    assert dict(found.placeholders) == {"GH_TOKEN": PLACEHOLDER, "GITHUB_TOKEN": PLACEHOLDER}
    assert found.logins == ()


def test_another_host_has_no_variable_unless_one_is_named() -> None:
    assert kept(a_binding("api.github.com", name="github")).placeholders == ()


def test_of_two_credentials_for_one_variable_the_first_is_taken() -> None:
    second = a_binding(name="second", placeholder="another-placeholder")

    assert dict(kept(a_binding(), second).placeholders) == {TOKEN: PLACEHOLDER}


def test_without_credentials_nothing_is_kept() -> None:
    assert kept(ANTHROPIC_API_KEY=CONSOLE) == CredentialIsolation()


# --- which variables stay outside


def test_every_login_of_the_api_stays_outside_where_one_is_put_in() -> None:
    assert kept(a_binding()).withheld >= CLAUDE_VARIABLES - {TOKEN}


def test_the_variable_that_a_credential_is_read_from_stays_outside() -> None:
    binding = a_binding("api.github.com", source=EnvironmentSource("MY_KEY"))

    assert kept(binding).withheld == {"MY_KEY"}


def test_a_variable_that_holds_the_value_stays_outside_whatever_it_is_called() -> None:
    binding = a_binding("api.github.com", source=KeyringSource("github", "ann"))

    found = kept(binding, REMOTE=f"https://ann:{CONSOLE}@github.com/", EDITOR="vim")

    assert found.withheld == {"KEY", "REMOTE"} - {"KEY"}


def test_a_value_of_few_letters_is_looked_for_nowhere() -> None:
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


def test_what_is_held_back_is_said() -> None:
    made = planned(kept(a_binding()), ANTHROPIC_API_KEY=CONSOLE)

    assert made.notes == (
        "not passed on, because the proxy injects the credential: ANTHROPIC_API_KEY",
    )


def test_nothing_is_said_where_nothing_is_held_back() -> None:
    assert planned(kept(a_binding())).notes == ()


def test_what_a_profile_sets_is_held_back_too() -> None:
    profile = Profile("own", set_env=(("ANTHROPIC_API_KEY", CONSOLE),))

    made = planned(kept(a_binding()), profile)

    assert "ANTHROPIC_API_KEY" not in made.environment
    assert CONSOLE not in " ".join(made.argv)


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "KEY", "OTHER"])
def test_what_stays_outside_cannot_be_passed(name: str) -> None:
    environ = {"ANTHROPIC_API_KEY": "one", "KEY": CONSOLE, "OTHER": f"x{CONSOLE}"}
    spec = a_spec(pass_env=(name,), isolation=kept(a_binding(), **environ))

    with pytest.raises(ConfigError, match="stays outside") as caught:
        plan_sandbox(spec, some_facts(environ={"PATH": "/usr/bin", **environ}))

    assert caught.value.where == f"--pass-env {name}"
    assert CONSOLE not in "".join(caught.value.lines())


def test_nor_can_what_has_a_placeholder() -> None:
    spec = a_spec(pass_env=(TOKEN,), isolation=kept(a_binding()))

    with pytest.raises(ConfigError, match="set for the run itself"):
        plan_sandbox(spec, some_facts(environ={"PATH": "/usr/bin", TOKEN: "x"}))


def test_the_users_own_login_is_hidden_by_an_empty_file() -> None:
    made = planned(kept(a_binding()))

    [mount] = [mount for mount in made.mounts if mount.at == LOGIN]
    assert mount.kind is MountKind.BLANK
    assert LOGIN in made.masked


def test_so_is_the_one_in_a_directory_of_settings_that_the_user_has_named() -> None:
    found = kept(a_binding(), CLAUDE_CONFIG_DIR="/elsewhere")

    assert found.logins == (LOGIN, Path("/elsewhere/.credentials.json"))


def test_it_is_seen_where_it_is_the_one_that_is_pinned() -> None:
    made = planned(kept(a_pin()))

    assert LOGIN not in made.masked


def test_it_may_be_what_the_credential_is_read_from() -> None:
    binding = a_binding(source=FileSource(LOGIN, ("claudeAiOauth", "accessToken")))

    assert LOGIN in planned(kept(binding)).masked


def test_a_credential_that_stands_in_a_file_is_told_if_the_file_is_seen() -> None:
    seen, hidden = PROJECT / ".env", PROJECT / ".envrc"
    isolation = CredentialIsolation(exposed=(seen, hidden, HOME / ".npmrc"))
    found = paths(files=(seen, hidden, HOME / ".npmrc"))

    made = plan_sandbox(a_spec(hide=(".envrc",), isolation=isolation), some_facts(found))

    [note] = made.notes
    assert str(seen) in note


# --- where credentials come from


@pytest.mark.parametrize("path", [PROJECT / "key", HOME / ".claude/key", Path("/usr/share/key")])
def test_a_credentials_file_that_would_be_seen_is_an_error(path: Path) -> None:
    found = paths(HOME / ".claude", files=(path,))
    spec = a_spec(profile=CLAUDE, isolation=kept(a_binding(source=FileSource(path))))

    with pytest.raises(ConfigError, match="would be visible inside") as caught:
        plan_sandbox(spec, some_facts(found))

    assert caught.value.where == str(path)


def test_so_is_one_that_a_link_leads_to() -> None:
    link = HOME / "keys/link"
    found = paths(HOME / "keys", files=(PROJECT / "key",), links={link: PROJECT / "key"})
    spec = a_spec(isolation=kept(a_binding(source=FileSource(link))))

    with pytest.raises(ConfigError, match="would be visible inside"):
        plan_sandbox(spec, some_facts(found))


def test_one_that_the_project_hides_is_none() -> None:
    path = PROJECT / "key"
    spec = a_spec(hide=("key",), isolation=kept(a_binding(source=FileSource(path))))

    assert path in plan_sandbox(spec, some_facts(paths(files=(path,)))).masked


def test_one_that_nobody_inside_sees_is_none() -> None:
    planned(kept(a_binding(source=FileSource(HOME / "keys/key"))))


def test_a_pinned_login_may_be_read_inside_and_not_be_written() -> None:
    seen, written = HOME / "keys/key", HOME / ".claude/key"
    found = paths(HOME / ".claude", HOME / "keys", files=(seen, written))

    plan_sandbox(
        a_spec(allow_ro=(seen,), isolation=kept(a_pin(FileSource(seen)))), some_facts(found)
    )
    with pytest.raises(ConfigError, match="could be changed from inside"):
        plan_sandbox(
            a_spec(profile=CLAUDE, isolation=kept(a_pin(FileSource(written)))), some_facts(found)
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


def test_a_gateway_stands_for_the_api_and_takes_any_token() -> None:
    isolation = isolation_for_gateway(9053, EnvironmentSource("PROXY_API_KEY"), {}, HOME)

    made = planned(
        isolation, ANTHROPIC_BASE_URL="https://elsewhere.test", ANTHROPIC_API_KEY=CONSOLE
    )

    assert made.environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9053"
    assert made.environment[TOKEN] == GATEWAY_PLACEHOLDER
    assert "ANTHROPIC_API_KEY" not in made.environment
    assert "PROXY_API_KEY" in made.withheld
    assert LOGIN in made.masked


def test_gateway_and_credentials_go_together_and_the_gateways_token_is_taken() -> None:
    gateway = isolation_for_gateway(9053, FileSource(HOME / "keys/key"), {}, HOME)

    found = combined(kept(a_binding()), gateway)

    assert dict(found.placeholders)[TOKEN] == GATEWAY_PLACEHOLDER
    assert TOKEN not in found.withheld
    assert found.logins == (LOGIN,)
    assert found.unreadable == (HOME / "keys/key",)


# --- a real sandbox


def test_inside_there_is_an_empty_login_and_the_placeholder(box: Box) -> None:
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

    assert ran.out.split() == ["0", PLACEHOLDER]
    assert "REAL" in login.read_text()
