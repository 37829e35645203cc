"""The laws of patterns: one spelling, one meaning, and never more hosts than written."""

import pytest

from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from tests.policy.cases import at, denied_for, lines_run, request, rule


@pytest.mark.parametrize(
    ("text", "kind", "canonical"),
    [
        ("example.com", PatternKind.EXACT, "example.com"),
        ("Example.COM.", PatternKind.EXACT, "example.com"),
        ("*.Example.com", PatternKind.SUBDOMAINS, "*.example.com"),
        (".example.com", PatternKind.DOMAIN, ".example.com"),
        ("b\u00fccher.example", PatternKind.EXACT, "xn--bcher-kva.example"),
        ("*.b\u00fccher.example", PatternKind.SUBDOMAINS, "*.xn--bcher-kva.example"),
        ("localhost", PatternKind.EXACT, "localhost"),
        ("_srv.my_host.test", PatternKind.EXACT, "_srv.my_host.test"),
        ("s3.amazonaws.com", PatternKind.EXACT, "s3.amazonaws.com"),
        ("*.amazonaws.com", PatternKind.SUBDOMAINS, "*.amazonaws.com"),
        ("*.internal", PatternKind.SUBDOMAINS, "*.internal"),
        ("192.0.2.1", PatternKind.LITERAL, "192.0.2.1"),
        ("2606:4700::1111", PatternKind.LITERAL, "2606:4700::1111"),
        ("10.0.0.0/8", PatternKind.NETWORK, "10.0.0.0/8"),
        ("192.0.2.1/32", PatternKind.NETWORK, "192.0.2.1/32"),
        ("2606:4700::/32", PatternKind.NETWORK, "2606:4700::/32"),
    ],
)
def test_a_host_pattern_is_read_into_its_canonical_spelling(
    text: str, kind: PatternKind, canonical: str
) -> None:
    pattern = HostPattern.parse(text)

    assert pattern.kind is kind
    assert str(pattern) == canonical
    assert HostPattern.parse(canonical) == pattern


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "empty", "name the host"),
        (" ", "empty", "name the host"),
        ("*", "every host", "*.example.com"),
        ("**", "every host", "*.example.com"),
        ("*.*", "every host", "*.example.com"),
        (".", "every host", "*.example.com"),
        ("*.com", "public suffix", "*.example.com"),
        (".co.uk", "public suffix", "*.example.co.uk"),
        ("*.github.io", "public suffix", "*.example.github.io"),
        ("*.nonesuch", "public suffix", "*.example.nonesuch"),
        ("com", "public suffix", "example.com"),
        ("co.uk", "public suffix", "example.co.uk"),
        ("https://example.com", "a scheme", "only the host"),
        ("//example.com", "a path", "paths"),
        ("example.com/v1", "a path", "paths"),
        ("user@example.com", "user info", "only the host"),
        ("example.com:443", "a port", "ports"),
        ("example.com:", "a port", "ports"),
        ("[::1]:443", "a port", "ports"),
        ("[2606:4700::1111]", "in brackets", 'write "2606:4700::1111"'),
        ("^example\\.com$", "characters no name has", "regular expression"),
        (".*\\.example\\.com", "characters no name has", "regular expression"),
        ("(a|b).example.com", "characters no name has", "regular expression"),
        ("[denied.com]", "characters no name has", "regular expression"),
        ("a*.example.com", "a wildcard inside", "whole first label"),
        ("*a.example.com", "a wildcard inside", "whole first label"),
        ("a.*.example.com", "a wildcard inside", "whole first label"),
        ("*.*.example.com", "a wildcard inside", "whole first label"),
        ("**.example.com", "a wildcard inside", "whole first label"),
        ("*.192.0.2.1", "in front of an address", 'write "192.0.2.1"'),
        (".192.0.2.1", "in front of an address", 'write "192.0.2.1"'),
        ("..example.com", "an empty label", "URL"),
        ("*..example.com", "an empty label", "URL"),
        ("exa mple.com", "letters, digits", "URL"),
        ("B\u00dcCHER.example", "IDNA", "lower case"),
        ("127.1", "IPv4", "four numbers"),
        ("0x7f.1", "IPv4", "URL"),
        ("2606:4700:0::1111", "must be written", 'write "2606:4700::1111"'),
        ("::FFFF:192.0.2.1", "hexadecimal", 'write "192.0.2.1"'),
        ("::ffff:c000:201", "hides an IPv4 address", 'write "192.0.2.1"'),
        ("2002::/16", "hides an IPv4 address", "IPv4 network"),
        ("10.0.0.1/8", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/255.0.0.0", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/08", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/33", "not a network", "192.0.2.0/24"),
        ("10.0.0/8", "not a network", "192.0.2.0/24"),
        ("0.0.0.0/0", "every address", "networks"),
        ("::/0", "every address", "networks"),
    ],
)
def test_an_invalid_host_pattern_is_refused_with_its_fix(text: str, what: str, fix: str) -> None:
    with pytest.raises(PatternError) as caught:
        HostPattern.parse(text)

    assert what in caught.value.what
    assert fix in caught.value.fix
    assert str(caught.value) == f"{caught.value.what}; {caught.value.fix}"


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/", "/"),
        ("/**", "/"),
        ("/**", "/a"),
        ("/**", "/a/b/"),
        ("/v1/messages", "/v1/messages"),
        ("/v1/", "/v1/"),
        ("/v1/**", "/v1"),
        ("/v1/**", "/v1/"),
        ("/v1/**", "/v1/messages/count_tokens"),
        ("/*", "/a"),
        ("/*/", "/a/"),
        ("/*/*", "/a/b"),
        ("/*/**", "/a"),
        ("/*/**", "/a/b/c"),
        ("/*/*.git/info/refs", "/owner/repo.git/info/refs"),
        ("/*/*.git/info/refs", "/owner/.git/info/refs"),
        ("/v*/x", "/v/x"),
        ("/v*/x", "/v12/x"),
        ("/a*b*c", "/abc"),
        ("/a*b*c", "/aXbbXcc"),
        ("/*-*", "/-"),
        ("/*ab*ab*", "/abab"),
        ("/%40scope/*", "/%40scope/x"),
        ("/@scope/*", "/@scope/x"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_a_glob_covers_these_paths(glob: str, path: str) -> None:
    assert PathGlob.parse(glob).matches(path)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/", ""),
        ("/**", ""),
        ("/**", "*"),
        ("/", "/a"),
        ("/v1/messages", "/v1/messages/"),
        ("/v1/messages", "/V1/messages"),
        ("/v1/messages", "/v1/messagesX"),
        ("/v1/**", "/v10"),
        ("/v1/**", "/v1x/y"),
        ("/*", "/"),
        ("/*", "/a/"),
        ("/*", "/a/b"),
        ("/*/*", "/a/"),
        ("/*/*", "//b"),
        ("/*/**", "/"),
        ("/a/*/**", "/a"),
        ("/*.git", "/a/b.git"),
        ("/*.git", "/a.gitx"),
        ("/a*a", "/a"),
        ("/a*b*c", "/acb"),
        ("/a*bc*c", "/abc"),
        ("/*ab*ab*", "/xabx"),
        ("/*aba*aba*", "/ababa"),
        ("/%40scope/*", "/@scope/x"),
        ("/@scope/*", "/%40scope/x"),
        ("/a%2bb", "/a%2Bb"),
    ],
)
def test_a_glob_does_not_cover_these_paths(glob: str, path: str) -> None:
    assert not PathGlob.parse(glob).matches(path)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "slash", "/v1/*"),
        ("v1", "slash", "/v1/*"),
        ("*", "slash", "/v1/*"),
        ("/**/x", "**", "only at the end"),
        ("/a**", "**", "only at the end"),
        ("/***", "**", "only at the end"),
        ("/**/**", "**", "only at the end"),
        ("/a|b", '"|"', "regular expression"),
        ("/[0-9]", '"["', "regular expression"),
        ("/^x", '"^"', "regular expression"),
        ("//a", '"//"', "always denied"),
        ("/a/../b", '"/.."', "always denied"),
        ("/a/.", '"/."', "always denied"),
        ("/a;b", '";"', "always denied"),
        ("/a\\b", '"\\\\"', "always denied"),
        ("/a?b=c", '"?"', "always denied"),
        ("/a%2fb", '"%2f"', "always denied"),
        ("/%61", '"%61"', "always denied"),
        ("/%zz", '"%"', "always denied"),
        ("/a b", '" "', 'write "/a%20b"'),
        ("/b\u00fccher/*", '"\u00fc"', 'write "/b%C3%BCcher/*"'),
        ("/a\0", '"\\x00"', "always denied"),
    ],
)
def test_an_invalid_path_glob_is_refused_with_its_fix(text: str, what: str, fix: str) -> None:
    with pytest.raises(PatternError) as caught:
        PathGlob.parse(text)

    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_glob_prints_as_it_was_written() -> None:
    assert str(PathGlob.parse("/a/*.git/**")) == "/a/*.git/**"


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("anthropic.com", "anthropic.com"),
        ("anthropic.com", "Anthropic.COM."),
        ("*.anthropic.com", "api.anthropic.com"),
        ("*.anthropic.com", "a.b.c.anthropic.com"),
        (".anthropic.com", "anthropic.com"),
        (".anthropic.com", "a.b.anthropic.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.77"),
        ("2606:4700::1111", "[2606:4700::1111]"),
        ("2606:4700::/32", "[2606:4700::1]"),
    ],
)
def test_a_pattern_covers_these_hosts(pattern: str, host: str) -> None:
    decision = Policy((rule(pattern),)).decide_connect(at(host))

    assert decision.allowed
    assert decision.rule is not None
    assert decision.rule.name == pattern


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("anthropic.com", "api.anthropic.com"),
        ("anthropic.com", "evilanthropic.com"),
        ("anthropic.com", "anthropic.com.evil.com"),
        ("anthropic.com", "anthropic.co"),
        ("anthropic.com", "com"),
        ("*.anthropic.com", "anthropic.com"),
        ("*.anthropic.com", "evilanthropic.com"),
        ("*.anthropic.com", "api.anthropic.com.evil.com"),
        (".anthropic.com", "evilanthropic.com"),
        (".anthropic.com", "anthropic.com.evil.com"),
        (".anthropic.com", "xn--anthropic-com.evil.com".removeprefix("xn--")),
        ("192.0.2.1", "192.0.2.10"),
        ("192.0.2.1", "[::ffff:c000:201]"),
        ("192.0.2.1", "[64:ff9b::c000:201]"),
        ("192.0.2.0/24", "192.0.3.1"),
        ("192.0.2.1", "192.0.2.1.evil.com"),
        ("2606:4700::/32", "[2606:4701::1]"),
        ("2000::/3", "[2002:808:808::1]"),
    ],
)
def test_a_pattern_does_not_cover_these_hosts(pattern: str, host: str) -> None:
    policy = Policy((rule(pattern),))

    assert denied_for(policy.decide_connect(at(host))) is Reason.NO_RULE


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/",
        "/a/b.c/..d/e../...",
        "/.well-known/x",
        "/@scope/name",
        "/a%20b/%C3%A9",
        "/a+b,c=d&e:f(g)h'i!j$k*l~m",
        "/%40scope/%5Bx%5D/%E6%96%87%EF%BC%8C",
        "/a|b",
    ],
)
def test_an_ordinary_path_is_not_ambiguous(path: str) -> None:
    policy = Policy((rule("a.test", paths=("/**",)),))

    assert policy.decide_request(request("a.test", path=path)).allowed


def test_a_glob_with_many_stars_is_matched_without_trying_again() -> None:
    glob = PathGlob.parse("/" + "*a" * 30)
    path = "/" + "a" * 5000 + "b"

    work = lines_run(lambda: glob.matches(path))

    assert not glob.matches(path)
    assert work < 500
