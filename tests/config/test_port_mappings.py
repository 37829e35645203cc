"""What --forward and --publish take, and what they refuse with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.port_mappings import (
    Automatic,
    Forward,
    Published,
    parse_forward,
    parse_publish,
)
from claude_proxy.wire.authority import Authority

DB = Authority.of("db.corp", 5432)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5432=db.corp:5432", Forward("127.0.0.1", 5432, DB)),
        ("15432=DB.corp:5432", Forward("127.0.0.1", 15432, DB)),
        ("localhost:5432=db.corp:5432", Forward("127.0.0.1", 5432, DB)),
        ("127.0.0.9:5432=db.corp:5432", Forward("127.0.0.9", 5432, DB)),
        ("[::1]:5432=db.corp:5432", Forward("::1", 5432, DB)),
        ("6379=[2001:db8::1]:6379", Forward("127.0.0.1", 6379, Authority.of("2001:db8::1", 6379))),
        ("6379=10.0.0.5:6379", Forward("127.0.0.1", 6379, Authority.of("10.0.0.5", 6379))),
        (
            "8080=host:11434",
            Forward("127.0.0.1", 8080, Authority.of("localhost", 11434), to_host=True),
        ),
        ("1=Host:2", Forward("127.0.0.1", 1, Authority.of("localhost", 2), to_host=True)),
    ],
)
def test_a_forward_names_one_port_inside_and_one_place_outside(
    text: str, expected: Forward
) -> None:
    assert parse_forward(text) == expected
    assert parse_forward(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'no "="'),
        ("5432:db.corp:5432", 'no "="'),
        ("5432=", "names no port"),
        ("5432=db.corp", "names no port"),
        ("5432=db.corp:", "names no port"),
        ("5432=host", "names no port"),
        ("5432=host:0", "is not a port"),
        ("5432=host:65536", "is not a port"),
        ("5432=db.corp:0", "no valid port"),
        ("0=db.corp:5432", "is not a port"),
        ("=db.corp:5432", "is not a port"),
        ("5432-5440=db.corp:5432", "is not a port"),
        ("+1=db.corp:5432", "is not a port"),
        ("٣=db.corp:5432", "is not a port"),
        (":5432=db.corp:5432", "not an IP address"),
        ("db:5432=db.corp:5432", "not an IP address"),
        ("::1:5432=db.corp:5432", "IPv6 as"),
        ("0.0.0.0:5432=db.corp:5432", "no address of the sandbox's loopback"),
        ("10.0.0.1:5432=db.corp:5432", "no address of the sandbox's loopback"),
        ("[::1%lo]:5432=db.corp:5432", "zone"),
        ("5432=localhost:5432", "host:5432"),
        ("5432=127.0.0.1:5432", "host:5432"),
        ("5432=[::1]:5432", "host:5432"),
        ("5432=0.0.0.0:5432", "host:5432"),
        ("5432=db.localhost:5432", "host:5432"),
        ("5432=*.corp:5432", ""),
        ("5432=user@db.corp:5432", ""),
        ("5432=2130706433:5432", ""),
    ],
)
def test_what_is_no_forward_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_forward(text)

    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3000:3000", Published("127.0.0.1", 3000, 3000)),
        ("0:3000", Published("127.0.0.1", 0, 3000)),
        ("127.0.0.1:8080:3000", Published("127.0.0.1", 8080, 3000)),
        ("[::1]:8080:3000", Published("::1", 8080, 3000)),
        ("0.0.0.0:8080:3000", Published("0.0.0.0", 8080, 3000)),
        ("auto", Automatic.AUTO),
        ("AUTO", Automatic.AUTO),
    ],
)
def test_a_published_port_names_one_port_on_each_side(
    text: str, expected: Published | Automatic
) -> None:
    assert parse_publish(text) == expected
    assert parse_publish(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names one port"),
        ("3000", "names one port"),
        ("3000:", "is not a port"),
        (":3000", "is not a port"),
        ("3000:0", "is not a port"),
        ("65536:1", "is not a port"),
        (":1:2", "not an IP address"),
        ("web:1:2", "not an IP address"),
        ("::1:1:2", "IPv6 as"),
        ("[127.0.0.1]:1:2", "not an address"),
        ("3000-3010:3000-3010", "is not a port"),
        ("3000:3000/udp", "is not a port"),
    ],
)
def test_what_is_no_published_port_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_publish(text)

    assert why in str(refused.value)


@given(st.text(max_size=40))
def test_every_text_is_a_mapping_or_a_reason(text: str) -> None:
    for parse in (parse_forward, parse_publish):
        try:
            parse(text)
        except ValueError:
            continue


def test_only_an_address_of_loopback_is_for_this_machine_alone() -> None:
    remote = [parse_publish(f"{host}:1:2") for host in ("127.0.0.5", "[::1]", "0.0.0.0", "[::]")]

    assert [isinstance(one, Published) and one.is_remote for one in remote] == [
        *(False, False, True, True)
    ]


def test_a_service_of_this_machine_is_called_so() -> None:
    assert parse_forward("1=host:2").leads_to == "port 2 of this machine's loopback"
    assert parse_forward("1=db.corp:2").leads_to == "db.corp:2"
