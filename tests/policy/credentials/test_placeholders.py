"""The laws of placeholders: one is found in every encoding, and nothing else is."""

from base64 import b64encode

import pytest

from claude_proxy.policy.credentials.placeholders import NO_PLACEHOLDERS, STEM, Placeholders
from tests.policy.credentials.cases import request

OWN = f"{STEM}own"
CHOSEN = "chosen-by-the-owner"
BOTH = Placeholders((OWN, CHOSEN, ""))


@pytest.mark.parametrize("text", [OWN, CHOSEN])
def test_a_placeholder_is_found_plain_and_in_base64(text: str) -> None:
    plain = text.encode()

    for before in (b"", b"x", b"xy"):
        assert BOTH.within(before + plain)
        assert BOTH.within(b64encode(before + plain))


def test_another_placeholder_of_the_usual_kind_is_none_of_these() -> None:
    assert not BOTH.within(f"{STEM}other".encode())


def test_a_placeholder_is_found_in_path_query_and_fields() -> None:
    assert BOTH.in_head(request(path=f"/{OWN}"), ())
    assert BOTH.in_head(request(query=f"a={CHOSEN.replace('-', '%2D')}"), ())
    assert BOTH.in_head(request(), ((b"a", OWN.encode()),))
    assert not BOTH.in_head(request(), ((b"a", b"b"),))


def test_without_placeholders_none_is_found() -> None:
    assert not NO_PLACEHOLDERS.in_head(request(path=f"/{OWN}"), ())
