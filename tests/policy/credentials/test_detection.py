"""Laws of detection: everything that could authenticate is found, and nothing else is."""

from base64 import b64encode

import pytest

from claude_proxy.policy.credentials.detection import COOKIE, PATH, QUERY, field_place, find_logins


@pytest.mark.parametrize(
    ("name", "place"),
    [(b"X_API_KEY", b"x-api-key"), (b"Cookie", b"cookie"), (b"authorization", b"authorization")],
)
def test_a_field_has_one_name_however_it_is_spelled(name: bytes, place: bytes) -> None:
    assert field_place(name) == place


@pytest.mark.parametrize(
    ("path", "query", "fields", "place", "key"),
    [
        (b"/", b"", ((b"Authorization", b"Bearer abc"),), b"authorization", b"abc"),
        (b"/", b"", ((b"X_Api_Key", b"abc"),), b"x-api-key", b"abc"),
        (b"/", b"", ((b"Cookie", b"sid=abc"),), COOKIE, b"abc"),
        (b"/", b"api_key=abc", (), QUERY, b"abc"),
        (b"/", b"api%5Fkey=a%62c", (), QUERY, b"abc"),
        (b"/x;token=abc", b"", (), PATH, b"abc"),
    ],
)
def test_a_login_is_found_wherever_it_appears(
    path: bytes, query: bytes, fields: tuple[tuple[bytes, bytes], ...], place: bytes, key: bytes
) -> None:
    (found,) = find_logins(path, query, fields)

    assert (found.place, found.keys[0]) == (place, key)


def test_basic_is_compared_by_its_password() -> None:
    coded = b64encode(b"user:secret")

    (found,) = find_logins(b"/", b"", ((b"Authorization", b"Basic " + coded),))

    assert found.keys == (b"secret", b"user:secret")


def test_what_says_nothing_about_an_account_is_no_login() -> None:
    fields = ((b"X-CSRF-Token", b"abc"), (b"Cookie", b"__cf_bm=abc"), (b"Accept", b"*/*"))

    assert find_logins(b"/a", b"page_token=2&q=x", fields) == []


def test_no_repr_shows_a_login() -> None:
    assert "abc" not in repr(find_logins(b"/", b"key=abc", ((b"x-api-key", b"abc"),)))
