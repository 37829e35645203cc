"""Laws of names: one spelling for each host, and no text that two parsers read differently."""

import copy
import pickle
from dataclasses import FrozenInstanceError
from ipaddress import IPv4Address, IPv6Address

import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.wire.authority import (
    Authority,
    literal_of,
    normalise_host,
    quoted,
    text_of,
)

LONGEST_LABEL = "a" * 63
LONGEST_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])

labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
names = (
    st.lists(labels, min_size=1, max_size=4)
    .map(lambda parts: ".".join([*parts, "test"]))
    .filter(lambda name: "xn--" not in name)  # these have laws and tests of their own
)
addresses = st.ip_addresses().map(text_of)
ports = st.integers(min_value=1, max_value=65535)
# Text near the grammar finds more than text from all of Unicode.
nearly = st.text(
    alphabet="abcXN-_.:[]%@/0123456789x \\\0\t\r\n?#\u0130\u212a\uff11\u3002", max_size=30
)


@st.composite
def authorities(draw: st.DrawFn) -> Authority:
    host = draw(st.one_of(names, addresses))
    return Authority.of(host, draw(ports))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("api.anthropic.com:443", "api.anthropic.com:443"),
        ("API.Anthropic.COM:443", "api.anthropic.com:443"),
        ("api.anthropic.com.:443", "api.anthropic.com:443"),
        ("localhost:80", "localhost:80"),
        ("_dmarc.my_host.test:1", "_dmarc.my_host.test:1"),
        ("r3---sn-4g5e6nsz.test:443", "r3---sn-4g5e6nsz.test:443"),
        ("XN--MNCHEN-3YA.de:443", "xn--mnchen-3ya.de:443"),
        ("192.0.2.1:65535", "192.0.2.1:65535"),
        ("[2606:4700::1111]:443", "[2606:4700::1111]:443"),
        ("[::]:1", "[::]:1"),
        (f"{LONGEST_LABEL}.test:443", f"{LONGEST_LABEL}.test:443"),
        (f"{LONGEST_NAME}.:443", f"{LONGEST_NAME}:443"),
    ],
)
def test_every_spelling_of_an_authority_becomes_one(written: str, normal: str) -> None:
    assert str(Authority.parse(written)) == normal
    assert Authority.parse(written.encode()) == Authority.parse(normal)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "example.com",
        "example.com:",
        "example.com:0",
        "example.com:0443",
        "example.com:+443",
        "example.com:-1",
        "example.com: 443",
        "example.com:443 ",
        "example.com:65536",
        "example.com:65979",
        "example.com:4433333",
        "example.com:443:443",
        "example.com:0x1bb",
        "example.com:https",
        "example.com:\u0664\u0664\u0663",  # Arabic digits, which str.isdigit and int() take
        "example.com:443\n",
        "user@example.com:443",
        "http://example.com:443",
        "example.com/:443",
        "[example.com]:443",
        "[denied.com]:443",
        "[192.0.2.1]:443",
        "[]:443",
        "[::1:443",
        "[::1]",
        "[::1]443",
        "[::1]]:443",
        "[[::1]]:443",
        "::1:443",
        "2606:4700::1111",
        " [::1]:443",
    ],
)
def test_what_is_not_plainly_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'"|port'):
        Authority.parse(text)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "a" * 64 + ".test",
        LONGEST_NAME + "d",
        "-a.test",
        "a-.test",
        "exa mple.com",
        "example.com ",
        "example.com\t",
        "example.com\n",
        "evil.com\0.allowed.com",
        "evil.com\r\n.allowed.com",
        "evil.com%00.allowed.com",
        "%65vil.com",
        "evil.com#.allowed.com",
        "evil.com?.allowed.com",
        "evil.com\\.allowed.com",
        "evil.com/.allowed.com",
        "evil.com@allowed.com",
        "evil.com:1@allowed.com",
        "*.example.com",
        "ex\u0430mple.com",  # a Cyrillic letter
        "\u212aernel.org",  # the Kelvin sign, which lower() makes a "k"
        "example\u3002com",  # a full stop to some
        "\uff11\uff12\uff17.0.0.1",  # full-width digits
        "exa\u00admple.com",  # a soft hyphen, which some drop
        "xn--.test",
        "xn--a.test",
        "xn--a-.test",
        "xn--example-.test",  # decodes to plain ASCII
        "xn--mnchen-3yA\u00e4.test",
        "xn--MNCHEN-3YA-.test",
        "xn--\u00fc.test",
        "xn--ls8h.test",  # an emoji, which IDNA 2008 does not have
    ],
)
def test_a_name_with_more_than_one_reading_is_refused(host: str) -> None:
    for build in (normalise_host, lambda name: Authority.of(name, 443)):
        with pytest.raises(ValueError, match=r'"|port'):
            build(host)


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("a..b", "an empty label"),
        ("a" * 63 + "!", "longer than 63"),
        ("a" * 62 + "!", "only letters"),
        ("-a", "a hyphen"),
        ("a-", "a hyphen"),
        ("a b", "only letters"),
        ("a." * 127 + "a", "longer than 253"),
        ("xn--a", "not valid IDNA"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_name(host: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        normalise_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0x",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "127.0.0.256",
        "1.2.3.4.5",
        "1.2.3.4.test.0x7f",
        "example.1",
        "0",
        "1.2.3.0X4",
    ],
)
def test_an_ipv4_address_in_any_other_spelling_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        normalise_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "::1%lo",
        "fe80::1%25eth0",
        "::1%x.allowed.com",
        "::ffff:192.0.2.1",
        "64:ff9b::192.0.2.1",
        "2606:4700::ABCD",
        "2606:4700:0:0:0:0:0:1111",
        "2606:4700::0:1111",
        "2606:04700::1111",
        "0:0:0:0:0:0:0:1",
        "1::2::3",
        ":::",
        ":",
        "12345::",
        "[::1]",
    ],
)
def test_an_ipv6_address_in_any_other_spelling_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r'"|port'):
        Authority.of(host, 443)
    with pytest.raises(ValueError, match=r'"|port'):
        Authority.parse(f"[{host}]:443")


