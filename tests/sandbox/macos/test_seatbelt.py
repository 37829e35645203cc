"""The text of macOS profiles is tested; no profile was ever used on a Mac."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.macos.seatbelt import Seatbelt, quoted, seatbelt
from claude_proxy.sandbox.plan.model import HostFacts, Profile, Program, SandboxSpec
from tests.sandbox.boxes import CONFDIR, HOME, PROJECT, a_spec, paths, some_facts

CLAUDE = Profile(
    "claude",
    home_write=(".claude/", ".claude.json"),
    home_protect=(".claude/settings.json",),
    callback_ports=(54545,),
)
TEMPORARY = Path("/private/tmp/claude-proxy-1/tmp")
SHOWN = Path("/private/tmp/claude-proxy-1/shown")

type Form = str | list[Form]


def belt(spec: SandboxSpec | None = None, facts: HostFacts | None = None) -> Seatbelt:
    spec = spec or a_spec(profile=CLAUDE)
    return seatbelt(spec, facts or some_facts(), port=3128, temporary=TEMPORARY, shown=SHOWN)


def forms(text: str) -> list[Form]:
    """Read the text as the language of profiles is read; a string keeps a quote before it."""
    tokens = re.findall(r'#?"(?:\\.|[^"\\])*"|[()]|[^\s()"]+', text, re.DOTALL)
    stack: list[list[Form]] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        elif token.startswith('"'):
            stack[-1].append('"' + re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL))
        else:
            stack[-1].append(token)
    assert len(stack) == 1
    return stack[0]


def paths_of(profile: str, *rule: str) -> set[str]:
    """Return the paths of each rule that begins with these words."""
    found: set[str] = set()
    for form in forms(profile):
        if form[: len(rule)] == list(rule):
            found |= {str(part[-1])[1:] for part in form[len(rule) :]}
    return found


def test_everything_that_is_not_listed_is_denied() -> None:
    assert forms(belt().profile)[:2] == [["version", "1"], ["deny", "default"]]


def test_only_the_proxys_port_and_login_callback_ports_are_open() -> None:
    network = [form for form in forms(belt().profile) if "network" in form[1]]

    assert network == [
        ["deny", "network*"],
        ["allow", "network-outbound", ["remote", "ip", '"localhost:3128']],
        ["allow", "network-bind", ["local", "ip", '"localhost:54545']],
        ["allow", "network-inbound", ["local", "ip", '"localhost:54545']],
    ]


def test_without_a_network_no_port_is_open() -> None:
    profile = belt(a_spec(profile=CLAUDE, network=NetworkMode.NONE)).profile

    assert [form for form in forms(profile) if "network" in form[1]] == [["deny", "network*"]]


def test_only_the_project_and_the_profiles_paths_are_writable() -> None:
    assert paths_of(belt().profile, "allow", "file-write*") == {
        str(PROJECT),
        str(HOME / ".claude"),
        str(HOME / ".claude.json"),
        str(TEMPORARY),
    }


def test_protected_paths_are_denied_last() -> None:
    last = forms(belt(facts=some_facts(paths(HOME / ".ssh"))).profile)[-1]

    assert last[:3] == ["deny", "file-read*", "file-write*"]
    denied = {part[-1][1:] for part in last[3:]}
    assert {str(HOME / ".ssh"), str(HOME / ".aws"), str(HOME / ".npmrc"), str(CONFDIR)} <= denied
    assert str(HOME / ".claude") not in denied


def test_a_link_is_denied_at_its_target() -> None:
    found = paths(Path("/data/ssh"), links={HOME / ".ssh": Path("/data/ssh")})

    assert "/data/ssh" in paths_of(
        belt(facts=some_facts(found)).profile, "deny", "file-read*", "file-write*"
    )


def test_the_home_is_read_only_where_the_profile_says_so() -> None:
    profile = belt().profile
    run_spec = [form[:2] for form in forms(profile)]

    assert str(HOME) in paths_of(profile, "deny", "file-read*")
    assert str(HOME) not in paths_of(profile, "allow", "file-read*")
    shown = belt(a_spec(show_home=(HOME / "x",))).profile
    assert str(HOME / "x") in paths_of(shown, "allow", "file-read*")
    assert run_spec.index(["deny", "file-read*"]) < len(run_spec) - 1


def test_files_that_programs_outside_obey_cannot_be_written() -> None:
    guarded = paths_of(belt().profile, "deny", "file-write*")

    assert str(PROJECT / ".git/hooks") in guarded
    assert str(HOME / ".claude/settings.json") in guarded


def test_the_keychain_and_launch_services_are_denied() -> None:
    profile = belt().profile

    assert "SecurityServer" not in profile
    assert "coreservices" not in profile
    assert "appleevent" not in profile


def test_the_command_is_given_by_its_absolute_path() -> None:
    program = Program(Path("/opt/claude"), Path("/opt/claude"), (), (Path("/opt/claude"),))
    started = belt(a_spec(command=("claude", "-p", "hi")), some_facts(program=program))

    assert started.argv == (
        *("/usr/bin/sandbox-exec", "-p", started.profile),
        *("/opt/claude", "-p", "hi"),
    )
    assert belt(a_spec(shell=True)).argv[3:] == ("/bin/zsh",)
    assert belt(a_spec()).argv[3:] == ("/usr/bin/true",)


def test_clients_are_pointed_to_the_proxys_own_port() -> None:
    found = belt().environment

    assert found["HTTPS_PROXY"] == "http://127.0.0.1:3128"
    assert found["ALL_PROXY"] == "socks5h://127.0.0.1:3128"
    assert found["NODE_EXTRA_CA_CERTS"] == str(SHOWN / "ca.pem")
    assert found["TMPDIR"] == str(TEMPORARY)
    assert "HTTPS_PROXY" not in belt(a_spec(network=NetworkMode.NONE)).environment


@given(name=st.text(min_size=1, max_size=30))
def test_a_directory_name_cannot_add_a_rule(name: str) -> None:
    project = Path("/Users/ann") / name.replace("/", "-")
    found = paths(project)
    facts = replace(some_facts(found))
    plain = forms(belt().profile)

    try:
        made = belt(a_spec(profile=CLAUDE, project=project), facts).profile
    except ConfigError:
        assert not str(project).isprintable()
        return

    read = forms(made)
    assert [form[:2] for form in read] == [form[:2] for form in plain]
    assert str(project) in paths_of(made, "allow", "file-write*")


@pytest.mark.parametrize("text", ['a"b', "a\\", 'a\\"b', ')(allow default)("', "é b"])
def test_a_quoted_path_reads_as_itself(text: str) -> None:
    assert forms(f"(x {quoted(text)})") == [["x", '"' + text]]


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\x1bb", "a\u202eb", "\udcff"])
def test_a_path_that_cannot_be_quoted_safely_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        quoted(text)
