"""What is learned lets pass what was seen, and nothing beside it."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader
from claude_proxy.deferred.data_classes import replace
from claude_proxy.policy.learned_list import Apart, Choice, Learned, Seen, learn
from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt, judged
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme
from claude_proxy.wire.authority import Authority

NOTHING = Policy()
EVERYTHING = frozenset(Apart)


def seen(
    target: str,
    path: str = "",
    method: str = "GET",
    *,
    form: Form | None = None,
    scheme: Scheme = Scheme.HTTPS,
    allowed: bool = True,
    reason: str | None = None,
    times: int = 1,
    address: str = "93.184.216.34",
    query: str = "",
    nowhere: bool = False,
) -> Seen:
    form = form or (Form.REQUEST if path else Form.TUNNEL)
    attempt = RecordedAttempt(
        form,
        scheme,
        Authority.parse(target),
        method if form is Form.REQUEST else "",
        path,
        query,
        ip_address(address) if allowed else None,
    )
    why = reason or ("rule-matched" if allowed else "no-rule")
    return Seen(attempt, f"{method} {target}{path}", allowed, why, nowhere, times)


def learned(
    all_seen: Iterable[Seen],
    policy: Policy = NOTHING,
    *,
    presets: Mapping[str, Policy] | None = None,
    include: frozenset[Apart] = frozenset(),
    named: Iterable[str] = (),
) -> Learned:
    return learn(all_seen, policy, presets or {}, Choice(include, frozenset(named)))


def after(found: Learned, policy: Policy = NOTHING) -> Policy:
    return replace(policy, allow=(*policy.allow, *(entry.rule for entry in found.written)))


def rules(found: Learned) -> list[str]:
    return [str(entry.rule) for entry in found.written]


def whys(found: Learned) -> list[str]:
    return [each.why for each in found.left_out]


def test_a_request_becomes_an_entry_for_its_host_port_method_and_path() -> None:
    found = learned([seen("api.example.com:8443", "/v1/items", "POST")])

    assert rules(found) == ["https://api.example.com ports 8443 methods POST paths /v1/items"]


def test_methods_are_never_widened() -> None:
    found = learned(
        [
            seen("a.example.com:443", "/x"),
            seen("a.example.com:443", "/x", "HEAD"),
            seen("a.example.com:443", "/y", "POST"),
        ]
    )

    policy = after(found)
    target = Authority.of("a.example.com", 443)
    verdicts = {
        (method, path): policy.decide_request(
            Request(Scheme.HTTPS, target, target, method, path)
        ).allowed
        for method in ("GET", "HEAD", "POST", "DELETE")
        for path in ("/x", "/y")
    }
    assert {asked for asked, allowed in verdicts.items() if allowed} == {
        ("GET", "/x"),
        ("HEAD", "/x"),
        ("POST", "/y"),
    }


def test_what_the_policy_allows_already_is_not_added() -> None:
    policy = loader.load("allow: [a.example.com]", name="x")

    found = learned([seen("a.example.com:443", "/x", times=7)], policy)

    assert (found.covered, found.entries) == (7, [])


@pytest.mark.parametrize("host", ["r1.cdn.example.com", "r2.cdn.example.com"])
def test_no_host_is_ever_a_wildcard(host: str) -> None:
    hosts = [f"r{number}.cdn.example.com" for number in range(1, 40)]

    found = learned([seen(f"{each}:443", "/x") for each in hosts])

    assert {entry.rule.pattern.kind for entry in found.entries} == {PatternKind.EXACT}
    assert host in {entry.rule.name for entry in found.entries}


def test_paths_of_denied_requests_are_no_examples_of_a_template() -> None:
    crafted = [seen("a.example.com:443", f"/users/{each}", allowed=False) for each in range(1, 9)]

    found = learned(crafted)

    assert [len(entry.rule.paths or ()) for entry in found.entries] == [8]
    assert "paths /users/1,/users/2" in rules(found)[0]


def test_what_only_a_grant_or_an_answer_allowed_is_no_example_of_a_template() -> None:
    once = [
        seen("a.example.com:443", f"/users/{each}", reason="answered")._replace(granted=True)
        for each in range(1, 9)
    ]

    found = learned(once)

    assert [len(entry.rule.paths or ()) for entry in found.entries] == [8]
    assert [(entry.denied, entry.granted) for entry in found.entries] == [(0, 8)]


@pytest.mark.parametrize(
    ("attempt", "apart"),
    [
        (seen("db.example.com:5432", form=Form.RAW), Apart.TCP),
        (seen("db.example.com:5432", form=Form.RAW, address="127.0.0.1"), Apart.TCP),
        (seen("a.example.com:443", "/x", address="10.1.2.3"), Apart.ADDRESSES),
        (seen("a.example.com:443", "/x", address="127.0.0.1"), Apart.ADDRESSES),
        (seen("10.1.2.3:443", "/x", address="10.1.2.3"), Apart.ADDRESSES),
        (seen("gist.github.com:443", "/x"), Apart.STORES),
        (seen("a.example.com:443", form=Form.PASSTHROUGH), Apart.HOSTS),
    ],
)
def test_what_only_a_grant_or_an_answer_allowed_is_written_if_it_is_included(
    attempt: Seen, apart: Apart
) -> None:
    granted = attempt._replace(granted=True)

    alone, with_listed = learned([granted]), learned([granted, attempt])
    included = learned([granted], include=frozenset({apart}))

    assert [(entry.apart, entry.written) for entry in alone.entries] == [(apart, False)]
    assert sorted(entry.written for entry in with_listed.entries) == [False, True]
    assert [entry.written for entry in included.entries] == [True]


def test_a_template_never_covers_what_a_denial_refuses() -> None:
    policy = loader.load(
        "deny: [{host: a.example.com, paths: [/users/9*]}]\nallow: [other.example.com]", name="x"
    )

    found = learned(
        [
            *(seen("a.example.com:443", f"/users/{each}") for each in (1, 2, 3)),
            seen("a.example.com:443", "/users/99", allowed=False, reason="deny-rule"),
        ],
        policy,
    )

    assert "paths /users/1,/users/2,/users/3" in rules(found)[0]
    assert [why.startswith("a denial wins") for why in whys(found)] == [True]


@pytest.mark.parametrize(
    ("one", "apart", "written"),
    [
        (seen("gist.github.com:443", "/x/1"), Apart.STORES, True),
        (seen("gist.github.com:443", "/x/1", allowed=False), Apart.STORES, False),
        (seen("10.1.2.3:443", "/", address="10.1.2.3"), Apart.ADDRESSES, True),
        (seen("10.1.2.3:443", "/", allowed=False), Apart.ADDRESSES, False),
        (seen("git.corp.example:443", "/", address="10.1.2.3"), Apart.ADDRESSES, True),
        (seen("dns.google:443", "/dns-query", "POST"), Apart.DNS, False),
        (seen("doh.corp.example:443", "/dns-query", "POST"), Apart.DNS, False),
        (seen("1.1.1.1:443", "/x", address="1.1.1.1"), Apart.DNS, False),
        (seen("db.example.com:5432", form=Form.RAW), Apart.TCP, True),
        (seen("a.example.com:443", allowed=False), Apart.HOSTS, False),
        (seen("a.example.com:443"), Apart.HOSTS, False),
        (seen("a.example.com:443", form=Form.PASSTHROUGH), Apart.HOSTS, True),
        (seen("a.example.com:443", form=Form.LOOKUP, allowed=False), Apart.HOSTS, False),
        (seen("a.example.com:443", "/a;b"), Apart.PATHS, False),
    ],
)
def test_what_opens_more_than_was_seen_is_set_apart(
    one: Seen, apart: Apart, *, written: bool
) -> None:
    found = learned([one])

    assert [(entry.apart, entry.written) for entry in found.entries] == [(apart, written)]


def test_where_anybody_can_store_a_path_is_never_a_template() -> None:
    found = learned([seen("gist.github.com:443", f"/x/{each}") for each in range(9)])

    assert [len(entry.rule.paths or ()) for entry in found.entries] == [9]
    assert "*" not in rules(found)[0]


def test_of_an_address_a_path_is_never_a_template_and_of_a_name_that_leads_to_one_it_is() -> None:
    literal = learned(
        [seen("10.1.2.3:443", f"/x/{each}", address="10.1.2.3") for each in range(1, 9)]
    )
    name = learned(
        [seen("git.corp.example:443", f"/x/{each}", address="10.1.2.3") for each in range(1, 9)]
    )

    assert "*" not in rules(literal)[0]
    assert "/x/1*" in rules(name)[0]
    assert {entry.apart for entry in (*literal.entries, *name.entries)} == {Apart.ADDRESSES}


def test_what_is_included_passes_then() -> None:
    all_seen = [
        seen("dns.google:443", "/dns-query", "POST"),
        seen("a.example.com:443", allowed=False),
        seen("b.example.com:443", "/a;b"),
        seen("10.1.2.3:443", "/", allowed=False),
    ]

    found = learned(all_seen, include=EVERYTHING)

    policy = after(found)
    assert all(judged(policy, each.attempt).allowed for each in all_seen if each.attempt)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (seen("169.254.169.254:80", "/", scheme=Scheme.HTTP), "metadata"),
        (seen("metadata.google.internal:80", "/", scheme=Scheme.HTTP), "metadata"),
        (seen("a.example.com:443", "/", address="169.254.169.254"), "metadata"),
        (seen("localhost:8080", allowed=False), "this machine"),
        (seen("127.0.0.1:8080", "/", allowed=False), "this machine"),
        (seen("co.uk:443", allowed=False), "public suffix"),
        (seen("a.example.com:443", "/", "BREW"), "no entry can name its method"),
        (seen("a.example.com:9000", form=Form.RAW, allowed=False), "bytes of any protocol"),
        (seen("db.example.com:5432", allowed=False), "tcp://db.example.com:5432"),
        (seen("a.example.com:443", "/", allowed=False, reason="host-mismatch"), "host-mismatch"),
        (seen("a.example.com:443", "/", nowhere=True), "led nowhere"),
        (
            Seen(
                None,
                "tunnel *.com:443",
                allowed=False,
                reason="invalid-target",
                nowhere=False,
                times=1,
            ),
            "invalid-target",
        ),
    ],
)
def test_what_no_entry_is_proposed_for_is_said(one: Seen, why: str) -> None:
    found = learned([one], include=EVERYTHING)

    assert found.entries == []
    assert [why in each for each in whys(found)] == [True]


def test_a_push_is_learned_with_what_follows_it() -> None:
    found = learned([seen("git.example.com:443", "/r/info/refs", query="service=git-receive-pack")])

    assert rules(found) == [
        "https://git.example.com ports 443 methods GET paths /r/info/refs",
        "https://git.example.com ports 443 methods POST paths /r/git-receive-pack",
    ]


def test_a_tunnel_is_told_by_the_requests_in_it() -> None:
    found = learned([seen("a.example.com:443"), seen("a.example.com:443", "/x")])

    assert rules(found) == ["https://a.example.com ports 443 methods GET paths /x"]


def test_a_lookup_is_told_by_the_tunnel_that_followed() -> None:
    found = learned(
        [
            seen("a.example.com:443", form=Form.LOOKUP, allowed=False),
            seen("a.example.com:8443", "/x"),
        ]
    )

    assert [entry.rule.ports for entry in found.entries] == [frozenset({8443})]


PRESETS = {
    "small": loader.load(
        """\