def test_a_name_is_never_an_address_and_an_address_always_is() -> None:
    assert Authority.parse("192.0.2.1:1").address == IPv4Address("192.0.2.1")
    assert Authority.parse("[2606:4700::1111]:1").address == IPv6Address("2606:4700::1111")
    assert Authority.parse("1.2.3.4.example:1").address is None
    assert literal_of("example.com") is None


def test_a_missing_port_is_the_default_only_where_there_is_one() -> None:
    assert Authority.parse("example.com", default_port=80) == Authority.of("example.com", 80)
    assert Authority.parse("[::1]", default_port=443) == Authority.of("::1", 443)
    assert Authority.parse("example.com:8080", default_port=80).port == 8080
    with pytest.raises(ValueError, match="port"):
        Authority.parse("example.com:", default_port=80)


@pytest.mark.parametrize(
    ("host", "port"), [("EXAMPLE.com", 443), ("example.com.", 1), ("a", 0), ("a", 65536), ("", 1)]
)
def test_an_authority_that_is_not_normalised_cannot_exist(host: str, port: int) -> None:
    with pytest.raises(ValueError, match=r'"|port'):
        Authority(host, port)


def test_bytes_that_are_not_ascii_are_refused() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        Authority.parse("b\u00fccher.test:443".encode())


def test_authorities_compare_sort_and_hash_by_host_and_port() -> None:
    one, two = Authority.parse("A.test:80"), Authority.parse("a.test:443")

    assert sorted([two, one]) == [one, two]
    assert len({one, two, Authority.of("a.test", 80)}) == 2
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert repr(one) == "Authority(host='a.test', port=80)"


def test_an_authority_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Authority.parse("a.test:80").host = "b.test"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00fcCHER.Example.", "xn--bcher-kva.example"),
        ("\u13a00.test", "xn--0-18h.test"),
        ("fa\u00df.de", "xn--fa-hia.de"),
        ("plain.example", "plain.example"),
    ],
)
def test_u_labels_are_read_where_a_person_writes(written: str, normal: str) -> None:
    assert normalise_host(written, unicode=True) == normal
    assert normalise_host(normal, unicode=True) == normal


@pytest.mark.parametrize(
    "host",
    [
        "b\u00fccher\u3002example",
        "\uff11.example",
        "\u212a.example",
        "\U0001f4a9.la",
        "\u00fc..de",
        "\u00dc.de",
    ],
)
def test_even_a_person_may_not_write_what_idna_forbids(host: str) -> None:
    with pytest.raises(ValueError, match=r'"|port'):
        normalise_host(host, unicode=True)


def test_addresses_print_the_same_in_every_python_version() -> None:
    # Python 3.13 began to print IPv4-mapped addresses with a dotted quad.
    assert text_of(IPv6Address("::ffff:192.0.2.1")) == "::ffff:c000:201"
    assert text_of(IPv6Address("2606:4700:0:0::1")) == "2606:4700::1"
    assert text_of(IPv4Address("192.0.2.1")) == "192.0.2.1"


def test_a_quoted_text_is_short_and_has_no_control_characters() -> None:
    assert quoted("a\x1b[31m\u202eb") == '"a\\x1b[31m\\u202eb"'
    assert quoted("b\u00fccher") == '"b\u00fccher"'
    assert quoted("a" * 253) == '"' + "a" * 253 + '"'
    assert quoted("a" * 254) == '"' + "a" * 253 + '..."'


@given(authorities())
def test_a_parsed_authority_prints_and_parses_to_itself(authority: Authority) -> None:
    assert Authority.parse(str(authority)) == authority
    assert Authority.parse(str(authority).encode()) == authority
    assert normalise_host(authority.host) == authority.host


@given(names, st.data())
def test_case_and_one_trailing_dot_never_matter(name: str, data: st.DataObject) -> None:
    shouted = "".join(data.draw(st.sampled_from([char, char.upper()])) for char in name)

    assert normalise_host(shouted) == normalise_host(f"{shouted}.") == name


@given(st.one_of(st.text(), st.binary(), nearly), st.one_of(st.none(), ports))
@example("xn--" + "9" * 59 + ":1", None)
@example("[" * 5000, None)
@example("." * 70_000, 443)
def test_parsing_returns_a_normal_authority_or_raises_value_error(
    text: str | bytes, default_port: int | None
) -> None:
    try:
        authority = Authority.parse(text, default_port=default_port)
    except ValueError:
        return

    assert Authority.parse(str(authority)) == authority
    assert authority.host == authority.host.lower()
    assert authority.host.isascii()
    assert 1 <= authority.port <= 65535


@given(st.one_of(st.text(), nearly), st.booleans())
@example("xn--\u00fc\u00fc", True)
def test_normalising_is_idempotent_or_raises_value_error(text: str, unicode: bool) -> None:  # noqa: FBT001
    try:
        normal = normalise_host(text, unicode=unicode)
    except ValueError:
        return

    assert normalise_host(normal) == normal


@given(st.from_regex(r"xn--[a-z0-9-]{0,20}", fullmatch=True))
@example("xn--mnchen-3ya")
def test_an_a_label_that_is_taken_has_exactly_one_reading(label: str) -> None:
    try:
        normal = normalise_host(f"{label}.test")
    except ValueError:
        return

    assert normal == f"{label}.test"
    assert normalise_host(f"{idna.ulabel(label)}.test", unicode=True) == normal
