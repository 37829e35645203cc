"""Laws of checked URLs: read as a client would, and nothing is corrected that it would send."""

import pytest

from claude_proxy.cli.checked_url import question_of
from claude_proxy.errors import ConfigError
from claude_proxy.policy.request import Scheme


@pytest.mark.parametrize(
    ("url", "target", "scheme", "path"),
    [
        ("https://a.test/x?y#z", "a.test:443", Scheme.HTTPS, "/x"),
        ("a.test/x", "a.test:443", Scheme.HTTPS, "/x"),
        ("a.test?x", "a.test:443", Scheme.HTTPS, "/"),
        ("wss://a.test/s", "a.test:443", Scheme.HTTPS, "/s"),
        ("http://a.test:8080", "a.test:8080", Scheme.HTTP, "/"),
        ("a.test", "a.test:443", None, ""),
        ('"a.test/x"', "a.test:443", Scheme.HTTPS, "/x"),
        ("<https://a.test/x>", "a.test:443", Scheme.HTTPS, "/x"),
        ("localhost:8000", "localhost:8000", None, ""),
        ("a.test:22", "a.test:22", None, ""),
        ("git@a.test:o/r.git", "a.test:22", None, ""),
        ("ssh://me@a.test:2222/o/r", "a.test:2222", None, ""),
        ("git://a.test/o/r", "a.test:9418", None, ""),
    ],
)
def test_what_people_paste_is_a_request_or_a_tunnel(
    url: str, target: str, scheme: Scheme | None, path: str
) -> None:
    question = question_of(url)

    assert (str(question.target), question.scheme, question.path) == (target, scheme, path)


def test_what_is_not_http_names_the_address_over_https() -> None:
    assert "https://a.test/o/r.git" in question_of("git@a.test:o/r.git").note


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("10.0.0.0/8", "it is a network"),
        ("2001:db8::/32", "it is a network"),
        ("javascript:1", "the scheme javascript is not known"),
        ("data:text/html,x", "the scheme data is not known"),
    ],
)
def test_what_names_no_host_is_refused_for_what_it_is(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        question_of(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@a.test/",
        "tcp://me:hunter2@db.test",
        "tcp://me:hunter2@db.test:5432/shop",
        "postgres://me:hunter2@db.test:99999",
        "postgresql://me:hunter2@a.test:1,b.test:2/shop",
        "mssql://me:hunter2@db.test:1433",
        "me:hunter2@@a.test/",
    ],
)
def test_a_password_in_a_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        question_of(url)

    assert "hunter2" not in "".join(caught.value.lines())


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("tcp://db.test:5432", "db.test:5432"),
        ("TCP://db.test:5432/", "db.test:5432"),
        ("postgres://me:hunter2@db.test/shop?sslmode=require", "db.test:5432"),
        ("rediss.test:6379", "rediss.test:6379"),
        ("redis://[fd00::5]", "[fd00::5]:6379"),
        ("mongodb://db.test:27018/x", "db.test:27018"),
    ],
)
def test_another_protocol_is_asked_about_as_a_tunnel_and_shows_no_password(
    url: str, target: str
) -> None:
    question = question_of(url)

    assert str(question.target) == target
    assert question.scheme is None
    assert "hunter2" not in question.url


@pytest.mark.parametrize("url", ["tcp://db.test", "tcp://db.test:5432/x", "tcp://db.test:0"])
def test_tcp_names_a_host_and_a_port_alone(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        question_of(url)

    assert caught.value.fix