allow:
  - {host: .packages.example, methods: [GET, HEAD]}
  - {host: x.example, methods: [GET]}
""",
        name="x",
    ),
    "large": loader.load(
        "allow: [a1.example, a2.example, a3.example, a4.example, a5.example]", name="x"
    ),
}


def test_a_preset_of_which_most_is_used_replaces_entries() -> None:
    found = learned(
        [seen("r.packages.example:443", f"/{name}") for name in ("a", "b", "c")], presets=PRESETS
    )

    assert ([use.name for use in found.taken], found.entries) == (["small"], [])


@pytest.mark.parametrize("names", ["ab", ""])
def test_a_preset_with_too_few_examples_is_only_offered(names: str) -> None:
    found = learned(
        [seen("r.packages.example:443", f"/{name}") for name in names or "a"], presets=PRESETS
    )

    assert found.taken == []
    assert [use.name for use in found.presets] == ["small"]


def test_a_preset_that_opens_much_more_is_taken_only_by_name() -> None:
    all_seen = [seen("a1.example:443", f"/{name}") for name in "abcd"]

    by_itself = learned(all_seen, presets=PRESETS)
    named = learned(all_seen, presets=PRESETS, named=["large"])

    assert by_itself.taken == []
    assert [use.name for use in named.taken] == ["large"]


def test_a_path_that_no_entry_can_name_is_let_pass_where_a_preset_allows_every_path() -> None:
    found = learned([seen("r.packages.example:443", "/@a%2fb")], presets=PRESETS)

    assert rules(found) == ["https://r.packages.example ports 443 methods GET"]
    assert found.entries[0].vouched == "small"


def test_more_attempts_than_anybody_reads_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_proxy.policy.learned_list.MOST_WANTED", 3)

    found = learned([seen("a.example.com:443", f"/{word}") for word in ("a", "b", "c", "d", "e")])

    assert [each.times for each in found.left_out] == [2]
    assert len(found.entries[0].paths) == 3


def test_more_paths_than_anybody_reads_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_proxy.policy.learned_list.MOST_PATHS", 3)

    found = learned([seen("a.example.com:443", f"/{word}") for word in ("a", "b", "c", "d", "e")])

    assert sum(each.times for each in found.left_out) >= 2
    assert len(found.entries[0].paths) == 3


HOSTS = st.sampled_from(
    ["a.example.com", "b.example.com", "gist.github.com", "10.1.2.3", "dns.google", "x.github.io"]
)
PARTS = st.one_of(
    st.sampled_from(["admin", "v1", "users", "a;b", "*", "%2e", "x\n- y", "1.2.3", '"', "/**"]),
    st.integers(0, 50).map(str),
)
ALL_SEEN = st.lists(
    st.builds(
        lambda host, port, parts, method, allowed: seen(
            f"{host}:{port}", "/" + "/".join(parts), method, allowed=allowed
        ),
        HOSTS,
        st.sampled_from([443, 8443]),
        st.lists(PARTS, max_size=3),
        st.sampled_from(["GET", "HEAD", "POST"]),
        st.booleans(),
    ),
    max_size=14,
)


@given(ALL_SEEN)
def test_whatever_was_seen_is_let_pass_or_said_not_to_be(all_seen: list[Seen]) -> None:
    found = learned(all_seen)

    policy = after(found)
    passing = [each for each in all_seen if each.attempt and judged(policy, each.attempt).allowed]
    withheld = [entry for entry in found.entries if not entry.written]
    said = sum(entry.count for entry in withheld) + sum(each.times for each in found.left_out)
    assert len(all_seen) <= len(passing) + said


@given(ALL_SEEN)
def test_nothing_is_opened_beside_what_was_seen(all_seen: list[Seen]) -> None:
    found = learned(all_seen)

    asked = {(each.attempt.target, each.attempt.method) for each in all_seen if each.attempt}
    for entry in found.written:
        rule = entry.rule
        assert rule.pattern.kind in {PatternKind.EXACT, PatternKind.LITERAL}
        assert rule.scheme is not RawScheme.TCP
        assert rule.ports is not None
        (port,) = rule.ports
        target = Authority.of(rule.name, port)
        assert rule.methods is not None
        assert rule.paths is not None
        assert {(target, method) for method in rule.methods} <= asked
        for word in ("/root", "/users/root", "/admin/root", "/1/root", "/users/1/root"):
            assert not any(glob.matches(word) for glob in rule.paths)
