"""Laws of groups files: every mistake with its place, and nothing read but what is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.bw_claude import loader, reader
from claude_proxy.config.bw_claude.convert import convert
from claude_proxy.errors import ConfigError, ConfigErrors


def problems_of(text: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        loader.load(text, name="1.toml")
    return list(caught.value.problems)


def problem_of(text: str) -> ConfigError:
    (problem,) = problems_of(text)
    return problem


# Mistakes

WRONG = {
    "not TOML": ("a = [1", "this is not TOML", "1.toml:1:"),
    "a key twice": ("[tools]\n[tools]", "this is not TOML", "1.toml:2:"),
    "unknown at the top": ("\n[networks.groups]", 'unknown key "networks"', "1.toml:2:2, networks"),
    "unknown in network": ("[network]\nhosts = []", 'unknown key "hosts"', "1.toml:2:1"),
    "unknown in a group": (
        "[network.groups.a]\nhost = ['x.test']",
        'unknown key "host"',
        "1.toml:2:1, network.groups.a.host",
    ),
    "unknown in a policy": ("policy.policies.p.x = 1", 'unknown key "x"', "1.toml:1:19"),
    "unknown in its network": (
        '[policy.policies.p]\nnetwork = {mode = "proxy"}',
        'unknown key "mode"',
        "1.toml:2:12, policy.policies.p.network.mode",
    ),
    "unknown in a tool": ("[tools.x]\nenabled = true", 'unknown key "enabled"', "1.toml:2:1"),
    "hosts is a text": (
        '[network.groups.a]\nhosts = "x.test"',
        "a string where a list belongs",
        "1.toml:2:1, network.groups.a.hosts",
    ),
    "a host is a number": (
        '[network.groups.a]\nhosts = ["x.test",\n  7]',
        "a number where a string belongs",
        "1.toml:3:3, network.groups.a.hosts[1]",
    ),
    "a group is text": (
        'network.groups.a = "x"',
        "a string where a table belongs",
        "1.toml:1:16",
    ),
    "groups is a list": ("network.groups = []", "a list where a table belongs", "1.toml:1:9"),
    "a description is a date": (
        "[network.groups.a]\ndescription = 1979-05-27",
        "a date or a time where a string belongs",
        "1.toml:2:1",
    ),
    "two stars": (
        '[network.groups.a]\nhosts = ["**.x.test"]',
        'the host "**.x.test" has a wildcard inside',
        "1.toml:2:10, network.groups.a.hosts[0]",
    ),
    "a NUL": ('[network.groups.a]\nhosts = ["x\\u0000.test"]', "contains the label", "1.toml:2:10"),
    "a newline": ('[network.groups.a]\nhosts_deny = ["x\\n.test"]', "one word", "1.toml:2:15"),
    "a scheme": ('[network.groups.a]\nhosts = ["http://x.test"]', "a scheme", "1.toml:2:10"),
    "a host twice": (
        '[network.groups.a]\nhosts = ["x.test", "x.test"]',
        '"x.test" is listed twice',
        "1.toml:2:20",
    ),
    "a name": ('[network.groups."a b"]', '"a b" is no name', '1.toml:1:17, network.groups."a b"'),
    "a preset's name": ('[network.groups."preset:x"]', "is no name", "1.toml:1:17"),
    "no such network": (
        '[policy.policies.p.network]\nnetwork = "off"',
        '"off" is not a value of network',
        "1.toml:2:1",
    ),
    "no such default": (
        '[policy.policies.p.network]\ndefault = "Allow"',
        '"Allow" is not a value of default',
        "1.toml:2:1",
    ),
    "no such profile": (
        '[policy.policies.p]\nfilesystem = "../x"',
        '"../x" is no profile',
        "1.toml:2:1",
    ),
    "no such group": (
        '[policy.policies.p.network]\ndeny_groups = ["nope"]',
        'there is no group "nope"',
        "1.toml:2:16, policy.policies.p.network.deny_groups[0]",
    ),
    "no such group in a group": (
        '[network.groups.a]\ngroups = ["a2"]',
        'there is no group "a2"',
        "1.toml:2:11",
    ),
    "no such preset": (
        '[network.groups.a]\ngroups = ["preset:clade"]',
        'unknown preset "clade"',
        "1.toml:2:11",
    ),
    "no such policy": (
        '[tools.claude]\ndefault_policy = "nope"',
        'there is no policy "nope"',
        "1.toml:2:1, tools.claude.default_policy",
    ),
    "itself": (
        '[network.groups.a]\ngroups = ["a"]',
        "groups hold each other: a -> a",
        "1.toml:2:11",
    ),
    "a hidden character": ("# \u202e\n", "reorders the text", "1.toml:1:3"),
    "a number without end": (f"a = {'9' * 5000}", "this is not TOML", "1.toml:1:1"),
    "too deep": (f"a = {'[' * 3000}", "nested too deeply", "1.toml:1:1"),
}


@pytest.mark.parametrize(("text", "what", "where"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_named_with_its_place_and_fix(text: str, what: str, where: str) -> None:
    problem = problem_of(text)

    assert what in problem.what
    assert (problem.where or "").startswith(where)
    assert problem.fix


def test_a_circle_is_shown_as_a_way() -> None:
    circle = "\n".join(f'[network.groups.{a}]\ngroups = ["{b}"]' for a, b in ("ab", "bc", "ca"))

    problem = problem_of(circle)

    assert problem.what == "groups hold each other: a -> b -> c -> a"
    assert problem.where == "1.toml:6:11, network.groups.c.groups[0]"


def test_all_mistakes_are_told_at_once() -> None:
    found = problems_of("[network.groups.a]\nhost = 1\ngroups = 2\n[[tools]]")

    assert [str(problem.where).split(":")[1] for problem in found] == ["2", "3", "4"]


def test_a_url_is_answered_in_the_words_of_toml() -> None:
    problem = problem_of('[network.groups.a]\nhosts = ["https://x.test:8443/v1"]')

    assert problem.fix == "write only the host; a groups file has neither limits nor plain HTTP"


def test_what_has_no_place_of_its_own_is_told_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for places, where in (({("network",): (7, 1)}, "1.toml:7:1"), ({}, "1.toml:1:1")):
        monkeypatch.setattr(reader, "places_of", lambda _, places=places: places)

        assert str(problem_of("network.groups.a.b = 1").where).startswith(where)


# For every input

words = st.sampled_from(
    (
        *(
            "[",
            "]",
            "{",
            "}",
            "=",
            ",",
            ".",
            "\n",
            '"',
            "'",
            '"""',
            "#",
            "\\",
            " ",
            "0",
            "1979-05-27",
        ),
        *("network", "groups", "hosts", "policy", "policies", "tools", "default", "a", "b", "true"),
        *("[network.groups.a]\n", 'hosts = ["x.test"]\n', 'groups = ["a"]\n', "\x00", "\u202e"),
        *(
            "[policy.policies.p]\n",
            'network.network = "proxy"\n',
            "preset:claude",
            "\r\n",
            "\ud800",
        ),
    )
)


@given(st.lists(words, max_size=30).map("".join) | st.text())
def test_a_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        convert(text, name="1.toml")
    except ConfigErrors as errors:
        wheres = [str(problem.where) for problem in errors.problems]
    else:
        wheres = []

    assert all(where.startswith("1.toml:") for where in wheres)
