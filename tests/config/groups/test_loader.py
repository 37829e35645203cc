"""Laws of groups files: what they allow, what wins, and every mistake with its place."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader as allowlist
from claude_proxy.config.groups import loader as groups
from claude_proxy.config.groups import reader
from claude_proxy.config.groups.loader import Chosen, Groups
from claude_proxy.config.groups.reader import Network
from claude_proxy.config.groups.toml_locations import places_of
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import Tls
from claude_proxy.wire.address import Address, AddressKind, kind_of
from claude_proxy.wire.authority import Authority

BUILT_IN = ("allow", "claude", "deny", "gemini", "lockdown", "open", "shell")


def loaded(*texts: str) -> Groups:
    return groups.load((f"{number}.toml", text) for number, text in enumerate(texts, 1))


def problems_of(*texts: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        loaded(*texts)
    return list(caught.value.problems)


def problem_of(*texts: str) -> ConfigError:
    (problem,) = problems_of(*texts)
    return problem


def policy(network: str, *parts: str) -> Policy:
    """Return the policy `p` with these lines of its network, and groups besides."""
    return loaded("\n".join((*parts, "[policy.policies.p.network]", network))).policy("p")


def group(name: str, hosts: Iterable[str] = (), deny: Iterable[str] = ()) -> str:
    return f"[network.groups.{name}]\nhosts = {list(hosts)}\nhosts_deny = {list(deny)}"


def at(text: str) -> Authority:
    return Authority.parse(text, default_port=443)


def reason(policy: Policy, target: str) -> Reason:
    return policy.decide_connect(at(target)).reason


def allows(policy: Policy, target: str) -> bool:
    return policy.decide_connect(at(target)).allowed


def asks(target: str, method: str = "GET", scheme: Scheme = Scheme.HTTPS) -> Request:
    return Request(scheme, at(target), at(target), method, "/")


# Groups


def test_a_group_allows_its_hosts_by_https_on_the_usual_port() -> None:
    found = policy('allow_groups = ["a"]', group("a", ["x.test", "*.y.test", "192.0.2.0/24"]))

    assert allows(found, "x.test")
    assert allows(found, "a.b.y.test")
    assert allows(found, "192.0.2.7")
    assert reason(found, "y.test") is Reason.NO_RULE
    assert reason(found, "x.test:8443") is Reason.PORT_NOT_ALLOWED
    assert found.decide_request(asks("x.test", scheme=Scheme.HTTP)).reason is (
        Reason.SCHEME_NOT_ALLOWED
    )


def test_a_group_means_what_the_same_entries_of_an_allowlist_mean() -> None:
    hosts = ["x.test", "*.y.test", ".z.test", "192.0.2.1", "b\u00fccher.test"]
    entries = "".join(f'  - "{host}"\n' for host in hosts)

    found = policy('allow_groups = ["a"]', group("a", hosts))

    same = allowlist.load(f"allow:\n{entries}", name="a.yaml")
    assert same.diff(found) == ((), ())


def test_groups_hold_groups_and_presets() -> None:
    text = '[network.groups.a]\ngroups = ["b", "preset:claude"]'

    found = policy('allow_groups = ["a"]', text, group("b", ["b.test"]))

    assert allows(found, "b.test")
    assert allows(found, "api.anthropic.com")


def test_a_policy_may_name_a_preset_itself() -> None:
    found = policy('allow_groups = ["preset:claude"]')

    assert found.diff(allowlist.preset_policy("claude")) == ((), ())


def test_a_group_that_is_reached_twice_counts_once() -> None:
    texts = ('[network.groups.a]\ngroups = ["c"]', '[network.groups.b]\ngroups = ["c", "c2"]')
    parts = (*texts, group("c", ["x.test"]), group("c2", ["x.test"]))

    assert policy('allow_groups = ["a", "b"]', *parts).rules_count == 1


def test_a_denied_group_denies_all_that_is_in_it() -> None:
    text = '[network.groups.a]\ngroups = ["b", "preset:github"]\nhosts_deny = ["c.test"]'

    found = policy('default = "allow"\ndeny_groups = ["a"]', text, group("b", ["b.test"]))

    for target in ("b.test", "b.test:80", "c.test", "github.com", "github.com:22"):
        assert reason(found, target) is Reason.DENY_RULE
    assert allows(found, "else.test:9999")


def test_a_preset_that_is_denied_is_denied_whole_though_it_allows_a_part() -> None:
    found = policy('default = "allow"\ndeny_groups = ["preset:claude"]')

    answer = found.decide_request(asks("raw.githubusercontent.com", "POST"))

    assert answer.reason is Reason.DENY_RULE


# Which of two wins


OPEN = policy('default = "allow"')


@pytest.mark.parametrize(
    "target", ["x.test", "x.test:80", "x.test:22", "8.8.8.8", "[2606:4700::1]"]
)
def test_a_default_allow_covers_every_public_host_and_port(target: str) -> None:
    assert allows(OPEN, target)
    for scheme in Scheme:
        assert OPEN.decide_request(asks(target, "DELETE", scheme)).allowed


@given(st.ip_addresses())
def test_a_default_allow_leads_to_no_address_that_is_not_public(address: Address) -> None:
    public = kind_of(address) is AddressKind.PUBLIC

    by_name = OPEN.decide_address(at("x.test"), address)

    assert by_name.allowed is public
    assert public or by_name.reason is Reason.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    "literal",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("[::1]", "[fd00::1]", "[fe80::1]", "[::ffff:a00:1]", "[64:ff9b::a00:1]", "[::7f00:1]"),
        *("168.63.129.16", "224.0.0.1", "255.255.255.255"),
    ],
)
def test_a_default_allow_leads_to_no_literal_that_is_not_public(literal: str) -> None:
    assert not allows(OPEN, literal)
    assert not OPEN.decide_address(at(literal), ip_address(literal.strip("[]"))).allowed


def test_a_group_can_name_a_private_address_beside_a_default_allow() -> None:
    found = policy('default = "allow"\nallow_groups = ["a"]', group("a", ["10.0.0.1"]))

    assert found.decide_address(at("10.0.0.1"), ip_address("10.0.0.1")).allowed
    assert reason(found, "10.0.0.2") is Reason.ADDRESS_NOT_ALLOWED


def test_a_default_allow_opens_tls_and_keeps_agreement() -> None:
    target = at("x.test")

    assert OPEN.decide_connect(target).tls is Tls.INTERCEPT
    assert not OPEN.decide_hello(target, "y.test", encrypted=False).allowed
    assert not OPEN.decide_hello(target, None, encrypted=False).allowed
    assert not OPEN.decide_hello(target, "x.test", encrypted=True).allowed
    fronted = Request(Scheme.HTTPS, target, at("y.test"), "GET", "/")
    assert OPEN.decide_request(fronted).reason is Reason.HOST_MISMATCH
    assert not OPEN.decide_request(asks("x.test", "TRACE")).allowed


@pytest.mark.parametrize("text", ["*", "**", "*.*", ".", "0.0.0.0/0", "::/0", "", "*."])
def test_no_text_is_the_pattern_of_every_host(text: str) -> None:
    problems_of(group("a", [text]))
    with pytest.raises(ConfigErrors):
        allowlist.load(f'allow: ["{text}"]\n', name="a.yaml")


# Narrowing


def test_a_narrowing_denies_even_what_is_allowed_most_narrowly() -> None:
    rules = allowlist.load_narrowing('deny: ["*.test"]\n', name="n.yaml")
    found = policy('default = "allow"\nallow_groups = ["a"]', group("a", ["a.x.test"]))

    narrowed = found.with_denials(rules)

    assert reason(narrowed, "a.x.test") is Reason.DENY_RULE
    assert allows(narrowed, "a.example")


@pytest.mark.parametrize(
    "text", ["allow: [x.test]\n", "deny: [x.test]\nallow: []\n", "hosts: [x.test]\n"]
)
def test_a_narrowing_cannot_allow(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        allowlist.load_narrowing(text, name="n.yaml")

    assert caught.value.what.startswith("unknown key")
    assert caught.value.fix == "this file may only narrow: list what is to be denied, under deny"


def test_a_narrowing_passes_over_what_is_for_the_run() -> None:
    text = "hide: [secrets]\nread_only: [.git]\nnetwork: none\ndeny: [x.test]\n"

    (rule,) = allowlist.load_narrowing(text, name="n.yaml")

    assert rule.name == "x.test"


@pytest.mark.parametrize("text", ["", "deny:\n", "deny: []\n"])
def test_an_empty_narrowing_takes_nothing_away(text: str) -> None:
    assert allowlist.load_narrowing(text, name="n.yaml") == ()


# Policies by name


def test_the_built_in_policies_are_these() -> None:
    found = loaded()

    assert tuple(sorted(found.policies)) == BUILT_IN
    assert [found.policies[name].network for name in ("lockdown", "open")] == ["disabled", "open"]
    assert found.policy("deny").rules_count == 0
    assert found.policy("allow").allows_by_default
    assert not any(found.policy(name).allows_by_default for name in ("claude", "gemini", "shell"))
    assert allows(found.policy("claude"), "api.anthropic.com")
    assert allows(found.policy("gemini"), "cloudcode-pa.googleapis.com")
    assert allows(found.policy("shell"), "github.com")
    assert all(entry.description for entry in found.policies.values())


def test_a_later_file_says_what_a_name_means() -> None:
    one = group("a", ["one.test"]) + '\n[policy.policies.claude.network]\nallow_groups = ["a"]'

    found = loaded(one, group("a", ["two.test"]))

    assert list(found.policy("claude").hosts()) == ["two.test"]


def test_without_a_word_a_policy_goes_through_the_proxy_and_allows_nothing() -> None:
    found = loaded("[policy.policies.p]")

    assert groups.chosen(found, "p") == Chosen("p", Network.PROXY, Policy(), None)


def test_a_policy_is_chosen_by_name_else_by_the_command_else_not_at_all() -> None:
    found = loaded('[tools.make]\ndefault_policy = "lockdown"')

    def name(policy: str | None, command: str) -> str | None:
        chosen = groups.choose(found, policy=policy, command=command)
        return None if chosen is None else chosen.name

    assert name("claude", "make") == "claude"
    assert name(None, "make") == "lockdown"
    assert name(None, "claude") is None


def test_only_a_policy_of_the_proxy_has_rules_and_can_be_served() -> None:
    found = loaded()

    assert groups.chosen(found, "lockdown").policy is None
    assert groups.chosen(found, "open").policy is None
    assert groups.served(found, "claude").rules_count > 0
    for name, why in (("lockdown", "there is nothing to serve"), ("open", "it filters nothing")):
        with pytest.raises(ConfigError, match=why):
            groups.served(found, name)


def test_an_unknown_policy_is_an_error_that_knows_the_like() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded().policy("cluade")

    assert (caught.value.what, caught.value.fix) == (
        'there is no policy "cluade"',
        "did you mean claude?",
    )


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
        "a text where a list belongs",
        "1.toml:2:1, network.groups.a.hosts",
    ),
    "a host is a number": (
        '[network.groups.a]\nhosts = ["x.test",\n  7]',
        "a number where a text belongs",
        "1.toml:3:3, network.groups.a.hosts[1]",
    ),
    "a group is a text": ('network.groups.a = "x"', "a text where a table belongs", "1.toml:1:16"),
    "groups is a list": ("network.groups = []", "a list where a table belongs", "1.toml:1:9"),
    "a description is a date": (
        "[network.groups.a]\ndescription = 1979-05-27",
        "a date or a time where a text belongs",
        "1.toml:2:1",
    ),
    "two stars": (
        '[network.groups.a]\nhosts = ["**.x.test"]',
        'the host "**.x.test" has a wildcard inside',
        "1.toml:2:10, network.groups.a.hosts[0]",
    ),
    "a NUL": ('[network.groups.a]\nhosts = ["x\\u0000.test"]', "holds the label", "1.toml:2:10"),
    "a newline": ('[network.groups.a]\nhosts_deny = ["x\\n.test"]', "one word", "1.toml:2:15"),
    "a scheme": ('[network.groups.a]\nhosts = ["http://x.test"]', "a scheme", "1.toml:2:10"),
    "a host twice": (
        '[network.groups.a]\nhosts = ["x.test", "x.test"]',
        '"x.test" stands twice',
        "1.toml:2:20",
    ),
    "a name": ('[network.groups."a b"]', '"a b" is no name', '1.toml:1:17, network.groups."a b"'),
    "a preset's name": ('[network.groups."preset:x"]', "is no name", "1.toml:1:17"),
    "no such network": (
        '[policy.policies.p.network]\nnetwork = "off"',
        '"off" is no value of network',
        "1.toml:2:1",
    ),
    "no such default": (
        '[policy.policies.p.network]\ndefault = "Allow"',
        '"Allow" is no value of default',
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


def test_groups_may_be_as_many_levels_deep_as_there_are_groups() -> None:
    chain = "\n".join(f'[network.groups.g{n}]\ngroups = ["g{n + 1}"]' for n in range(3000))
    text = chain + "\n" + group("g3000", ["x.test"])

    assert list(policy('allow_groups = ["g0"]', text).hosts()) == ["x.test"]
    problem_of(chain)


def test_all_mistakes_are_told_at_once() -> None:
    found = problems_of("[network.groups.a]\nhost = 1\ngroups = 2", "x = 1", "[[tools]]")

    assert [str(problem.where).partition(":")[0] for problem in found] == [
        *("1.toml", "1.toml"),
        "2.toml",
        "3.toml",
    ]


def test_names_are_looked_for_in_all_files_together() -> None:
    found = loaded('[network.groups.a]\ngroups = ["b"]', group("b", ["x.test"]))

    assert set(found.groups) >= {"a", "b", "claude"}


def test_a_url_is_answered_in_the_words_of_toml() -> None:
    problem = problem_of(group("a", ["https://x.test:8443/v1"]))

    assert problem.fix == "write the host alone; limits and plain HTTP are for an allowlist to tell"


@pytest.mark.parametrize("text", ["a b", "a = [1", "a = {b", "= 1", "a = [}", "[a"])
def test_what_is_no_toml_has_places_as_far_as_it_was_read(text: str) -> None:
    assert set(places_of(text)) <= {("a",), ("a", 0), ("a", "b")}


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
        found = loaded(text)
    except ConfigErrors as errors:
        wheres = [str(problem.where) for problem in errors.problems]
    else:
        wheres = []
        for name in found.policies:
            found.policy(name)

    assert all(where.startswith("1.toml:") for where in wheres)


@given(st.lists(words, max_size=30).map("".join) | st.text())
def test_looking_for_places_never_fails(text: str) -> None:
    lines = text.count("\n") + 1

    assert all(1 <= line <= lines and column >= 1 for line, column in places_of(text).values())


names = st.text(st.sampled_from("ab.\"' \u00e9#=[]"), min_size=1, max_size=4)
values = st.recursive(
    st.integers() | st.text(st.sampled_from("a\\\"'#]},=\n"), max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def as_toml(value: object) -> str:
    if isinstance(value, list):
        return f"[ # ]\n {', '.join(map(as_toml, value))} ]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


@given(st.dictionaries(names, values, min_size=1, max_size=4), names)
def test_each_key_is_found_on_its_line(table: dict[str, object], header: str) -> None:
    lines = [f"[top.{as_toml(header)}]  # [not.this]"]
    expected = {}
    for key, value in table.items():
        expected[key] = sum(line.count("\n") + 1 for line in lines) + 1
        lines.append(f"{as_toml(key)} = {as_toml(value)} # comment = 1")

    found = places_of("\n".join(lines))

    assert {key: found["top", header, key][0] for key in table} == expected
